/* Where images come from: a list of all of them, and a way to their bytes.
 *
 * An input is opened by one thread and does not change afterwards; `read` is called by any. */
#ifndef TESKD_IO_PACK_INPUT_H
#define TESKD_IO_PACK_INPUT_H

#include "io/file/byte_buffer.h"
#include "io/pack/pack.h"

#include <sys/stat.h>

typedef struct {
    size_t name;    /* where it begins in the input's text: relative to the split */
    uint64_t place; /* the input's own */
    uint32_t size;  /* bytes, as far as is known */
    int32_t label;
} pack_entry;

typedef struct pack_input pack_input;
struct pack_input {
    char title[PACK_TITLE_BYTES];
    int32_t classes;
    char **class_ids, **class_names; /* [classes]; class_names NULL until they are known */
    pack_entry *entries[PACK_SPLITS];
    int64_t count[PACK_SPLITS], room[PACK_SPLITS];
    int64_t others;
    char *text;
    size_t text_bytes, text_room;
    uint64_t stamp; /* another one when a file has been changed */
    /* ERROR_FILE where the file system fails, ERROR_DATA where the bytes are no image of the input's kind. */
    int (*read)(const pack_input *input, int split, const pack_entry *entry, byte_buffer *buffer);
    void (*close)(pack_input *input);
    void *own;
};

int pack_input_open(pack_input *input, const pack_options *options);
void pack_input_close(pack_input *input);

static inline const char *pack_entry_name(const pack_input *input, const pack_entry *entry)
{
    return input->text + entry->name;
}

/* For those who list images. */
int pack_input_add(pack_input *input, int split, const char *name, const pack_entry *entry);
int pack_input_add_class(pack_input *input, const char *id);
int32_t pack_input_find_class(const pack_input *input, const char *id); /* -1: there is none; classes are sorted */
void pack_input_sort(pack_input *input,
                     int split); /* as class folders are, whatever the order of a list or an archive */
void pack_input_stamp(pack_input *input, const struct stat *info);

/* A text file's lines without their ends, as one block: `lines[i]` points into `text`. */
typedef struct {
    char *text, **lines;
    int64_t count;
} text_lines;

int text_lines_read(text_lines *lines, const char *path);
int text_lines_split(text_lines *lines, const char *path); /* of `text`, which was set */
void text_lines_free(text_lines *lines);

/* FOLDER/NAME in a buffer of PATH_MAX bytes. */
int pack_join(char *path, const char *folder, const char *name);
bool pack_exists(const char *folder, const char *name);

/* The kinds. */
int input_open_folders(pack_input *input, const pack_options *options);
bool input_holds_folders(const char *path);
int input_open_lists(pack_input *input, const pack_options *options);
int input_open_cifar10(pack_input *input, const pack_options *options);
int input_open_cifar100(pack_input *input, const pack_options *options);
bool input_holds_cifar10(const char *path);
bool input_holds_cifar100(const char *path);

int input_open_imagenet(pack_input *input, const pack_options *options);
bool input_holds_imagenet(const char *path);

/* Reads the classes' names from a file, or leaves the ids. */
int input_name_classes(pack_input *input, const pack_options *options);

#endif
