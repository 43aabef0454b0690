/* Lists as an input: files of lines "PATH LABEL". A label is a class's number, or else the class's id. Owns the paths.
 * One thread until it is open. */
#include "io/pack/input.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CLASSES = 1000000 };

/* Both splits' lines, each cut in two. */
typedef struct {
    char folders[PACK_SPLITS][PATH_MAX]; /* of paths that do not begin at the root */
    text_lines lines[PACK_SPLITS];
    char **labels[PACK_SPLITS]; /* of each line */
} lists;

static void close_lists(pack_input *input)
{
    lists *l = input->own;
    for (int split = 0; l && split < PACK_SPLITS; split++) {
        text_lines_free(&l->lines[split]);
        free(l->labels[split]);
    }
    free(l);
}

static int path_of(const lists *l, int split, const pack_entry *entry, char path[PATH_MAX])
{
    const char *name = l->lines[split].lines[entry->place];
    if (name[0] != '/')
        return pack_join(path, l->folders[split], name);
    CHECK(snprintf(path, PATH_MAX, "%s", name) < PATH_MAX, ERROR_FILE, "%.100s...: the path is too long", name);
    return 0;
}

static int read_image(const pack_input *input, int split, const pack_entry *entry, byte_buffer *buffer)
{
    char path[PATH_MAX];
    TRY(path_of(input->own, split, entry, path));
    return byte_buffer_read_file(buffer, path);
}

static int find_folder(lists *l, int split, const pack_options *o)
{
    char *folder = l->folders[split];
    const char *list = o->lists[split], *slash = strrchr(list, '/');
    const char *root = o->root ? o->root : o->from;
    const int length = root ? snprintf(folder, PATH_MAX, "%s", root)
                            : snprintf(folder, PATH_MAX, "%.*s", slash ? (int)(slash - list) : 1, slash ? list : ".");
    CHECK(length < PATH_MAX, ERROR_FILE, "%.100s...: the path is too long", root ? root : list);
    return 0;
}

/* The label is the last word of a line, since a path may have spaces. */
static int cut_lines(lists *l, int split, const char *path)
{
    text_lines *lines = &l->lines[split];
    l->labels[split] = calloc((size_t)lines->count + 1, sizeof *l->labels[split]);
    CHECK(l->labels[split], ERROR_MEMORY, "%s: no memory for its lines", path);
    for (int64_t i = 0; i < lines->count; i++) {
        char *line = lines->lines[i], *last = line + strlen(line);
        while (last > line && !strchr(" \t,", last[-1]))
            last--;
        CHECK(last > line && *last, ERROR_DATA, "%s: line %lld: \"%s\", expected a path and a label", path,
              (long long)i + 1, line);
        last[-1] = '\0';
        lines->lines[i] = text_trim(line);
        l->labels[split][i] = last;
    }
    return 0;
}

/* A class's number, or -1. */
static long number_of(const char *label)
{
    char *end;
    errno = 0;
    const long number = strtol(label, &end, 10);
    return *end || errno || number < 0 || number >= MOST_CLASSES ? -1 : number;
}

/* The largest number where every label is one, else -1. */
static long largest_number(const lists *l)
{
    long largest = -1;
    for (int split = 0; split < PACK_SPLITS; split++)
        for (int64_t i = 0; i < l->lines[split].count; i++) {
            const long number = number_of(l->labels[split][i]);
            if (number < 0)
                return -1;
            largest = number > largest ? number : largest;
        }
    return largest;
}

/* With leading zeros, so that the ids are sorted as the numbers are. */
static int number_classes(pack_input *input, long largest)
{
    char id[32], all[32];
    const int digits = snprintf(all, sizeof all, "%ld", largest);
    for (long number = 0; number <= largest; number++) {
        snprintf(id, sizeof id, "%0*ld", digits, number);
        TRY(pack_input_add_class(input, id));
    }
    return 0;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int name_classes(pack_input *input, const lists *l)
{
    const size_t count = (size_t)(l->lines[0].count + l->lines[1].count);
    char **all = malloc((count + 1) * sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for the labels");
    for (int64_t i = 0; i < l->lines[0].count; i++)
        all[i] = l->labels[0][i];
    for (int64_t i = 0; i < l->lines[1].count; i++)
        all[l->lines[0].count + i] = l->labels[1][i];
    qsort(all, count, sizeof *all, compare_texts);
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++)
        if (i == 0 || strcmp(all[i - 1], all[i]) != 0)
            status = pack_input_add_class(input, all[i]);
    free(all);
    return status;
}

/* As it would be called in a class folder: unpacked, it lies in one. */
static void folder_name(const char *id, const char *path, char name[PACK_NAME_BYTES])
{
    snprintf(name, PACK_NAME_BYTES, "%s/%s", id, path[0] == '/' ? path + 1 : path);
    for (char *at = name + strlen(id) + 1; *at; at++)
        if (*at == '/')
            *at = '_';
}

static int take_line(pack_input *input, int split, int64_t line, bool numbered)
{
    const lists *l = input->own;
    char name[PACK_NAME_BYTES], path[PATH_MAX];
    const char *label = l->labels[split][line];
    struct stat info = {0};
    pack_entry entry = {.place = (uint64_t)line};
    entry.label = numbered ? (int32_t)number_of(label) : pack_input_find_class(input, label);
    TRY(path_of(l, split, &entry, path));
    (void)stat(path, &info); /* reading one that is not there says why */
    CHECK(info.st_size <= INT32_MAX, ERROR_DATA, "%s: %lld bytes are too many for an image", path,
          (long long)info.st_size);
    entry.size = (uint32_t)info.st_size;
    pack_input_stamp(input, &info);
    folder_name(input->class_ids[entry.label], l->lines[split].lines[line], name);
    return pack_input_add(input, split, name, &entry);
}

static int read_list(lists *l, int split, const pack_options *o)
{
    if (!o->lists[split])
        return 0;
    TRY(find_folder(l, split, o));
    TRY(text_lines_read(&l->lines[split], o->lists[split]));
    return cut_lines(l, split, o->lists[split]);
}

int input_open_lists(pack_input *input, const pack_options *options)
{
    lists *l = calloc(1, sizeof *l);
    CHECK(l, ERROR_MEMORY, "no memory for the lists");
    input->own = l;
    input->close = close_lists;
    input->read = read_image;
    snprintf(input->title, sizeof input->title, "the images of %.200s",
             options->lists[0]   ? options->lists[0]
             : options->lists[1] ? options->lists[1]
                                 : "no list");
    CHECK(options->lists[0] || options->lists[1], ERROR_USAGE, "--kind list needs --train-list or --val-list");
    for (int split = 0; split < PACK_SPLITS; split++)
        TRY(read_list(l, split, options));
    const long largest = largest_number(l);
    TRY(largest >= 0 ? number_classes(input, largest) : name_classes(input, l));
    for (int split = 0; split < PACK_SPLITS; split++)
        for (int64_t i = 0; i < l->lines[split].count; i++)
            TRY(take_line(input, split, i, largest >= 0));
    return 0;
}
