/* Owns the texts of single values: reading, printing, and saying what is allowed. Invariant: what setting_print writes,
 * setting_assign reads back to the same bits. Threads: any. */
#include "settings_table.h"

#include "base/error.h"
#include "base/path.h"
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *setting_word(const setting_row *row, int index, int *length)
{
    const char *word = row->words;
    for (; *word != '\0'; index--) {
        *length = (int)strcspn(word, "|");
        if (index == 0)
            return word;
        word += *length + 1;
    }
    return NULL;
}

static void range_of_choice(const setting_row *row, char *out, size_t bytes)
{
    const char *word;
    int length, used = snprintf(out, bytes, "one of");
    for (int i = 0; (word = setting_word(row, i, &length)) != NULL && (size_t)used < bytes; i++)
        used += snprintf(out + used, bytes - (size_t)used, "%s %.*s", i > 0 ? "," : "", length, word);
}

void setting_range(const setting_row *row, char out[SETTING_RANGE_BYTES])
{
    const size_t bytes = SETTING_RANGE_BYTES;
    char min[TEXT_DOUBLE_BYTES], max[TEXT_DOUBLE_BYTES];
    if (row->type == SETTING_INT || row->type == SETTING_INTS) {
        snprintf(min, sizeof min, "%.0f", row->min);
        snprintf(max, sizeof max, "%.0f", row->max);
    } else {
        text_from_double(row->min, min);
        text_from_double(row->max, max);
    }
    switch (row->type) {
    case SETTING_BOOL:
        snprintf(out, bytes, "yes or no");
        break;
    case SETTING_INT:
        snprintf(out, bytes, "a whole number from %s to %s", min, max);
        break;
    case SETTING_REAL:
        snprintf(out, bytes, "a number from %s to %s", min, max);
        break;
    case SETTING_TEXT:
        snprintf(out, bytes, "a text of at most %d bytes", SETTING_TEXT_BYTES - 1);
        break;
    case SETTING_PATH:
        snprintf(out, bytes, "a path of at most %d bytes; ~ and ~user at its start are home folders",
                 SETTING_TEXT_BYTES - 1);
        break;
    case SETTING_CHOICE:
        range_of_choice(row, out, bytes);
        break;
    case SETTING_INTS:
        snprintf(out, bytes, "at most %d whole numbers from %s to %s, between commas", SETTING_LIST_MAX, min, max);
        break;
    case SETTING_REALS:
        snprintf(out, bytes, "at most %d numbers from %s to %s, between commas", SETTING_LIST_MAX, min, max);
        break;
    }
}

static int refuse(const setting_row *row, const char *value, const char *what)
{
    char range[SETTING_RANGE_BYTES];
    setting_range(row, range);
    return error_set(ERROR_SETTINGS, "'%.80s' %s; allowed is %s (default '%s')", value, what, range, row->initial);
}

static int read_bool(const setting_row *row, const char *value, bool *out)
{
    static const char *const words[2][4] = {{"no", "false", "off", "0"}, {"yes", "true", "on", "1"}};
    for (int truth = 0; truth < 2; truth++)
        for (int i = 0; i < 4; i++)
            if (strcasecmp(value, words[truth][i]) == 0) {
                *out = truth != 0;
                return 0;
            }
    return refuse(row, value, "is neither yes nor no");
}

static int read_int(const setting_row *row, const char *value, int64_t *out)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end != '\0')
        return refuse(row, value, "is not a whole number");
    if (errno != 0 || (double)number < row->min || (double)number > row->max)
        return refuse(row, value, "is out of bounds");
    *out = number;
    return 0;
}

static int read_real(const setting_row *row, const char *value, double *out)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end != '\0' || isnan(number))
        return refuse(row, value, "is not a number");
    if (number < row->min || number > row->max)
        return refuse(row, value, "is out of bounds");
    *out = number;
    return 0;
}

static int read_choice(const setting_row *row, const char *value, int *out)
{
    const char *word;
    int length;
    for (int i = 0; (word = setting_word(row, i, &length)) != NULL; i++)
        if (strlen(value) == (size_t)length && strncasecmp(value, word, (size_t)length) == 0) {
            *out = i;
            return 0;
        }
    return refuse(row, value, "is not a known word");
}

/* Would a file read something else, were the text written there as it is? */
static bool needs_quotes(const char *text)
{
    const size_t length = strlen(text);
    for (const char *c = text; *c != '\0'; c++)
        if ((*c == ';' || *c == '#') && (c == text || c[-1] == ' '))
            return true;
    return length > 0 && (strchr(" \"'", text[0]) != NULL || text[length - 1] == ' ');
}

