/* Owns the list of images to pack, and the table of kinds of inputs. One thread until it is whole. */
#include "io/pack/input.h"

#include "base/error.h"
#include "base/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const struct {
    const char *name;
    int (*open)(pack_input *input, const pack_options *options);
    bool (*holds)(const char *path);
} kinds[] = {
    {"imagenet", input_open_imagenet, input_holds_imagenet},
    {"folders", input_open_folders, input_holds_folders},
    {"cifar10", input_open_cifar10, input_holds_cifar10},
    {"cifar100", input_open_cifar100, input_holds_cifar100},
    {"list", input_open_lists, NULL},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const char *pack_kinds(void)
{
    return "folders, imagenet, list, cifar10 or cifar100";
}

static int find_kind(const pack_options *o)
{
    if (!o->kind && (o->lists[0] || o->lists[1]))
        return KINDS - 1;
    for (int i = 0; i < KINDS; i++)
        if (o->kind ? strcmp(o->kind, kinds[i].name) == 0 : kinds[i].holds && kinds[i].holds(o->from))
            return i;
    CHECK(!o->kind, ERROR_USAGE, "--kind %s: expected one of %s", o->kind, pack_kinds());
    return error_set(ERROR_DATA,
                     "%s: holds nothing that is known here: neither train/ with a folder for each class, nor "
                     "ILSVRC2012_img_train.tar, nor CIFAR's binary files; --kind says what to look for",
                     o->from);
}

/* Ids and names go into a JSON file and become folders. */
static int check_text(const char *text, const char *what)
{
    const char *at = text;
    while (*at) {
        const int length = text_utf8_length(at, NULL);
        CHECK(length > 0 && (unsigned char)*at >= ' ', ERROR_DATA, "the class's %s \"%s\" is no UTF-8 text", what,
              text);
        at += length;
    }
    return 0;
}

static int check_classes(const pack_input *input)
{
    CHECK(input->classes > 0, ERROR_DATA, "%s: no classes", input->title);
    for (int32_t i = 0; i < input->classes; i++) {
        const char *id = input->class_ids[i];
        TRY(check_text(id, "id"));
        TRY(check_text(input->class_names[i], "name"));
        CHECK(*id && !strchr(id, '/') && strcmp(id, ".") != 0 && strcmp(id, "..") != 0, ERROR_DATA,
              "the class's id \"%s\" cannot be the name of a folder", id);
    }
    return 0;
}

static int by_label_and_name(const void *a, const void *b, void *text)
{
    const pack_entry *x = a, *y = b;
    const char *names = text;
    if (x->label != y->label)
        return (x->label > y->label) - (x->label < y->label);
    return strcmp(names + x->name, names + y->name);
}

void pack_input_sort(pack_input *input, int split)
{
    if (input->count[split] > 0)
        qsort_r(input->entries[split], (size_t)input->count[split], sizeof *input->entries[split], by_label_and_name,
                input->text);
}

static int open_kind(pack_input *input, const pack_options *options)
{
    const int kind = find_kind(options);
    TRY(kind);
    CHECK(options->from || !kinds[kind].holds, ERROR_USAGE, "--kind %s needs --from DIR", kinds[kind].name);
    TRY(kinds[kind].open(input, options));
    for (int split = 0; split < PACK_SPLITS && kinds[kind].open != input_open_folders; split++)
        pack_input_sort(input, split);
    TRY(input_name_classes(input, options));
    CHECK(input->count[0] + input->count[1] > 0, ERROR_DATA, "%s: no images", input->title);
    return check_classes(input);
}

int pack_input_open(pack_input *input, const pack_options *options)
{
    memset(input, 0, sizeof *input);
    int status = open_kind(input, options);
    if (status < 0)
        pack_input_close(input);
    return status;
}

void pack_input_close(pack_input *input)
{
    if (input->close)
        input->close(input);
    for (int32_t i = 0; i < input->classes; i++) {
        free(input->class_ids[i]);
        free(input->class_names ? input->class_names[i] : NULL);
    }
    free(input->class_ids);
    free(input->class_names);
    for (int split = 0; split < PACK_SPLITS; split++)
        free(input->entries[split]);
    free(input->text);
    memset(input, 0, sizeof *input);
}

static int no_memory(const pack_input *input)
{
    return error_set(ERROR_MEMORY, "%s: no memory for the list of images", input->title);
}

static int grow(pack_input *input, int split, size_t name_bytes)
{
    if (input->count[split] == input->room[split]) {
        const int64_t room = 2 * input->room[split] + 1024;
        pack_entry *entries = realloc(input->entries[split], (size_t)room * sizeof *entries);
        if (!entries)
            return no_memory(input);
        input->entries[split] = entries;
        input->room[split] = room;
    }
    if (input->text_bytes + name_bytes > input->text_room) {
        const size_t room = 2 * input->text_room + name_bytes + 4096;
        char *text = realloc(input->text, room);
        if (!text)
            return no_memory(input);
        input->text = text;
        input->text_room = room;
    }
    return 0;
}

int pack_input_add(pack_input *input, int split, const char *name, const pack_entry *entry)
{
    const size_t bytes = strlen(name) + 1;
    CHECK(bytes <= PACK_NAME_BYTES, ERROR_DATA, "%s: its name is longer than %d bytes", name, PACK_NAME_BYTES - 1);
    CHECK(input->count[split] < INT32_MAX, ERROR_DATA, "%s: more than %d images", input->title, INT32_MAX);
    TRY(grow(input, split, bytes));
    pack_entry *added = &input->entries[split][input->count[split]++];
    *added = *entry;
    added->name = input->text_bytes;
    memcpy(input->text + input->text_bytes, name, bytes);
    input->text_bytes += bytes;
    return 0;
}

int pack_input_add_class(pack_input *input, const char *id)
{
    char **ids = realloc(input->class_ids, ((size_t)input->classes + 1) * sizeof *ids);
    if (!ids)
        return no_memory(input);
    input->class_ids = ids;
    ids[input->classes] = strdup(id);
    if (!ids[input->classes])
        return no_memory(input);
    input->classes++;
    return 0;
}

static int compare_id(const void *id, const void *element)
{
    return strcmp(id, *(char *const *)element);
}

int32_t pack_input_find_class(const pack_input *input, const char *id)
{
    if (input->classes == 0)
        return -1;
    char **found = bsearch(id, input->class_ids, (size_t)input->classes, sizeof *input->class_ids, compare_id);
    return found ? (int32_t)(found - input->class_ids) : -1;
}

void pack_input_stamp(pack_input *input, const struct stat *info)
{
    const int64_t of_file[3] = {info->st_mtim.tv_sec, info->st_mtim.tv_nsec, info->st_size};
    input->stamp = XXH3_64bits_withSeed(of_file, sizeof of_file, input->stamp);
}

static int64_t count_lines(const char *text)
{
    int64_t count = 1;
    for (; (text = strchr(text, '\n')); text++)
        count++;
    return count;
}

int text_lines_split(text_lines *lines, const char *path)
{
    lines->lines = malloc((size_t)count_lines(lines->text) * sizeof *lines->lines);
    CHECK(lines->lines, ERROR_MEMORY, "%s: no memory for its lines", path);
    char *rest = lines->text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        line = text_trim(line);
        if (*line)
            lines->lines[lines->count++] = line;
    }
    return 0;
}

int text_lines_read(text_lines *lines, const char *path)
{
    byte_buffer buffer = {.bytes = NULL};
    memset(lines, 0, sizeof *lines);
    int status = byte_buffer_read_file(&buffer, path);
    if (status < 0) {
        free(buffer.bytes);
        return status;
    }
    buffer.bytes[buffer.size] = '\0'; /* there is room for one more */
    lines->text = (char *)buffer.bytes;
    status = strlen(lines->text) == buffer.size ? text_lines_split(lines, path)
                                                : error_set(ERROR_DATA, "%s: no text: it has zero bytes", path);
    if (status < 0)
        text_lines_free(lines);
    return status;
}

void text_lines_free(text_lines *lines)
{
    free(lines->text);
    free(lines->lines);
    memset(lines, 0, sizeof *lines);
}

int pack_join(char *path, const char *folder, const char *name)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    CHECK(length > 0 && length < PATH_MAX, ERROR_FILE, "%.100s/%.100s...: the path is too long", folder, name);
    return 0;
}

bool pack_exists(const char *folder, const char *name)
{
    char path[PATH_MAX];
    return pack_join(path, folder, name) == 0 && access(path, F_OK) == 0;
}
