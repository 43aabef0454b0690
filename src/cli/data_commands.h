/* What `teskd data` can do, a file each. */
#ifndef TESKD_CLI_DATA_COMMANDS_H
#define TESKD_CLI_DATA_COMMANDS_H

#include "cli/commands.h"

typedef struct {
    const char *name, *usage, *summary; /* usage: what may follow the options */
    option_set options;
    int arguments; /* how many follow the name */
    /* As of a command; its arguments are o->arguments[1] and on. */
    int (*run)(const options *o, logger *log, comm *ranks);
} data_command;

extern const data_command data_pack, data_check, data_show, data_unpack, data_synth, data_bench;

#endif
