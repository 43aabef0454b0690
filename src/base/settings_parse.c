/* Owns the reading of INI files and assignments. Invariant: the caller's settings change only when everything was
 * right. Threads: any, each with settings of its own.
 *
 * inih splits lines and tracks sections. This file feeds it line by line, and so knows the line's number, and reads
 * the values itself: inih would begin a comment inside of quotes. */
#include "settings_table.h"

#include "base/error.h"
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 2 * SETTING_TEXT_BYTES, MESSAGE_BYTES = 1024 };

typedef struct {
    settings *target;
    const char *name; /* of the file */
    const char *rest; /* the text after the current line */
    int number;       /* of the current line, from 1 */
    char line[LINE_BYTES];
    bool too_long;            /* for `line` */
    int given[SETTING_COUNT]; /* the line where a setting was given, 0: not yet */
    int errors, error_line;   /* how many, and where the first was */
    char first[MESSAGE_BYTES];
} parser;

/* Keeps the current message when it is the first of this file. */
static void note_error(parser *p)
{
    if (p->errors++ > 0)
        return;
    p->error_line = p->number;
    snprintf(p->first, sizeof p->first, "%s:%d: %s", p->name, p->number, error_message());
}

/* inih drops what stands behind a section's name, and sections without keys. */
static int check_section(char *line)
{
    char *end = line[0] == '[' ? strchr(line, ']') : NULL;
    if (end == NULL)
        return 0;
    char *behind = text_trim(end + 1);
    *end = '\0';
    if (!setting_section_exists(line + 1)) {
        char advice[SETTING_ADVICE_BYTES];
        setting_section_advice(line + 1, advice);
        return error_set(ERROR_SETTINGS, "[%.60s]: unknown section; %s", line + 1, advice);
    }
    CHECK(behind[0] == '\0' || strchr(";#", behind[0]) != NULL, ERROR_SETTINGS,
          "[%s]: '%.80s' stands behind the section's name; it belongs on a line of its own", line + 1, behind);
    return 0;
}

/* Gives inih the next line, without the indentation that it would take for a continued value. */
static char *next_line(char *buffer, int bytes, void *user)
{
    parser *p = user;
    if (*p->rest == '\0')
        return NULL;
    size_t whole = strcspn(p->rest, "\n");
    const char *begin = p->rest;
    p->rest += whole + (p->rest[whole] == '\n');
    for (; whole > 0 && isspace((unsigned char)*begin); whole--)
        begin++;
    p->number++;
    p->too_long = whole >= LINE_BYTES;
    const size_t length = p->too_long ? LINE_BYTES - 1 : whole;
    memcpy(p->line, begin, length);
    p->line[length] = '\0';

    const size_t most = (size_t)bytes - 2; /* a full buffer would make some builds of inih ask for more of the line */
    const size_t taken = length < most ? length : most;
    memcpy(buffer, p->line, taken);
    buffer[taken] = '\0';
    if (check_section(p->line) < 0)
        note_error(p);
    return buffer;
}

/* Cuts off the comment of an unquoted value in a file: ';' begins one at the start or after a blank, as inih has it. */
static int cut_comment(char *value)
{
    for (char *c = value; *c != '\0'; c++) {
        const bool begins = c == value || isspace((unsigned char)c[-1]);
        CHECK(!begins || *c != '#', ERROR_SETTINGS,
              "'%.80s' holds '#' at the start or after a blank; a comment begins with ';', a value that holds '#' "
              "stands in quotes",
              value);
        if (begins && *c == ';') {
            *c = '\0';
            return 0;
        }
    }
    return 0;
}

/* Takes blanks, a comment where there can be one, and one pair of quotes off the text behind a '=', in place. */
static int take_off(char *text, bool has_comments, const char **value)
{
    while (isspace((unsigned char)*text))
        text++;
    const char quote = *text;
    if (quote != '"' && quote != '\'') {
        TRY(has_comments ? cut_comment(text) : 0);
        *value = text_trim(text);
        return 0;
    }
    char *end = strchr(text + 1, quote);
    CHECK(end != NULL, ERROR_SETTINGS, "%.80s: the quote is not closed", text);
    const char *behind = text_trim(end + 1);
    CHECK(behind[0] == '\0' || (has_comments && behind[0] == ';'), ERROR_SETTINGS,
          "'%.80s' stands behind the closing quote", behind);
    *end = '\0';
    *value = text + 1;
    return 0;
}

