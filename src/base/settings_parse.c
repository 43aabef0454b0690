/* Owns the reading of INI files and assignments. Invariant: the caller's settings change only when everything was
 * right. Threads: any, each with settings of its own.
 *
 * inih splits lines and tracks sections; this file feeds it line by line, which is how it knows the line's number. */
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
    bool cut;                 /* for inih's own buffer */
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

/* inih ignores sections without keys, so their names are checked here. */
static void check_section(parser *p)
{
    char section[LINE_BYTES];
    const char *end = strchr(p->line, ']');
    if (p->line[0] != '[' || end == NULL)
        return;
    const size_t length = (size_t)(end - p->line) - 1;
    memcpy(section, p->line + 1, length);
    section[length] = '\0';
    if (setting_section_exists(section))
        return;
    error_set(ERROR_SETTINGS, "[%.60s]: unknown section; did you mean [%s]?", section,
              setting_nearest_section(section));
    note_error(p);
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
    check_section(p);

    const size_t room = (size_t)bytes - 2; /* a full buffer would make some builds of inih ask for more of the line */
    p->cut = length > room;
    memcpy(buffer, p->line, p->cut ? room : length);
    buffer[p->cut ? room : length] = '\0';
    return buffer;
}

/* The value of a line that did not fit in inih's buffer, with inih's rules. Changes p->line. */
static const char *value_of_cut_line(parser *p)
{
    char *value = strpbrk(p->line, "=:") + 1;
    for (char *c = value; *c != '\0'; c++)
        if (*c == ';' && isspace((unsigned char)c[-1]))
            *c = '\0';
    return text_trim(value);
}

static int unknown_setting(const char *section, const char *key)
{
    const setting_row *nearest = setting_nearest(section, key);
    return error_set(ERROR_SETTINGS, "%.60s%s%.60s: unknown setting; did you mean %s.%s?", section,
                     section[0] != '\0' ? "." : "", key, nearest->section, nearest->key);
}

static int assign_named(settings *s, const setting_row *row, const char *value)
{
    int status = setting_assign(s, row, value);
    return status < 0 ? error_prefix(status, "%s.%s", row->section, row->key) : 0;
}

static int take_line(parser *p, const char *section, const char *key, const char *value)
{
    const setting_row *row = setting_find(section, key);
    if (row == NULL)
        return unknown_setting(section, key);
    int *given = &p->given[row - setting_table];
    CHECK(*given == 0, ERROR_SETTINGS, "%s.%s: given twice, first on line %d", section, key, *given);
    *given = p->number;
    CHECK(!p->too_long, ERROR_SETTINGS, "%s.%s: the line is longer than %d bytes", section, key, LINE_BYTES - 1);
    return assign_named(p->target, row, p->cut ? value_of_cut_line(p) : value);
}

static int on_key(void *user, const char *section, const char *key, const char *value)
{
    parser *p = user;
    const bool reported = section[0] != '\0' && !setting_section_exists(section);
    if (!reported && take_line(p, section, key, value) < 0)
        note_error(p);
    return 1;
}

int settings_parse_text(settings *s, const char *text, const char *name)
{
    settings next = *s;
    parser p = {.target = &next, .name = name, .rest = text};
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
static int split_assignment(char *text, const char **section, const char **key, const char **value)
{
    char *equals = strchr(text, '=');
    CHECK(equals != NULL, ERROR_SETTINGS, "'%.80s': expected section.key=value", text);
    *equals = '\0';
    *value = text_trim(equals + 1);
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
    const char *section = "", *key = "", *value = "";
    TRY(split_assignment(text, &section, &key, &value));
    const setting_row *row = setting_find(section, key);
    return row != NULL ? assign_named(s, row, value) : unknown_setting(section, key);
}

int settings_set(settings *s, const char *assignment)
{
    char *text = strdup(assignment);
    CHECK(text != NULL, ERROR_MEMORY, "--set: out of memory");
    int status = set_from(s, text);
    free(text);
    return status < 0 ? error_prefix(status, "--set") : 0;
}
