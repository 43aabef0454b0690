/* Owns nothing. Threads: any. */
#include "base/text.h"

#include <ctype.h>
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
