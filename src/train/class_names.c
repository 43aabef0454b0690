/* Owns nothing. HDF5 holds an attribute of less than 64 KiB, so that a long list lies in several. */
#include "train/class_names.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 32000, KEY_BYTES = 32, MOST_PIECES = 10000 };

static void piece_key(int number, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "class_names_%d", number);
}

/* How many of the first bytes of a text make a piece: no character of UTF-8 is cut. */
static size_t piece_length(const char *text)
{
    size_t length = strlen(text);
    if (length <= PIECE_BYTES)
        return length;
    length = PIECE_BYTES;
    while (length > 1 && ((unsigned char)text[length] & 0xC0) == 0x80)
        length--;
    return length;
}

static int write_pieces(tensor_file *file, const char *text)
{
    char key[KEY_BYTES], piece[PIECE_BYTES + 1];
    for (int number = 0; *text; number++) {
        const size_t length = piece_length(text);
        memcpy(piece, text, length);
        piece[length] = '\0';
        piece_key(number, key);
        TRY(tensor_file_set_text(file, key, piece));
        text += length;
    }
    return 0;
}

int class_names_write(tensor_file *file, const image_set *set)
{
    char *text;
    TRY(image_set_class_list(set, &text));
    int status = text ? write_pieces(file, text) : 0;
    free(text);
    return status;
}

/* Puts `piece` behind what is there. */
static int append(char **text, const char *piece)
{
    const size_t before = *text ? strlen(*text) : 0, more = strlen(piece);
    char *longer = realloc(*text, before + more + 1);
    CHECK(longer, ERROR_MEMORY, "no memory for the names of the classes");
    memcpy(longer + before, piece, more + 1);
    *text = longer;
    return 0;
}

int class_names_read(tensor_file *file, char **text)
{
    char key[KEY_BYTES], *piece;
    *text = NULL;
    int status = 0;
    for (int number = 0; status == 0 && number < MOST_PIECES; number++) {
        piece_key(number, key);
        if (!tensor_file_has(file, key))
            break;
        status = tensor_file_get_text(file, key, &piece);
        if (status < 0)
            break;
        status = append(text, piece);
        free(piece);
    }
    if (status < 0) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* Both lists, up to the first line that differs. */
static int compare(const char *saved, const char *now, const char *path)
{
    for (int label = 0;; label++) {
        const int length = (int)strcspn(saved, "\n"), now_length = (int)strcspn(now, "\n");
        CHECK(length == now_length && memcmp(saved, now, (size_t)length) == 0, ERROR_SETTINGS,
              "data.path: class %d is \"%.*s\", but %s was trained with \"%.*s\" there; labels mean other things",
              label, now_length, now, path, length, saved);
        const bool ends = !saved[length], now_ends = !now[length];
        CHECK(ends == now_ends, ERROR_SETTINGS, "data.path: the data have %s classes than %s", ends ? "more" : "fewer",
              path);
        if (ends)
            return 0;
        saved += length + 1;
        now += length + 1;
    }
}

int class_names_check(tensor_file *file, const char *path, const image_set *set)
{
    char *saved = NULL, *now = NULL;
    TRY(class_names_read(file, &saved));
    int status = image_set_class_list(set, &now);
    if (status == 0 && saved && now)
        status = compare(saved, now, path);
    free(saved);
    free(now);
    return status;
}
