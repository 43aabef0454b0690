/* Owns `teskd data`: the table of what it can do with data sets. */
#include "base/error.h"
#include "cli/data_commands.h"

#include <string.h>

static const data_command *const rows[] = {&data_pack, &data_check, &data_show, &data_unpack, &data_synth};
enum { ROWS = sizeof rows / sizeof rows[0], NAMES_BYTES = 256 };

static const char *all_names(char names[NAMES_BYTES])
{
    names[0] = '\0';
    for (int i = 0; i < ROWS; i++)
        snprintf(names + strlen(names), NAMES_BYTES - strlen(names), "%s%s", i ? ", " : "", rows[i]->name);
    return names;
}

static const data_command *find(const options *o)
{
    for (int i = 0; i < ROWS && o->n_arguments > 0; i++)
        if (strcmp(o->arguments[0], rows[i]->name) == 0)
            return rows[i];
    return NULL;
}

static int check(const options *o, const data_command *row)
{
    char names[NAMES_BYTES], called[64];
    CHECK(row, ERROR_USAGE, "teskd data takes one of: %s", all_names(names));
    snprintf(called, sizeof called, "data %s", row->name);
    TRY(options_refuse_others(o, row->options, called));
    CHECK(o->n_arguments == 1 + row->arguments, ERROR_USAGE, "teskd data %s takes %s; see teskd data %s --help",
          row->name, row->arguments ? row->usage : "options only", row->name);
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    const data_command *row = find(o);
    TRY(check(o, row));
    return row->run(o, log, ranks);
}

static void help(const options *o, FILE *out)
{
    const data_command *row = find(o);
    if (row) {
        fprintf(out, "usage: teskd data %s [options] %s\n\n%s.\n\n", row->name, row->usage, row->summary);
        options_help(row->options, out);
        return;
    }
    fprintf(out, "usage: teskd data NAME [options]\n\nMakes and checks data sets.\n\n");
    for (int i = 0; i < ROWS; i++)
        fprintf(out, "  %-10s %s\n", rows[i]->name, rows[i]->summary);
    fprintf(out, "\nteskd data NAME --help lists its options; of all they are:\n\n");
    options_help(command_data.options, out);
}

const command command_data = {
    .name = "data",
    .summary = "make and check data sets: pack puts images into few files, synth makes labelled ones",
    .usage = "pack | check | show | unpack | synth",
    .options = OPTION_PACK | OPTION_CHECK | OPTION_UNPACK | OPTION_SHOW | OPTION_SYNTH | OPTION_SEED | OPTION_OUT |
               OPTION_ARGUMENTS,
    .uses_settings = false,
    .run = run,
    .help = help,
};
