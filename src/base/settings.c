/* Owns the settings table, the look-up of names and the checks across settings. Invariant: the table is constant and
 * every default is a value that setting_assign accepts. Threads: any, each with settings of its own. */
#include "settings_table.h"

#include "base/error.h"
#include "base/text.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define CHOICE_WORD(id, word) word "|"
const setting_row setting_table[SETTING_COUNT] = {
#define SECTION(section, help)
#define SETTING(section, key, type, initial, min, max, choices, help)                                                  \
    {#section, #key, SETTING_##type, offsetof(settings, section.key), initial, min, max, choices(CHOICE_WORD) "", help},
#define END(section)
#include "base/settings.def"
#undef SECTION
#undef SETTING
#undef END
};
#undef CHOICE_WORD

const setting_section setting_sections[SETTING_SECTION_COUNT] = {
#define SECTION(section, help) {#section, help},
#define SETTING(section, key, type, initial, min, max, choices, help)
#define END(section)
#include "base/settings.def"
#undef SECTION
#undef SETTING
#undef END
};

void settings_default(settings *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < SETTING_COUNT; i++)
        setting_assign(s, &setting_table[i], setting_table[i].initial);
}

const setting_row *setting_find(const char *section, const char *key)
{
    for (int i = 0; i < SETTING_COUNT; i++)
        if (strcmp(setting_table[i].section, section) == 0 && strcmp(setting_table[i].key, key) == 0)
            return &setting_table[i];
    return NULL;
}

bool setting_section_exists(const char *section)
{
    for (int i = 0; i < SETTING_SECTION_COUNT; i++)
        if (strcmp(setting_sections[i].name, section) == 0)
            return true;
    return false;
}

/* A name that people know from elsewhere, and what it is here. */
typedef struct {
    const char *name, *meant, *advice;
} alias_row;

static const alias_row aliases[] = {
#define ALIAS(name, meant) {#name, meant, NULL},
#define ADVICE(name, words) {#name, NULL, words},
#include "settings_aliases.def"
#undef ALIAS
#undef ADVICE
};

/* Letters of any case are alike, and so are '-' and '_'. */
static bool same_name(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        const int left = *a == '-' ? '_' : tolower((unsigned char)*a);
        if (left != (*b == '-' ? '_' : tolower((unsigned char)*b)))
            return false;
    }
    return *a == *b;
}

static void advise_alias(const alias_row *alias, const char *prefix, char advice[SETTING_ADVICE_BYTES])
{
    if (alias->meant != NULL)
        snprintf(advice, SETTING_ADVICE_BYTES, "did you mean %s%s?", prefix, alias->meant);
    else
        snprintf(advice, SETTING_ADVICE_BYTES, "%s", alias->advice);
}

static const alias_row *find_alias(const char *key)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (same_name(aliases[i].name, key))
            return &aliases[i];
    return NULL;
}

/* One that is as much like the name that was typed as few names are, or NULL. */
static const alias_row *misspelt_alias(const char *key)
{
    enum { LETTERS_PER_ERROR = 4 };
    const alias_row *nearest = NULL;
    int least = (int)strlen(key) / LETTERS_PER_ERROR + 1;
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        int distance = text_distance(aliases[i].name, key);
        if (distance < least) {
            least = distance;
            nearest = &aliases[i];
        }
    }
    return nearest;
}

static const setting_row *row_of_key(const char *key)
{
    for (int i = 0; i < SETTING_COUNT; i++)
        if (same_name(setting_table[i].key, key))
            return &setting_table[i];
    return NULL;
}

/* The key counts double and the section is bounded: a right key in the wrong section is nearer than a similar key. */
static int name_distance(const setting_row *row, const char *section, const char *key)
{
    enum { SECTION_MOST = 5 };
    int by_section = section[0] != '\0' ? text_distance(row->section, section) : 0;
    return 2 * text_distance(row->key, key) + (by_section < SECTION_MOST ? by_section : SECTION_MOST);
}

static const setting_row *nearest_row(const char *section, const char *key)
{
    const setting_row *nearest = setting_table;
    int least = INT_MAX;
    for (int i = 0; i < SETTING_COUNT; i++) {
        int distance = name_distance(&setting_table[i], section, key);
        if (distance < least) {
            least = distance;
            nearest = &setting_table[i];
        }
    }
    return nearest;
}

bool setting_option_advice(const char *name, char advice[SETTING_ADVICE_BYTES])
{
    const char *dot = strrchr(name, '.'), *key = dot != NULL ? dot + 1 : name;
    const setting_row *row = row_of_key(key);
    const alias_row *alias = find_alias(key);
    if (row != NULL)
        snprintf(advice, SETTING_ADVICE_BYTES, "did you mean --set %s.%s?", row->section, row->key);
    else if (alias != NULL)
        advise_alias(alias, "--set ", advice);
    return row != NULL || alias != NULL;
}

/* One letter in three wrong, and one more. */
static bool is_near(const char *known, const char *typed)
{
    return text_distance(known, typed) <= 1 + (int)strlen(typed) / 3;
}

/* Names known from elsewhere come before names that look alike, those that are misspelt after an equally near one. */
void setting_advice(const char *section, const char *key, char advice[SETTING_ADVICE_BYTES])
{
    const setting_row *nearest = nearest_row(section, key);
    const alias_row *alias = same_name(nearest->key, key) ? NULL : find_alias(key), *misspelt = misspelt_alias(key);
    if (alias == NULL && misspelt != NULL && text_distance(misspelt->name, key) < text_distance(nearest->key, key))
        alias = misspelt;
    if (alias != NULL)
        advise_alias(alias, "", advice);
    else if (is_near(nearest->key, key))
        snprintf(advice, SETTING_ADVICE_BYTES, "did you mean %s.%s?", nearest->section, nearest->key);
    else
        snprintf(advice, SETTING_ADVICE_BYTES, "teskd train --help lists them all");
}

