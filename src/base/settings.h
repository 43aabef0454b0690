/* What a run can be told: settings.def, read from INI files and from --set section.key=value.
 *
 * All functions return 0 or ERROR_SETTINGS unless said otherwise, with a message of the form
 * "file:line: section.key: what is wrong; what is allowed"; for --set the file is "--set".
 * Where a function fails, the settings it was given are unchanged.
 */
#ifndef TESKD_BASE_SETTINGS_H
#define TESKD_BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { SETTING_TEXT_BYTES = 512, SETTING_LIST_MAX = 8 };

typedef struct {
    int count;
    int64_t value[SETTING_LIST_MAX];
} setting_ints;

typedef struct {
    int count;
    double value[SETTING_LIST_MAX];
} setting_reals;

/* The words of the choices: X(constant, word). */
#define METHOD_CHOICES(X)                                                                                              \
    X(METHOD_TESKD, "teskd")                                                                                           \
    X(METHOD_PLAIN, "plain")
#define SCHEDULE_CHOICES(X)                                                                                            \
    X(SCHEDULE_STEP, "step")                                                                                           \
    X(SCHEDULE_COSINE, "cosine")                                                                                       \
    X(SCHEDULE_LINEAR, "linear")                                                                                       \
    X(SCHEDULE_CONSTANT, "constant")
#define OPTIMIZER_CHOICES(X)                                                                                           \
    X(OPTIMIZER_SGD, "sgd")                                                                                            \
    X(OPTIMIZER_LARS, "lars")
#define DEVICE_CHOICES(X)                                                                                              \
    X(DEVICE_AUTO, "auto")                                                                                             \
    X(DEVICE_CUDA, "cuda")                                                                                             \
    X(DEVICE_CPU, "cpu")                                                                                               \
    X(DEVICE_REFERENCE, "reference")
#define PRECISION_CHOICES(X)                                                                                           \
    X(PRECISION_AUTO, "auto")                                                                                          \
    X(PRECISION_FP16, "fp16")                                                                                          \
    X(PRECISION_BF16, "bf16")                                                                                          \
    X(PRECISION_TF32, "tf32")                                                                                          \
    X(PRECISION_FP32, "fp32")
#define REDUCTION_CHOICES(X)                                                                                           \
    X(REDUCTION_AUTO, "auto")                                                                                          \
    X(REDUCTION_NCCL, "nccl")                                                                                          \
    X(REDUCTION_MPI, "mpi")
#define ISA_CHOICES(X)                                                                                                 \
    X(ISA_AUTO, "auto")                                                                                                \
    X(ISA_BASELINE, "baseline")                                                                                        \
    X(ISA_AVX2, "avx2")                                                                                                \
    X(ISA_AVX512, "avx512")
#define ORDER_CHOICES(X)                                                                                               \
    X(ORDER_GLOBAL, "global")                                                                                          \
    X(ORDER_BLOCK, "block")
#define BAD_CHOICES(X)                                                                                                 \
    X(BAD_SUBSTITUTE, "substitute")                                                                                    \
    X(BAD_FAIL, "fail")
#define FAULT_CHOICES(X)                                                                                               \
    X(FAULT_NONE, "none")                                                                                              \
    X(FAULT_KILL, "kill")                                                                                              \
    X(FAULT_STOP, "stop")                                                                                              \
    X(FAULT_CRASH, "crash")                                                                                            \
    X(FAULT_ABORT, "abort")                                                                                            \
    X(FAULT_HANG, "hang")                                                                                              \
    X(FAULT_SLOW, "slow")                                                                                              \
    X(FAULT_NAN, "nan")                                                                                                \
    X(FAULT_FULL_DISK, "full_disk")
#define REHEARSE_CHOICES(X)                                                                                            \
    X(REHEARSE_START, "start")                                                                                         \
    X(REHEARSE_DATA, "data")                                                                                           \
    X(REHEARSE_COMPUTE, "compute")                                                                                     \
    X(REHEARSE_ALL_REDUCE, "all_reduce")                                                                               \
    X(REHEARSE_CHECKPOINT, "checkpoint")                                                                               \
    X(REHEARSE_EVALUATE, "evaluate")
#define NO_CHOICES(X)

#define CHOICE_ID(id, word) id,
enum { METHOD_CHOICES(CHOICE_ID) };
enum { SCHEDULE_CHOICES(CHOICE_ID) };
enum { OPTIMIZER_CHOICES(CHOICE_ID) };
enum { DEVICE_CHOICES(CHOICE_ID) };
enum { PRECISION_CHOICES(CHOICE_ID) };
enum { REDUCTION_CHOICES(CHOICE_ID) };
enum { ISA_CHOICES(CHOICE_ID) };
enum { ORDER_CHOICES(CHOICE_ID) };
enum { BAD_CHOICES(CHOICE_ID) };
enum { FAULT_CHOICES(CHOICE_ID) };
enum { REHEARSE_CHOICES(CHOICE_ID) };
#undef CHOICE_ID

/* One member for each section, holding one member for each key: s.train.lr. A choice is one of the constants above. */
#define SETTING_FIELD_BOOL(key) bool key
#define SETTING_FIELD_INT(key) int64_t key
#define SETTING_FIELD_REAL(key) double key
#define SETTING_FIELD_TEXT(key) char key[SETTING_TEXT_BYTES]
#define SETTING_FIELD_PATH(key) char key[SETTING_TEXT_BYTES]
#define SETTING_FIELD_CHOICE(key) int key
#define SETTING_FIELD_INTS(key) setting_ints key
#define SETTING_FIELD_REALS(key) setting_reals key
typedef struct {
#define SECTION(section, help) struct {
#define SETTING(section, key, type, initial, min, max, choices, help) SETTING_FIELD_##type(key);
#define END(section)                                                                                                   \
    }                                                                                                                  \
    section;
#include "base/settings.def"
#undef SECTION
#undef SETTING
#undef END
} settings;

/* Every setting at its default. */
void settings_default(settings *s);

/* Reads an INI file over what `s` holds. Every line is checked and the first wrong one reported. ERROR_FILE when the
 * file cannot be read. */
int settings_load(settings *s, const char *path);

/* The same with the text of a file; `name` stands for the file in messages. */
int settings_parse_text(settings *s, const char *text, const char *name);

/* One assignment, "section.key=value". In both, one pair of quotes around a value is taken off. */
int settings_set(settings *s, const char *assignment);

/* What to say to someone who gave the setting "key" or "section.key" as an option: "did you mean --set train.lr?".
 * False when neither a setting nor what other programs call one has this key. */
enum { SETTING_ADVICE_BYTES = 160 };
bool setting_option_advice(const char *name, char advice[SETTING_ADVICE_BYTES]);

/* Refuses values that contradict each other; the message names the keys. */
int settings_validate(const settings *s);

/* Writes all settings as an INI text that reads back to the same values. ERROR_FILE when `out` cannot be written. */
int settings_write(const settings *s, FILE *out);

/* The same text in memory, which the caller frees; NULL when there is none left. */
char *settings_to_text(const settings *s);

/* A setting with two values, as they would stand in a file. */
typedef struct {
    char name[64], a[SETTING_TEXT_BYTES + 16], b[SETTING_TEXT_BYTES + 16];
} setting_difference;

/* The first setting that differs, by number from `from` on; -1 when there is none. */
int settings_difference(const settings *a, const settings *b, int from, setting_difference *out);

/* All settings with type, bounds, default and meaning: for a terminal, and as tables for the documentation. */
void settings_help(FILE *out);
void settings_markdown(FILE *out);

#endif
