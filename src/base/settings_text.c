/* Owns the texts made of the whole table: dump, help, documentation. Threads: any. */
#include "settings_table.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int settings_write(const settings *s, FILE *out)
{
    const char *section = "";
    for (int i = 0; i < SETTING_COUNT; i++) {
        const setting_row *row = &setting_table[i];
        if (strcmp(row->section, section) != 0)
            fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", row->section);
        section = row->section;
        fprintf(out, "%s = ", row->key);
        setting_print(s, row, out);
        fputc('\n', out);
    }
    errno = 0;
    CHECK(fflush(out) == 0 && !ferror(out), ERROR_FILE, "cannot write the settings: %s", strerror(errno));
    return 0;
}

char *settings_to_text(const settings *s)
{
    char *text = NULL;
    size_t length;
    FILE *memory = open_memstream(&text, &length);
    if (memory == NULL)
        return NULL;
    int status = settings_write(s, memory);
    if (fclose(memory) != 0 || status < 0) {
        free(text);
        return NULL;
    }
    return text;
}

static void value_text(const settings *s, const setting_row *row, char *text, size_t bytes)
{
    FILE *memory = fmemopen(text, bytes, "w");
    text[0] = '\0';
    if (!memory)
        return;
    setting_print(s, row, memory);
    fclose(memory);
    text[bytes - 1] = '\0';
}

int settings_difference(const settings *a, const settings *b, int from, setting_difference *out)
{
    for (int i = from; i < SETTING_COUNT; i++) {
        const setting_row *row = &setting_table[i];
        value_text(a, row, out->a, sizeof out->a);
        value_text(b, row, out->b, sizeof out->b);
        snprintf(out->name, sizeof out->name, "%s.%s", row->section, row->key);
        if (strcmp(out->a, out->b) != 0)
            return i;
    }
    return -1;
}

static void help_of_section(const setting_section *section, FILE *out)
{
    char range[SETTING_RANGE_BYTES];
    fprintf(out, "[%s] %s\n", section->name, section->help);
    for (int i = 0; i < SETTING_COUNT; i++) {
        const setting_row *row = &setting_table[i];
        if (strcmp(row->section, section->name) != 0)
            continue;
        setting_range(row, range);
        fprintf(out, "  %s.%s = %s\n      %s\n      %s\n", row->section, row->key, row->initial, row->help, range);
    }
}

void settings_help(FILE *out)
{
    for (int i = 0; i < SETTING_SECTION_COUNT; i++) {
        fputs(i > 0 ? "\n" : "", out);
        help_of_section(&setting_sections[i], out);
    }
}

static void markdown_of_section(const setting_section *section, FILE *out)
{
    char range[SETTING_RANGE_BYTES];
    fprintf(out, "## [%s]: %s\n\n| key | default | meaning | allowed |\n| --- | --- | --- | --- |\n", section->name,
            section->help);
    for (int i = 0; i < SETTING_COUNT; i++) {
        const setting_row *row = &setting_table[i];
        if (strcmp(row->section, section->name) != 0)
            continue;
        setting_range(row, range);
        const char *quote = row->initial[0] != '\0' ? "`" : ""; /* an empty code span does not render */
        fprintf(out, "| `%s` | %s%s%s | %s | %s |\n", row->key, quote, row->initial, quote, row->help, range);
    }
}

void settings_markdown(FILE *out)
{
    for (int i = 0; i < SETTING_SECTION_COUNT; i++) {
        fputs(i > 0 ? "\n" : "", out);
        markdown_of_section(&setting_sections[i], out);
    }
}
