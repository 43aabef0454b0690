/* The command line of one subcommand. */
#ifndef TESKD_CLI_OPTIONS_H
#define TESKD_CLI_OPTIONS_H

#include "base/settings.h"
#include "cli/recipes.h"

#include <stdbool.h>
#include <stdint.h>

/* Which options a subcommand takes, besides --help, --config and --set. More than an enum's int has bits. */
typedef uint64_t option_set;
#define OPTION_RESUME (UINT64_C(1) << 0)
#define OPTION_DRY_RUN (UINT64_C(1) << 1)
#define OPTION_PRINT_CONFIG (UINT64_C(1) << 2)
#define OPTION_DUMP_GRAPH (UINT64_C(1) << 3)
#define OPTION_CHECKPOINT (UINT64_C(1) << 4)
#define OPTION_DEVICE (UINT64_C(1) << 5)
#define OPTION_BENCH (UINT64_C(1) << 6) /* what only `teskd bench` takes */
#define OPTION_JSON (UINT64_C(1) << 7)
#define OPTION_DATA_BENCH (UINT64_C(1) << 8)
#define OPTION_OUT (UINT64_C(1) << 9)
#define OPTION_SYNTH (UINT64_C(1) << 10) /* what only `teskd data synth` takes; PACK, CHECK, UNPACK, SHOW likewise */
#define OPTION_PACK (UINT64_C(1) << 11)
#define OPTION_SEED (UINT64_C(1) << 12)
#define OPTION_TEACHER_ONLY (UINT64_C(1) << 13)
#define OPTION_SETTINGS (UINT64_C(1) << 14)
#define OPTION_ARGUMENTS (UINT64_C(1) << 15) /* arguments that are no options */
#define OPTION_PREDICTIONS (UINT64_C(1) << 16)
#define OPTION_LOGITS (UINT64_C(1) << 17)
#define OPTION_PER_CLASS (UINT64_C(1) << 18)
#define OPTION_FORMAT (UINT64_C(1) << 19)
#define OPTION_OUT_FILE (UINT64_C(1) << 20)
#define OPTION_ALL_HEADS (UINT64_C(1) << 21)
#define OPTION_EMA (UINT64_C(1) << 22)
#define OPTION_FOLD_BN (UINT64_C(1) << 23)
#define OPTION_FROM (UINT64_C(1) << 24)
#define OPTION_OVERWRITE (UINT64_C(1) << 25)
#define OPTION_OTHER_DATA (UINT64_C(1) << 26)
#define OPTION_ROOT (UINT64_C(1) << 27)
#define OPTION_CHECK (UINT64_C(1) << 28)
#define OPTION_UNPACK (UINT64_C(1) << 29)
#define OPTION_SHOW (UINT64_C(1) << 30)
#define OPTION_PLAN (UINT64_C(1) << 31)
#define OPTION_PREFLIGHT (UINT64_C(1) << 32)

enum { OPTION_PATHS = 16 };

typedef struct {
    settings config; /* defaults, then --config, then each --set in order */
    bool help, dry_run, print_config, json, per_node, teacher_only, settings_table, logits, per_class, all_heads, ema,
        fold_bn, overwrite, other_data, deep, folders;
    const char *resume, *dump_graph, *checkpoint, *out, *predictions, *format, *from, *root, *kind, *train_list,
        *val_list, *val_labels, *class_names, *on_bad, *grid, *pattern, *layers;
    char config_path[RECIPE_PATH_BYTES]; /* what the last --config reads; empty without one */
    bool is_recipe;                      /* --config named a recipe that comes with teskd */
    long long steps, train_images, test_images, seed, shard_mib, max_side, quality, threads, image_size,
        images_per_second, nodes, gpus, gpu_batch, adapters, patience;          /* -1: not given */
    double net, inside, step_ms, hop_us, noise, net_share, image_kb, core_rate; /* likewise */
    char expanded[OPTION_PATHS]
                 [SETTING_TEXT_BYTES]; /* what the options above point to where a home folder was put in */
    int n_expanded;
    int n_arguments;
    char **arguments; /* point into argv */
    int argc;
    char **argv;
    option_set allowed;
} options;

/* Reads argv[1..] (argv[0] is the subcommand's name). ERROR_USAGE or ERROR_SETTINGS with a message. */
int options_read(options *o, int argc, char **argv, option_set allowed);

/* Applies --config, --set and --device to other settings than the defaults, unchecked. */
int options_apply(const options *o, settings *config);

/* The subcommand and the options that were given; of a path only that it was given, since each host may have its own.
 * Settings are not in it. */
void options_describe(const options *o, char *text, size_t bytes);

/* ERROR_USAGE for an option that was given and is none of these, which are fewer than options_read allowed: those of
 * `command`, one of several that share a subcommand. */
int options_refuse_others(const options *o, option_set allowed, const char *command);

/* One line for each allowed option. */
void options_help(option_set allowed, FILE *out);

#endif
