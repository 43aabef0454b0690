/* The command line of one subcommand. */
#ifndef TESKD_CLI_OPTIONS_H
#define TESKD_CLI_OPTIONS_H

#include "base/settings.h"
#include "cli/recipes.h"

#include <stdbool.h>

/* Which options a subcommand takes, besides --help, --config and --set. */
typedef enum {
    OPTION_RESUME = 1 << 0,
    OPTION_DRY_RUN = 1 << 1,
    OPTION_PRINT_CONFIG = 1 << 2,
    OPTION_DUMP_GRAPH = 1 << 3,
    OPTION_CHECKPOINT = 1 << 4,
    OPTION_DEVICE = 1 << 5,
    OPTION_STEPS = 1 << 6,
    OPTION_JSON = 1 << 7,
    OPTION_PER_NODE = 1 << 8,
    OPTION_OUT = 1 << 9,
    OPTION_SYNTH = 1 << 10, /* what only `teskd data synth` takes; PACK, CHECK, UNPACK, SHOW likewise */
    OPTION_PACK = 1 << 11,
    OPTION_SEED = 1 << 12,
    OPTION_TEACHER_ONLY = 1 << 13,
    OPTION_SETTINGS = 1 << 14,
    OPTION_ARGUMENTS = 1 << 15, /* arguments that are no options */
    OPTION_PREDICTIONS = 1 << 16,
    OPTION_LOGITS = 1 << 17,
    OPTION_PER_CLASS = 1 << 18,
    OPTION_FORMAT = 1 << 19,
    OPTION_OUT_FILE = 1 << 20,
    OPTION_ALL_HEADS = 1 << 21,
    OPTION_EMA = 1 << 22,
    OPTION_FOLD_BN = 1 << 23,
    OPTION_FROM = 1 << 24,
    OPTION_OVERWRITE = 1 << 25,
    OPTION_OTHER_DATA = 1 << 26,
    OPTION_ROOT = 1 << 27,
    OPTION_CHECK = 1 << 28,
    OPTION_UNPACK = 1 << 29,
    OPTION_SHOW = 1 << 30,
} option_set;

enum { OPTION_PATHS = 16 };

typedef struct {
    settings config; /* defaults, then --config, then each --set in order */
    bool help, dry_run, print_config, json, per_node, teacher_only, settings_table, logits, per_class, all_heads, ema,
        fold_bn, overwrite, other_data, deep, folders;
    const char *resume, *dump_graph, *checkpoint, *out, *predictions, *format, *from, *root, *kind, *train_list,
        *val_list, *val_labels, *class_names, *on_bad, *grid;
    char config_path[RECIPE_PATH_BYTES]; /* what the last --config reads; empty without one */
    bool is_recipe;                      /* --config named a recipe that comes with teskd */
    long long steps, train_images, test_images, seed, shard_mib, max_side, quality, threads,
        image_size; /* -1: not given */
    char expanded[OPTION_PATHS]
                 [SETTING_TEXT_BYTES]; /* what the options above point to where a home folder was put in */
    int n_expanded;
    int n_arguments;
    char **arguments; /* point into argv */
    int argc;
    char **argv;
    unsigned allowed;
} options;

/* Reads argv[1..] (argv[0] is the subcommand's name). ERROR_USAGE or ERROR_SETTINGS with a message. */
int options_read(options *o, int argc, char **argv, unsigned allowed);

/* Applies --config, --set and --device to other settings than the defaults, unchecked. */
int options_apply(const options *o, settings *config);

/* The subcommand and the options that were given; of a path only that it was given, since each host may have its own.
 * Settings are not in it. */
void options_describe(const options *o, char *text, size_t bytes);

/* ERROR_USAGE for an option that was given and is none of these, which are fewer than options_read allowed: those of
 * `command`, one of several that share a subcommand. */
int options_refuse_others(const options *o, unsigned allowed, const char *command);

/* One line for each allowed option. */
void options_help(unsigned allowed, FILE *out);

#endif