void setting_section_advice(const char *section, char advice[SETTING_ADVICE_BYTES])
{
    size_t used = (size_t)snprintf(advice, SETTING_ADVICE_BYTES, "the sections are");
    for (int i = 0; i < SETTING_SECTION_COUNT && used < SETTING_ADVICE_BYTES; i++) {
        const char *name = setting_sections[i].name;
        if (is_near(name, section)) {
            snprintf(advice, SETTING_ADVICE_BYTES, "did you mean [%s]?", name);
            return;
        }
        used += (size_t)snprintf(advice + used, SETTING_ADVICE_BYTES - used, "%s [%s]", i > 0 ? "," : "", name);
    }
}

static int validate_loss(const settings *s)
{
    CHECK(s->loss.student_weights.count == 3, ERROR_SETTINGS,
          "loss.student_weights: %d values given; one for each of student3, student2, student1 is needed",
          s->loss.student_weights.count);
    CHECK(s->model.method != METHOD_TESKD || s->loss.ce_weight + s->loss.kd_weight + s->loss.feature_weight > 0,
          ERROR_SETTINGS, "loss.ce_weight, loss.kd_weight, loss.feature_weight: all are 0, nothing would be learned");
    return 0;
}

static int validate_train(const settings *s)
{
    const setting_ints *milestones = &s->train.milestones;
    for (int i = 1; i < milestones->count; i++)
        CHECK(milestones->value[i - 1] < milestones->value[i], ERROR_SETTINGS,
              "train.milestones: must increase, but %lld follows %lld", (long long)milestones->value[i],
              (long long)milestones->value[i - 1]);
    CHECK(s->train.schedule != SCHEDULE_STEP || milestones->count > 0, ERROR_SETTINGS,
          "train.milestones: empty, but train.schedule = step needs at least one (or set train.schedule = constant)");
    CHECK(!s->train.nesterov || s->train.momentum > 0, ERROR_SETTINGS,
          "train.nesterov: yes needs train.momentum greater than 0");
    CHECK(s->train.optimizer != OPTIMIZER_LARS || !s->train.decay_norm_and_bias, ERROR_SETTINGS,
          "train.optimizer: lars leaves biases and normalisation parameters without weight decay (set "
          "train.decay_norm_and_bias = no)");
    CHECK(s->train.min_lr <= s->train.lr, ERROR_SETTINGS, "train.min_lr: %g is greater than train.lr = %g",
          s->train.min_lr, s->train.lr);
    CHECK(s->train.warmup_epochs <= (double)s->train.epochs, ERROR_SETTINGS,
          "train.warmup_epochs: %g is greater than train.epochs = %lld", s->train.warmup_epochs,
          (long long)s->train.epochs);
    return 0;
}

static int validate_range(const char *name, const setting_reals *range)
{
    CHECK(range->count == 2 && range->value[0] <= range->value[1], ERROR_SETTINGS,
          "%s: expected two numbers, the least and the greatest", name);
    return 0;
}

static int validate_sizes(const settings *s)
{
    const setting_ints *sizes = &s->data.image_size;
    CHECK(sizes->count == 1 || (sizes->count == 2 && 0 < sizes->value[0] && sizes->value[0] <= sizes->value[1]),
          ERROR_SETTINGS, "data.image_size: expected one number, or the first and the last, which is no smaller");
    CHECK(s->data.resize_size == 0 || s->data.eval_size == 0 || s->data.resize_size >= s->data.eval_size,
          ERROR_SETTINGS, "data.resize_size: %lld is less than data.eval_size = %lld, which is cut from it",
          (long long)s->data.resize_size, (long long)s->data.eval_size);
    return 0;
}

static int validate_data(const settings *s)
{
    TRY(validate_range("data.crop_scale", &s->data.crop_scale));
    TRY(validate_range("data.crop_ratio", &s->data.crop_ratio));
    TRY(validate_sizes(s));
    CHECK(!s->data.drop_last || s->data.train_images == 0 || s->data.train_images >= s->train.batch, ERROR_SETTINGS,
          "data.drop_last: yes leaves no step, since data.train_images = %lld is less than train.batch = %lld",
          (long long)s->data.train_images, (long long)s->train.batch);
    return 0;
}

static int validate_run(const settings *s)
{
    bool any = s->run.precision == PRECISION_AUTO;
    CHECK(any || s->run.device != DEVICE_REFERENCE, ERROR_SETTINGS,
          "run.precision: run.device = reference computes in float64; auto is allowed");
    CHECK(any || s->run.precision == PRECISION_FP32 || s->run.device != DEVICE_CPU, ERROR_SETTINGS,
          "run.precision: run.device = cpu computes in float32; auto and fp32 are allowed");
    bool on_host = s->run.device == DEVICE_CPU || s->run.device == DEVICE_REFERENCE;
    CHECK(s->run.reduction != REDUCTION_NCCL || !on_host, ERROR_SETTINGS,
          "run.reduction: nccl adds up between GPUs, which run.device = %s does without",
          s->run.device == DEVICE_CPU ? "cpu" : "reference");
    return 0;
}

int settings_validate(const settings *s)
{
    TRY(validate_loss(s));
    TRY(validate_train(s));
    TRY(validate_run(s));
    return validate_data(s);
}
