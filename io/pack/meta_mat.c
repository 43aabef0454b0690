/* Reads one structure out of a MATLAB file. Owns what it inflates. Invariant: no byte is looked at before the element
 * that it is in is known to have it. Any thread.
 *
 * A file is a header of 128 bytes and elements; an element is its type, its size, and its bytes. A matrix is an element
 * whose bytes are elements: flags, sizes, name, and what it holds. */
#include "io/pack/meta_mat.h"

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { HEADER = 128, INFLATED_MOST = 1 << 26, CLASSES_MOST = 100000, FIELDS_MOST = 64 };
enum { INT8 = 1, UINT8, INT16, UINT16, INT32, UINT32, DOUBLE = 9, MATRIX = 14, COMPRESSED = 15, UTF8 = 16 };
enum { CLASS_STRUCTURE = 2 };

/* What is left of a file or of an element. */
typedef struct {
    const uint8_t *at;
    size_t left;
} rest;

typedef struct {
    uint32_t type;
    rest bytes;
} element;

static int cut_off(void)
{
    return error_set(ERROR_DATA, "no whole MATLAB file of version 5");
}

static uint32_t word(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* A small element has its size in the type's upper half, and its bytes where the size would be. */
static int take(rest *r, element *e)
{
    if (r->left < 8)
        return cut_off();
    const bool is_small = word(r->at) >> 16 != 0;
    const size_t size = is_small ? word(r->at) >> 16 : word(r->at + 4), head = is_small ? 4 : 8;
    e->type = word(r->at) & 0xffff;
    if (size > r->left - head || (is_small && size > 4))
        return cut_off();
    e->bytes = (rest){r->at + head, size};
    size_t all = is_small ? 8 : head + (e->type == COMPRESSED ? size : (size + 7) / 8 * 8);
    all = all < r->left ? all : r->left;
    r->at += all;
    r->left -= all;
    return 0;
}

static double number_at(const element *e)
{
    const uint8_t *at = e->bytes.at;
    double real;
    uint16_t half;
    switch (e->bytes.left == 0 ? 0 : e->type) {
    case INT8:
    case UINT8:
        return at[0];
    case INT16:
    case UINT16:
        if (e->bytes.left < sizeof half)
            return -1;
        memcpy(&half, at, sizeof half);
        return half;
    case INT32:
    case UINT32:
        return e->bytes.left < 4 ? -1 : (double)word(at);
    case DOUBLE:
        if (e->bytes.left < sizeof real)
            return -1;
        memcpy(&real, at, sizeof real);
        return real;
    default:
        return -1;
    }
}

/* Characters of one or two bytes; what is no ASCII becomes a question mark. */
static void text_at(const element *e, char *text, size_t room)
{
    const size_t width = e->type == UINT16 ? 2 : 1, count = e->bytes.left / width;
    size_t used = 0;
    for (size_t i = 0; i < count && used + 1 < room; i++) {
        const uint8_t *at = e->bytes.at + i * width;
        const bool plain = at[0] >= ' ' && at[0] < 127 && (width == 1 || at[1] == 0);
        text[used++] = plain ? (char)at[0] : '?';
    }
    text[used] = '\0';
}

/* Flags, sizes and name of a matrix; what it holds is left. */
static int take_head(rest *matrix, uint32_t *class, uint64_t *count, char name[META_TEXT_BYTES])
{
    element flags = {0}, sizes = {0}, called = {0};
    TRY(take(matrix, &flags));
    TRY(take(matrix, &sizes));
    TRY(take(matrix, &called));
    if (flags.bytes.left < 4)
        return cut_off();
    *class = flags.bytes.at[0];
    *count = 1;
    for (size_t i = 0; i + 4 <= sizes.bytes.left; i += 4)
        if (__builtin_mul_overflow(*count, (uint64_t)word(sizes.bytes.at + i), count))
            return cut_off();
    text_at(&called, name, META_TEXT_BYTES);
    return 0;
}

typedef enum { OTHER_FIELD, ID_FIELD, WNID_FIELD, WORDS_FIELD } field_kind;

typedef struct {
    field_kind kinds[FIELDS_MOST];
    size_t count;
} fields;

static field_kind kind_of(const char *name, size_t room)
{
    if (strncmp(name, "ILSVRC2012_ID", room) == 0)
        return ID_FIELD;
    if (strncmp(name, "WNID", room) == 0)
        return WNID_FIELD;
    return strncmp(name, "words", room) == 0 ? WORDS_FIELD : OTHER_FIELD;
}

/* The fields' names have so many bytes each. */
static int take_fields(rest *structure, fields *f)
{
    element length = {0}, names = {0};
    TRY(take(structure, &length));
    TRY(take(structure, &names));
    const size_t each = length.bytes.left >= 4 ? word(length.bytes.at) : 0;
    if (each == 0 || names.bytes.left / each > FIELDS_MOST)
        return cut_off();
    f->count = names.bytes.left / each;
    for (size_t i = 0; i < f->count; i++)
        f->kinds[i] = kind_of((const char *)names.bytes.at + i * each, each);
    return 0;
}

static int take_value(rest *structure, field_kind kind, meta_class *c)
{
    element matrix = {0}, value = {0};
    uint32_t class = 0;
    uint64_t count = 0;
    char name[META_TEXT_BYTES] = "";
    TRY(take(structure, &matrix));
    if (kind == OTHER_FIELD || matrix.bytes.left == 0)
        return 0;
    TRY(take_head(&matrix.bytes, &class, &count, name));
    TRY(take(&matrix.bytes, &value));
    if (kind == WNID_FIELD)
        text_at(&value, c->wnid, sizeof c->wnid);
    if (kind == WORDS_FIELD)
        text_at(&value, c->words, sizeof c->words);
    const double number = kind == ID_FIELD ? number_at(&value) : -1;
    if (number >= 1 && number <= CLASSES_MOST)
        c->id = (int32_t)number;
    return 0;
}

static int take_classes(rest *structure, uint64_t count, meta_class **classes, int32_t *found)
{
    fields f = {.count = 0};
    TRY(take_fields(structure, &f));
    if (count == 0 || count > CLASSES_MOST || f.count == 0 || count > structure->left / 8 / f.count)
        return cut_off();
    *classes = calloc(count, sizeof **classes);
    CHECK(*classes, ERROR_MEMORY, "no memory for %llu classes", (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++)
        for (size_t field = 0; field < f.count; field++)
            TRY(take_value(structure, f.kinds[field], &(*classes)[i]));
    *found = (int32_t)count;
    return 0;
}

/* Takes the matrix where it is the structure; `*found` stays 0 where it is another one. */
static int look_at_matrix(const element *e, meta_class **classes, int32_t *found)
{
    rest matrix = e->bytes;
    uint32_t class = 0;
    uint64_t count = 0;
    char name[META_TEXT_BYTES] = "";
    if (e->type != MATRIX)
        return 0;
    TRY(take_head(&matrix, &class, &count, name));
    if (class != CLASS_STRUCTURE || strcmp(name, "synsets") != 0)
        return 0;
    return take_classes(&matrix, count, classes, found);
}

static int inflate_into(const element *e, uint8_t *room, size_t *size)
{
    uLongf inflated = INFLATED_MOST;
    const int result = uncompress(room, &inflated, e->bytes.at, (uLong)e->bytes.left);
    if (result != Z_OK)
        return cut_off();
    *size = inflated;
    return 0;
}

static int look_at_compressed(const element *e, meta_class **classes, int32_t *found)
{
    element inner = {0};
    rest inflated = {NULL, 0};
    uint8_t *room = malloc(INFLATED_MOST);
    CHECK(room, ERROR_MEMORY, "no memory for the classes");
    int status = inflate_into(e, room, &inflated.left);
    inflated.at = room;
    if (status == 0)
        status = take(&inflated, &inner);
    if (status == 0)
        status = look_at_matrix(&inner, classes, found);
    free(room);
    return status;
}

static int find_structure(const uint8_t *bytes, size_t size, meta_class **classes, int32_t *count)
{
    if (size < HEADER || memcmp(bytes, "MATLAB 5.0", 10) != 0 || memcmp(bytes + HEADER - 2, "IM", 2) != 0)
        return cut_off();
    rest file = {bytes + HEADER, size - HEADER};
    while (file.left >= 8 && *count == 0) {
        element e = {0};
        TRY(take(&file, &e));
        TRY(e.type == COMPRESSED ? look_at_compressed(&e, classes, count) : look_at_matrix(&e, classes, count));
    }
    CHECK(*count > 0, ERROR_DATA, "has no structure 'synsets'");
    return 0;
}

int meta_mat_read(const uint8_t *bytes, size_t size, meta_class **classes, int32_t *count)
{
    *classes = NULL;
    *count = 0;
    int status = find_structure(bytes, size, classes, count);
    if (status == 0)
        return 0;
    free(*classes);
    *classes = NULL;
    return status;
}