static int unknown_setting(const char *section, const char *key)
{
    char advice[SETTING_ADVICE_BYTES];
    setting_advice(section, key, advice);
    return error_set(ERROR_SETTINGS, "%.60s%s%.60s: unknown setting; %s", section, section[0] != '\0' ? "." : "", key,
                     advice);
}

/* Changes `text`, what stands behind the '='. */
static int assign_named(settings *s, const setting_row *row, char *text, bool has_comments)
{
    const char *value = text;
    int status = take_off(text, has_comments, &value);
    if (status == 0)
        status = setting_assign(s, row, value);
    return status < 0 ? error_prefix(status, "%s.%s", row->section, row->key) : 0;
}

static int take_line(parser *p, const char *section, const char *key)
{
    const setting_row *row = setting_find(section, key);
    if (row == NULL)
        return unknown_setting(section, key);
    int *given = &p->given[row - setting_table];
    CHECK(*given == 0, ERROR_SETTINGS, "%s.%s: given twice, first on line %d", section, key, *given);
    *given = p->number;
    CHECK(!p->too_long, ERROR_SETTINGS, "%s.%s: the line is longer than %d bytes", section, key, LINE_BYTES - 1);
    return assign_named(p->target, row, strpbrk(p->line, "=:") + 1, true);
}

static int on_key(void *user, const char *section, const char *key, const char *value)
{
    parser *p = user;
    (void)value;
    const bool reported = section[0] != '\0' && !setting_section_exists(section);
    if (!reported && take_line(p, section, key) < 0)
        note_error(p);
    return 1;
}

int settings_parse_text(settings *s, const char *text, const char *name)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    settings next = *s;
    const bool marked = strncmp(text, byte_order_mark, strlen(byte_order_mark)) == 0;
    parser p = {.target = &next, .name = name, .rest = text + (marked ? strlen(byte_order_mark) : 0)};
    const int status = ini_parse_stream(next_line, &p, on_key, &p);
    CHECK(status >= 0, ERROR_MEMORY, "%s: out of memory", name);
    if (status > 0 && (p.errors == 0 || status < p.error_line))
        return error_set(ERROR_SETTINGS, "%s:%d: expected [section] or key = value", name, status);
    CHECK(p.errors == 0, ERROR_SETTINGS, "%s", p.first);
    *s = next;
    return 0;
}

int settings_load(settings *s, const char *path)
{
    char *text = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    errno = 0;
    const ssize_t length = getdelim(&text, &room, '\0', file); /* a text has no zero byte: this is the whole of it */
    int status = 0;
    if (length < 0 && !feof(file))
        status = error_set(ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
    else if (length > 0 && strlen(text) != (size_t)length)
        status = error_set(ERROR_SETTINGS, "%s: not a text file, it holds a zero byte", path);
    else if (length > 0)
        status = settings_parse_text(s, text, path);
    free(text);
    fclose(file);
    return status;
}

/* Splits "section.key=value" in place. */
static int split_assignment(char *text, const char **section, const char **key, char **value)
{
    char *equals = strchr(text, '=');
    CHECK(equals != NULL, ERROR_SETTINGS, "'%.80s': expected section.key=value", text);
    *equals = '\0';
    *value = equals + 1;
    char *name = text_trim(text), *dot = strchr(name, '.');
    if (dot == NULL)
        return unknown_setting("", name);
    *dot = '\0';
    *section = name;
    *key = dot + 1;
    return 0;
}

static int set_from(settings *s, char *text)
{
    const char *section = "", *key = "";
    char *value = text;
    TRY(split_assignment(text, &section, &key, &value));
    const setting_row *row = setting_find(section, key);
    return row != NULL ? assign_named(s, row, value, false) : unknown_setting(section, key);
}

int settings_set(settings *s, const char *assignment)
{
    char *text = strdup(assignment);
    CHECK(text != NULL, ERROR_MEMORY, "--set: out of memory");
    int status = set_from(s, text);
    free(text);
    return status < 0 ? error_prefix(status, "--set") : 0;
}
