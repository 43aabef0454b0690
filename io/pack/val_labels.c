/* Owns the table from validation images to classes. Invariant: every label is one of the input's classes. One thread.
 *
 * A line is a name and a class, whatever else follows: "ILSVRC2012_val_00000001.JPEG n01751748", or with a comma, as
 * Kaggle has it. A class is an id, or a number in the order of the ids. A line of one word is the class of the image
 * with the line's number. Only the development kit counts classes in an order of its own, which is in its meta.mat. */
#include "io/pack/val_labels.h"

#include "base/error.h"
#include "io/pack/meta_mat.h"
#include "io/pack/tar_index.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIT "ILSVRC2012_devkit_t12"
#define KIT_LIST "ILSVRC2012_validation_ground_truth.txt"

/* The kit's classes; none: numbers are places in the order of the ids. */
typedef struct {
    meta_class *classes;
    int32_t count;
} kit_classes;

/* The file's name without folders and ending. */
static size_t stem_of(const char *path, const char **stem)
{
    const char *slash = strrchr(path, '/');
    *stem = slash ? slash + 1 : path;
    const char *dot = strrchr(*stem, '.');
    return dot ? (size_t)(dot - *stem) : strlen(*stem);
}

static int add(val_labels *l, const char *path, int32_t label)
{
    const char *stem;
    const size_t length = stem_of(path, &stem);
    if (l->count == l->room) {
        const int64_t room = 2 * l->room + 1024;
        val_label *grown = realloc(l->labels, (size_t)room * sizeof *grown);
        CHECK(grown, ERROR_MEMORY, "no memory for the validation images' classes");
        l->labels = grown;
        l->room = room;
    }
    char *name = strndup(stem, length);
    CHECK(name, ERROR_MEMORY, "no memory for the validation images' classes");
    l->labels[l->count++] = (val_label){.name = name, .label = label};
    return 0;
}

static bool is_number(const char *text)
{
    const size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < 10 && text[digits] == '\0';
}

/* -1: there is none. */
static int32_t class_of(const pack_input *input, const kit_classes *kit, const char *word)
{
    if (!is_number(word))
        return pack_input_find_class(input, word);
    const int32_t number = (int32_t)strtol(word, NULL, 10);
    if (kit->count == 0)
        return number < input->classes ? number : -1;
    for (int32_t i = 0; i < kit->count; i++)
        if (kit->classes[i].id == number)
            return pack_input_find_class(input, kit->classes[i].wnid);
    return -1;
}

/* The next word of a line, or NULL. */
static char *next_word(char **rest)
{
    char *word;
    do
        word = strsep(rest, " \t,");
    while (word && !*word);
    return word;
}

static int take_line(val_labels *l, const pack_input *input, const kit_classes *kit, char *line, int64_t number,
                     const char *path)
{
    char numbered[64], *rest = line;
    const char *name = next_word(&rest), *class = next_word(&rest);
    if (class && strcmp(name, "ImageId") == 0) /* the first line of Kaggle's table */
        return 0;
    if (!class) {
        class = name;
        snprintf(numbered, sizeof numbered, "ILSVRC2012_val_%08lld", (long long)number);
        name = numbered;
    }
    const int32_t label = class_of(input, kit, class);
    CHECK(label >= 0, ERROR_DATA, "%s: line %lld: \"%s\" is none of the %d classes of the training images", path,
          (long long)number, class, input->classes);
    return add(l, name, label);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const val_label *)a)->name, ((const val_label *)b)->name);
}

static int take_lines(val_labels *l, const pack_input *input, const kit_classes *kit, const text_lines *lines,
                      const char *path)
{
    for (int64_t i = 0; i < lines->count; i++)
        TRY(take_line(l, input, kit, lines->lines[i], i + 1, path));
    CHECK(l->count > 0, ERROR_DATA, "%s: names no images", path);
    qsort(l->labels, (size_t)l->count, sizeof *l->labels, by_name);
    for (int64_t i = 1; i < l->count; i++)
        CHECK(by_name(&l->labels[i - 1], &l->labels[i]) != 0, ERROR_DATA, "%s: names \"%s\" twice", path,
              l->labels[i].name);
    return 0;
}

static int read_file(val_labels *l, const pack_input *input, const kit_classes *kit, const char *path)
{
    text_lines lines;
    TRY(text_lines_read(&lines, path));
    int status = take_lines(l, input, kit, &lines, path);
    text_lines_free(&lines);
    return status;
}

/* The kit has a name for each class, too. */
static int take_names(pack_input *input, const kit_classes *kit)
{
    if (!input->class_names)
        input->class_names = calloc((size_t)input->classes + 1, sizeof *input->class_names);
    CHECK(input->class_names, ERROR_MEMORY, "no memory for the names of classes");
    for (int32_t i = 0; i < kit->count; i++) {
        const int32_t label = pack_input_find_class(input, kit->classes[i].wnid);
        if (label < 0 || !kit->classes[i].words[0] || input->class_names[label])
            continue;
        input->class_names[label] = strdup(kit->classes[i].words);
        CHECK(input->class_names[label], ERROR_MEMORY, "no memory for the names of classes");
    }
    return 0;
}

