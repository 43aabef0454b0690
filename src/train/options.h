/* The command line of one subcommand. */
#ifndef TESKD_TRAIN_OPTIONS_H
#define TESKD_TRAIN_OPTIONS_H

#include "base/settings.h"

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
    OPTION_TRAIN_IMAGES = 1 << 10,
    OPTION_TEST_IMAGES = 1 << 11,
    OPTION_SEED = 1 << 12,
    OPTION_TEACHER_ONLY = 1 << 13,
    OPTION_SETTINGS = 1 << 14,
    OPTION_ARGUMENTS = 1 << 15, /* arguments that are no options */
} option_set;

typedef struct {
    settings config; /* defaults, then --config, then each --set in order */
    bool help, dry_run, print_config, json, per_node, teacher_only, settings_table;
    const char *config_path, *resume, *dump_graph, *checkpoint, *out;
    long long steps, train_images, test_images, seed; /* -1: not given */
    int n_arguments;
    char **arguments; /* point into argv */
} options;

/* Reads argv[1..] (argv[0] is the subcommand's name). ERROR_USAGE or ERROR_SETTINGS with a message. */
int options_read(options *o, int argc, char **argv, unsigned allowed);

/* One line for each allowed option. */
void options_help(unsigned allowed, FILE *out);

#endif
