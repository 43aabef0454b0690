/* Owns nothing. Threads: any. */
#include "base/text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DISTANCE_MAX = 63 };

void text_from_double(double value, char out[TEXT_DOUBLE_BYTES])
{
    char text[TEXT_DOUBLE_BYTES];
    snprintf(out, TEXT_DOUBLE_BYTES, "%.17g", value);
    for (int digits = 16; digits >= 1; digits--) { /* not always fewer characters: 1000 and 1e+03 */
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value && strlen(text) < strlen(out))
            memcpy(out, text, sizeof text);
    }
}

static int least(int a, int b, int c)
{
    int smaller = a < b ? a : b;
    return smaller < c ? smaller : c;
}

int text_distance(const char *a, const char *b)
{
    const int a_length = (int)strnlen(a, DISTANCE_MAX), b_length = (int)strnlen(b, DISTANCE_MAX);
    int row[DISTANCE_MAX + 1]; /* distances of the first i characters of a to every beginning of b */
    for (int j = 0; j <= b_length; j++)
        row[j] = j;
    for (int i = 1; i <= a_length; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= b_length; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(replaced, row[j] + 1, row[j - 1] + 1);
        }
    }
    return row[b_length];
}

char *text_trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

int text_utf8_length(const char *characters, uint32_t *code)
{
    const unsigned char *text = (const unsigned char *)characters;
    static const struct {
        unsigned char mask, lead;
        uint32_t least; /* a shorter form exists below it */
    } form[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (int length = 1; length <= 4; length++) {
        const unsigned char mask = form[length - 1].mask;
        if ((text[0] & mask) != form[length - 1].lead)
            continue;
        uint32_t found = text[0] & (unsigned char)~mask;
        for (int i = 1; i < length; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            found = found << 6 | (text[i] & 0x3f);
        }
        const bool surrogate = found >= 0xd800 && found <= 0xdfff;
        if (code)
            *code = found;
        return found >= form[length - 1].least && found <= 0x10ffff && !surrogate ? length : 0;
    }
    return 0;
}

static bool is_shown(uint32_t code)
{
    const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
    const bool steers = (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return !control && !steers;
}

void text_printable(const char *text, char *out, size_t bytes)
{
    enum { ESCAPE_BYTES = 4 };
    while (*text != '\0') {
        uint32_t code = 0;
        const int length = text_utf8_length(text, &code);
        const bool shown = length > 0 && is_shown(code);
        const size_t taken = shown ? (size_t)length : ESCAPE_BYTES;
        if (taken >= bytes)
            break;
        if (shown)
            memcpy(out, text, taken);
        else
            snprintf(out, bytes, "\\x%02x", (unsigned char)*text);
        text += shown ? length : 1;
        out += taken;
        bytes -= taken;
    }
    *out = '\0';
}
