/* The subcommands of teskd, one file each. */
#ifndef TESKD_CLI_COMMANDS_H
#define TESKD_CLI_COMMANDS_H

#include "base/log.h"
#include "cli/options.h"
#include "dist/comm.h"

typedef struct {
    const char *name, *summary, *usage; /* usage: what may follow the options, may be empty */
    option_set options;
    bool uses_settings; /* --help lists them */
    bool stops;         /* in order when a signal asks for it (train/signals.h) */
    /* Returns 0 or a negative code with a message; every rank runs it. */
    int (*run)(const options *o, logger *log, comm *ranks);
    /* Instead of usage, summary and options; NULL: these. */
    void (*help)(const options *o, FILE *out);
} command;

extern const command command_train, command_eval, command_bench, command_reference, command_data, command_info,
    command_export, command_import, command_plan, command_preflight;

#endif