/* A text must survive being written to a file: one line, and a kind of quotes left to put around it where need be. */
static int read_text(const setting_row *row, const char *value, char *out)
{
    if (strlen(value) >= SETTING_TEXT_BYTES)
        return refuse(row, value, "is too long");
    for (const char *c = value; *c != '\0'; c++)
        if (iscntrl((unsigned char)*c))
            return refuse(row, value, "holds a control character");
    if (needs_quotes(value) && strchr(value, '"') != NULL && strchr(value, '\'') != NULL)
        return refuse(row, value, "holds both kinds of quotes and what only quotes could protect in a file");
    strncpy(out, value, SETTING_TEXT_BYTES); /* zeroes the rest: equal settings are equal bytes */
    return 0;
}

static int read_path(const setting_row *row, const char *value, char *out)
{
    char path[SETTING_TEXT_BYTES];
    TRY(path_expand(value, path, sizeof path));
    return read_text(row, path, out);
}

/* Reads one element of a list into its place. */
static int read_element(const setting_row *row, const char *value, void *member, int index)
{
    if (row->type == SETTING_INTS)
        return read_int(row, value, &((setting_ints *)member)->value[index]);
    return read_real(row, value, &((setting_reals *)member)->value[index]);
}

/* Elements are separated by a comma; a range is written with two dots. */
static size_t element_length(const char *text)
{
    const size_t comma = strcspn(text, ",");
    const char *dots = strstr(text, "..");
    return dots != NULL && (size_t)(dots - text) < comma ? (size_t)(dots - text) : comma;
}

static const char *after_element(const char *end)
{
    return *end == ',' ? end + 1 : *end == '.' ? end + 2 : NULL;
}

static int read_list(const setting_row *row, const char *value, void *member)
{
    char element[64];
    int count = 0;
    const char *rest = *value != '\0' ? value : NULL;
    while (rest != NULL) {
        size_t length = element_length(rest);
        if (count == SETTING_LIST_MAX)
            return refuse(row, value, "has too many values");
        if (length >= sizeof element)
            return refuse(row, value, "has a value that is too long");
        memcpy(element, rest, length);
        element[length] = '\0';
        TRY(read_element(row, text_trim(element), member, count++));
        rest = after_element(rest + length);
    }
    if (row->type == SETTING_INTS)
        ((setting_ints *)member)->count = count;
    else
        ((setting_reals *)member)->count = count;
    return 0;
}

static int read_member(void *member, const setting_row *row, const char *value)
{
    switch (row->type) {
    case SETTING_BOOL:
        return read_bool(row, value, member);
    case SETTING_INT:
        return read_int(row, value, member);
    case SETTING_REAL:
        return read_real(row, value, member);
    case SETTING_TEXT:
        return read_text(row, value, member);
    case SETTING_PATH:
        return read_path(row, value, member);
    case SETTING_CHOICE:
        return read_choice(row, value, member);
    case SETTING_INTS:
    case SETTING_REALS:
        return read_list(row, value, member);
    }
    return error_set(ERROR_INTERNAL, "setting %s.%s has no type", row->section, row->key);
}

int setting_assign(settings *s, const setting_row *row, const char *value)
{
    settings next = *s; /* a list may fail half-way */
    TRY(read_member((char *)&next + row->offset, row, value));
    *s = next;
    return 0;
}

static void print_list(const void *member, setting_type type, FILE *out)
{
    const setting_ints *ints = member;
    const setting_reals *reals = member;
    char number[TEXT_DOUBLE_BYTES];
    const int count = type == SETTING_INTS ? ints->count : reals->count;
    for (int i = 0; i < count; i++) {
        if (type == SETTING_INTS)
            snprintf(number, sizeof number, "%" PRId64, ints->value[i]);
        else
            text_from_double(reals->value[i], number);
        fprintf(out, "%s%s", i > 0 ? "," : "", number);
    }
}

static void print_text(const char *text, FILE *out)
{
    const char *quote = !needs_quotes(text) ? "" : strchr(text, '"') == NULL ? "\"" : "'";
    fprintf(out, "%s%s%s", quote, text, quote);
}

void setting_print(const settings *s, const setting_row *row, FILE *out)
{
    const void *member = (const char *)s + row->offset;
    char number[TEXT_DOUBLE_BYTES];
    const char *word;
    int length;
    switch (row->type) {
    case SETTING_BOOL:
        fputs(*(const bool *)member ? "yes" : "no", out);
        break;
    case SETTING_INT:
        fprintf(out, "%" PRId64, *(const int64_t *)member);
        break;
    case SETTING_REAL:
        text_from_double(*(const double *)member, number);
        fputs(number, out);
        break;
    case SETTING_TEXT:
    case SETTING_PATH:
        print_text(member, out);
        break;
    case SETTING_CHOICE:
        if ((word = setting_word(row, *(const int *)member, &length)) != NULL)
            fprintf(out, "%.*s", length, word);
        break;
    case SETTING_INTS:
    case SETTING_REALS:
        print_list(member, row->type, out);
        break;
    }
}
