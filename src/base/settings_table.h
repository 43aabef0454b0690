/* The settings table as data, shared by the files of the settings; not for other folders. */
#ifndef TESKD_BASE_SETTINGS_TABLE_H
#define TESKD_BASE_SETTINGS_TABLE_H

#include "base/settings.h"

#include <stddef.h>

typedef enum {
    SETTING_BOOL,
    SETTING_INT,
    SETTING_REAL,
    SETTING_TEXT,
    SETTING_PATH,
    SETTING_CHOICE,
    SETTING_INTS,
    SETTING_REALS
} setting_type;

typedef struct {
    const char *section, *key;
    setting_type type;
    size_t offset; /* in settings */
    const char *initial;
    double min, max;
    const char *words; /* of a choice, in order of its constants, each followed by '|' */
    const char *help;
} setting_row;

typedef struct {
    const char *name, *help;
} setting_section;

/* Number of settings: of the lines of settings.def. */
enum {
#define SECTION(section, help)
#define SETTING(section, key, type, initial, min, max, choices, help) SETTING_ID_##section##_##key,
#define END(section)
#include "base/settings.def"
#undef SECTION
#undef SETTING
#undef END
    SETTING_COUNT
};
enum {
#define SECTION(section, help) SETTING_SECTION_##section,
#define SETTING(section, key, type, initial, min, max, choices, help)
#define END(section)
#include "base/settings.def"
#undef SECTION
#undef SETTING
#undef END
    SETTING_SECTION_COUNT
};

extern const setting_row setting_table[SETTING_COUNT];
extern const setting_section setting_sections[SETTING_SECTION_COUNT];

/* NULL when there is no such setting. */
const setting_row *setting_find(const char *section, const char *key);
bool setting_section_exists(const char *section);

/* What to say to someone who gave a name that there is not: "did you mean train.lr?". A name known from other programs
 * comes before names that look alike. An empty section matches any. */
void setting_advice(const char *section, const char *key, char advice[SETTING_ADVICE_BYTES]);
void setting_section_advice(const char *section, char advice[SETTING_ADVICE_BYTES]);

/* Sets one member from its text. The message lacks the place and the key. */
int setting_assign(settings *s, const setting_row *row, const char *value);

/* Prints a member as setting_assign reads it. */
void setting_print(const settings *s, const setting_row *row, FILE *out);

/* What a setting may be, in words: "a number from 0 to 1". */
enum { SETTING_RANGE_BYTES = 160 };
void setting_range(const setting_row *row, char out[SETTING_RANGE_BYTES]);

/* The word at `index` of a choice, and its length; NULL past the last one. */
const char *setting_word(const setting_row *row, int index, int *length);

#endif