static int read_meta(kit_classes *kit, const uint8_t *bytes, size_t size, const char *path)
{
    int status = meta_mat_read(bytes, size, &kit->classes, &kit->count);
    return status < 0 ? error_prefix(status, "%s: meta.mat", path) : 0;
}

/* A member of the packed kit. */
static int extract(const char *path, const char *name, uint8_t **bytes, size_t *size)
{
    TRY(tar_extract(path, name, bytes, size));
    CHECK(*bytes, ERROR_DATA, "%s: has no %s", path, name);
    return 0;
}

static int read_packed_list(val_labels *l, const pack_input *input, const kit_classes *kit, const char *path)
{
    text_lines lines = {.text = NULL};
    uint8_t *bytes;
    size_t size;
    TRY(extract(path, "data/" KIT_LIST, &bytes, &size));
    lines.text = (char *)bytes;
    int status = text_lines_split(&lines, path);
    if (status == 0)
        status = take_lines(l, input, kit, &lines, path);
    text_lines_free(&lines);
    return status;
}

static int read_packed_kit(val_labels *l, const pack_input *input, kit_classes *kit, const char *path)
{
    uint8_t *bytes;
    size_t size;
    TRY(extract(path, "data/meta.mat", &bytes, &size));
    int status = read_meta(kit, bytes, size, path);
    free(bytes);
    return status < 0 ? status : read_packed_list(l, input, kit, path);
}

static int read_kit_folder(val_labels *l, const pack_input *input, kit_classes *kit, const char *folder)
{
    char path[PATH_MAX];
    byte_buffer buffer = {.bytes = NULL};
    TRY(pack_join(path, folder, "meta.mat"));
    int status = byte_buffer_read_file(&buffer, path);
    if (status == 0)
        status = read_meta(kit, buffer.bytes, buffer.size, path);
    free(buffer.bytes);
    TRY(status);
    TRY(pack_join(path, folder, KIT_LIST));
    return read_file(l, input, kit, path);
}

static bool ends_with(const char *text, const char *ending)
{
    const size_t length = strlen(text), of_ending = strlen(ending);
    return length >= of_ending && strcmp(text + length - of_ending, ending) == 0;
}

/* A file that was named, or found. */
static int read_any(val_labels *l, const pack_input *input, kit_classes *kit, const char *path)
{
    if (ends_with(path, ".tar.gz") || ends_with(path, ".tgz") || ends_with(path, ".tar"))
        return read_packed_kit(l, input, kit, path);
    if (!ends_with(path, KIT_LIST))
        return read_file(l, input, kit, path);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)(strlen(path) - strlen(KIT_LIST)), path);
    return read_kit_folder(l, input, kit, folder[0] ? folder : ".");
}

/* What stands beside the images, the first of these. */
static int find_file(const pack_options *o, char path[PATH_MAX])
{
    static const char *const usual[] = {"LOC_val_solution.csv", "val.txt",
                                        "val_labels.txt",       "imagenet_2012_validation_synset_labels.txt",
                                        KIT ".tar.gz",          KIT "/data/" KIT_LIST,
                                        "data/" KIT_LIST};
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (pack_exists(o->from, usual[i]))
            return pack_join(path, o->from, usual[i]);
    return error_set(ERROR_DATA,
                     "%s: nothing in it says the classes of the validation images: put " KIT
                     ".tar.gz or LOC_val_solution.csv there, or name a file of lines \"NAME CLASS\" with --val-labels",
                     o->from);
}

int val_labels_read(val_labels *l, pack_input *input, const pack_options *options)
{
    kit_classes kit = {.count = 0};
    char path[PATH_MAX];
    memset(l, 0, sizeof *l);
    int status = 0;
    if (options->val_labels)
        snprintf(path, sizeof path, "%s", options->val_labels);
    else
        status = find_file(options, path);
    if (status == 0)
        status = read_any(l, input, &kit, path);
    if (status == 0)
        status = take_names(input, &kit);
    free(kit.classes);
    if (status < 0)
        val_labels_free(l);
    return status;
}

int32_t val_labels_find(const val_labels *l, const char *path)
{
    const char *stem;
    char name[PACK_NAME_BYTES];
    const size_t length = stem_of(path, &stem);
    if (length >= sizeof name)
        return -1;
    memcpy(name, stem, length);
    name[length] = '\0';
    const val_label wanted = {.name = name};
    const val_label *found = bsearch(&wanted, l->labels, (size_t)l->count, sizeof *l->labels, by_name);
    return found ? found->label : -1;
}

void val_labels_free(val_labels *l)
{
    for (int64_t i = 0; i < l->count; i++)
        free(l->labels[i].name);
    free(l->labels);
    memset(l, 0, sizeof *l);
}
