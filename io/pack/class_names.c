/* Owns the reading of files that name classes. One thread. */
#include "io/pack/input.h"

#include "base/error.h"
#include "base/text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* "n01440764 tench, Tinca tinca": the name follows the id of the class. */
static int take_line(pack_input *input, char *line, int32_t *named)
{
    const size_t length = strcspn(line, " \t,");
    const char end = line[length];
    line[length] = '\0';
    const int32_t label = end ? pack_input_find_class(input, line) : -1;
    line[length] = end;
    if (label < 0 || input->class_names[label])
        return 0;
    input->class_names[label] = strdup(line + length + 1 + strspn(line + length + 1, " \t"));
    CHECK(input->class_names[label], ERROR_MEMORY, "no memory for the names of classes");
    ++*named;
    return 0;
}

static int take_in_order(pack_input *input, const text_lines *lines)
{
    for (int32_t i = 0; i < input->classes; i++) {
        free(input->class_names[i]);
        input->class_names[i] = strdup(lines->lines[i]);
        CHECK(input->class_names[i], ERROR_MEMORY, "no memory for the names of classes");
    }
    return 0;
}

/* Lines of an id and a name, for every class, or as many names as classes, in their order. */
static int take_names(pack_input *input, const char *path, const text_lines *lines)
{
    int32_t named = 0;
    for (int64_t i = 0; i < lines->count; i++)
        TRY(take_line(input, lines->lines[i], &named));
    if (named == input->classes)
        return 0;
    CHECK(lines->count == input->classes, ERROR_DATA,
          "%s: names %d of %d classes by their ids, and its %lld lines are not one for each class", path, named,
          input->classes, (long long)lines->count);
    return take_in_order(input, lines);
}

static int take_ids(pack_input *input)
{
    for (int32_t i = 0; i < input->classes; i++)
        if (!input->class_names[i]) {
            input->class_names[i] = strdup(input->class_ids[i]);
            CHECK(input->class_names[i], ERROR_MEMORY, "no memory for the names of classes");
        }
    return 0;
}

static int read_names(pack_input *input, const char *path)
{
    text_lines lines;
    TRY(text_lines_read(&lines, path));
    int status = take_names(input, path, &lines);
    text_lines_free(&lines);
    return status;
}

int input_name_classes(pack_input *input, const pack_options *options)
{
    static const char *const usual[] = {"LOC_synset_mapping.txt", "words.txt"};
    char path[PATH_MAX];
    if (!input->class_names)
        input->class_names = calloc((size_t)input->classes + 1, sizeof *input->class_names);
    CHECK(input->class_names, ERROR_MEMORY, "no memory for the names of classes");
    if (options->class_names)
        return read_names(input, options->class_names);
    for (size_t i = 0; options->from && i < sizeof usual / sizeof usual[0]; i++)
        if (pack_exists(options->from, usual[i])) {
            TRY(pack_join(path, options->from, usual[i]));
            return read_names(input, path);
        }
    return take_ids(input);
}
