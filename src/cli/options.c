/* Owns the command line's options. Invariant: settings are read in the order given, so that a later one wins. One
 * thread. */
#include "cli/options.h"
#include "base/atomic_file.h"
#include "base/error.h"
#include "base/path.h"
#include "base/text.h"

#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* What an option fills: a member of `options`, or a setting. */
typedef enum { FLAG, TEXT, COUNT, NUMBER, SETTING } option_kind;

typedef struct {
    option_set bit; /* 0: every subcommand takes it */
    option_kind kind;
    size_t at; /* of the member: a bool, a const char *, a long long or a double */
    const char *name, *value, *help;
} option_row;

static const option_row rows[] = {
    {0, FLAG, offsetof(options, help), "help", NULL, "print this and exit"},
    {0, SETTING, 0, "config", "FILE",
     "read settings from an INI file, or from a recipe that comes with teskd (its name alone)"},
    {0, SETTING, 0, "set", "SECTION.KEY=VALUE", "change one setting; may be repeated, the last wins"},
    {OPTION_DEVICE, SETTING, 0, "device", "NAME", "short for --set run.device=NAME"},
    {OPTION_RESUME, TEXT, offsetof(options, resume), "resume", "auto|FILE",
     "go on from a checkpoint; auto: from the newest one in output.dir, if there is one"},
    {OPTION_OTHER_DATA, FLAG, offsetof(options, other_data), "other-data", NULL,
     "with --resume: go on with other data than the checkpoint's"},
    {OPTION_OVERWRITE, FLAG, offsetof(options, overwrite), "overwrite", NULL,
     "remove the run (last, previous, best, metrics) that output.dir holds"},
    {OPTION_DRY_RUN, FLAG, offsetof(options, dry_run), "dry-run", NULL,
     "print the network, the memory plan and the work of an epoch, then exit"},
    {OPTION_PRINT_CONFIG, FLAG, offsetof(options, print_config), "print-config", NULL,
     "print the resolved settings as an INI file, then exit"},
    {OPTION_DUMP_GRAPH, TEXT, offsetof(options, dump_graph), "dump-graph", "FILE",
     "write the graph of a training step for Graphviz"},
    {OPTION_CHECKPOINT, TEXT, offsetof(options, checkpoint), "checkpoint", "FILE", "the checkpoint to read"},
    {OPTION_TEACHER_ONLY, FLAG, offsetof(options, teacher_only), "teacher-only", NULL, "leave the students out"},
    {OPTION_PREDICTIONS, TEXT, offsetof(options, predictions), "predictions", "FILE.csv",
     "write the teacher's answer on every image"},
    {OPTION_LOGITS, FLAG, offsetof(options, logits), "logits", NULL, "with --predictions: also the teacher's logits"},
    {OPTION_PER_CLASS, FLAG, offsetof(options, per_class), "per-class", NULL,
     "print the teacher's accuracy on each class"},
    {OPTION_FORMAT, TEXT, offsetof(options, format), "format", "NAME", "safetensors, for PyTorch, or onnx"},
    {OPTION_ALL_HEADS, FLAG, offsetof(options, all_heads), "all-heads", NULL, "also the students"},
    {OPTION_EMA, FLAG, offsetof(options, ema), "ema", NULL,
     "the EMA of the weights (train.ema_decay) instead of the weights"},
    {OPTION_FOLD_BN, FLAG, offsetof(options, fold_bn), "fold-bn", NULL,
     "onnx: make each batch normalisation part of the convolution before it"},
    {OPTION_FROM, TEXT, offsetof(options, from), "from", "FILE", "the safetensors file to read"},
    {OPTION_ROOT, TEXT, offsetof(options, root), "root", "DIR",
     "with FILE.csv: the folder of the images that it names"},
    {OPTION_BENCH, COUNT, offsetof(options, steps), "steps", "N", "steps to time"},
    {OPTION_JSON, FLAG, offsetof(options, json), "json", NULL, "print one line of JSON instead of tables"},
    {OPTION_BENCH, FLAG, offsetof(options, per_node), "per-node", NULL, "print the time of every node"},
    {OPTION_OUT, TEXT, offsetof(options, out), "out", "DIR", "folder to write to"},
    {OPTION_OUT_FILE, TEXT, offsetof(options, out), "out", "FILE", "file to write"},
    {OPTION_PACK, TEXT, offsetof(options, from), "from", "DIR", "folder of the images, or of ImageNet's archives"},
    {OPTION_PACK, TEXT, offsetof(options, kind), "kind", "NAME",
     "what --from holds: folders, imagenet, list, cifar10 or cifar100 (default: what is found there)"},
    {OPTION_PACK, TEXT, offsetof(options, train_list), "train-list", "FILE",
     "training images as lines \"PATH LABEL\" instead of --from"},
    {OPTION_PACK, TEXT, offsetof(options, val_list), "val-list", "FILE", "validation images likewise"},
    {OPTION_PACK, TEXT, offsetof(options, root), "root", "DIR",
     "folder of the paths in the lists (default: --from, or that of the list)"},
    {OPTION_PACK, TEXT, offsetof(options, val_labels), "val-labels", "FILE",
     "classes of validation images that lie in no class folders, as lines \"NAME CLASS\""},
    {OPTION_PACK, TEXT, offsetof(options, class_names), "class-names", "FILE",
     "the classes' names: as lines \"ID NAME\", or in order"},
    {OPTION_PACK, COUNT, offsetof(options, shard_mib), "shard-mib", "N",
     "size of a shard in MiB of originals (default: 1024)"},
    {OPTION_PACK, COUNT, offsetof(options, max_side), "max-side", "N",
     "make images whose longer side is above N smaller, as JPEG (default: all stay as they are)"},
    {OPTION_PACK, COUNT, offsetof(options, quality), "quality", "N", "with --max-side: 1 to 100 (default: 85)"},
    {OPTION_PACK, TEXT, offsetof(options, on_bad), "on-bad", "skip|fail",
     "what to do with files that are no images (default: skip, and list them)"},
    {OPTION_PACK, FLAG, offsetof(options, overwrite), "overwrite", NULL, "replace another data set in --out"},
    {OPTION_PACK | OPTION_CHECK | OPTION_UNPACK, COUNT, offsetof(options, threads), "threads", "N",
     "threads of each rank (default: its share of the cores)"},
    {OPTION_CHECK, FLAG, offsetof(options, deep), "deep", NULL, "also decode every image"},
    {OPTION_SHOW, TEXT, offsetof(options, grid), "grid", "FILE.png",
     "write a sheet of training images as the network sees them"},
    {OPTION_SHOW, COUNT, offsetof(options, image_size), "image-size", "N", "with --grid: their side (default: 224)"},
    {OPTION_SYNTH, FLAG, offsetof(options, folders), "folders", NULL,
     "write class folders of JPEG and PNG files of many sizes instead"},
    {OPTION_SYNTH, COUNT, offsetof(options, train_images), "train-images", "N", "how many training images to draw"},
    {OPTION_SYNTH, COUNT, offsetof(options, test_images), "test-images", "N", "how many test images to draw"},
    {OPTION_SEED, COUNT, offsetof(options, seed), "seed", "N", "seed of the images, or of their order in the shards"},
    {OPTION_DATA_BENCH, COUNT, offsetof(options, images_per_second), "images-per-second", "N",
     "say how many cores so many images a second take (default: 8000)"},
    {OPTION_PLAN, COUNT, offsetof(options, nodes), "nodes", "N", "nodes of the cluster (default: 1)"},
    {OPTION_PLAN, COUNT, offsetof(options, gpus), "gpus", "N", "GPUs of each node (default: 8)"},
    {OPTION_PLAN, COUNT, offsetof(options, gpu_batch), "gpu-batch", "N",
     "images of each GPU in a step (default: train.batch divided among all GPUs)"},
    {OPTION_PLAN, NUMBER, offsetof(options, step_ms), "step-ms", "MS",
     "time of a step on one GPU alone, as teskd bench measures it (default: an H100's at best)"},
    {OPTION_PLAN, NUMBER, offsetof(options, net), "net", "GBITS", "Gb/s of a network adapter (default: 200)"},
    {OPTION_PLAN, COUNT, offsetof(options, adapters), "adapters", "N", "network adapters of each node (default: 1)"},
    {OPTION_PLAN, NUMBER, offsetof(options, inside), "inside", "GBYTES",
     "GB/s in and out of a GPU within its node (default: 300, NVLink; PCIe: about 10)"},
    {OPTION_PLAN, TEXT, offsetof(options, layers), "layers", "FILE",
     "plan for another network: lines NAME,WEIGHTS,MMAC in the order of the forward"},
    {OPTION_PLAN, TEXT, offsetof(options, pattern), "pattern", "NAME",
     "how sums travel: tree, ring or host-ring (default: as run.reduction and run.deterministic make it)"},
    {OPTION_PLAN, NUMBER, offsetof(options, net_share), "net-share", "PERCENT",
     "of the adapters' rate that sums reach (default: 90)"},
    {OPTION_PLAN, NUMBER, offsetof(options, hop_us), "hop-us", "US",
     "time from one GPU to the next in a sum (default: 10)"},
    {OPTION_PLAN, NUMBER, offsetof(options, noise), "noise", "PERCENT",
     "standard deviation of the time that a node takes for a step (default: 3.2)"},
    {OPTION_PLAN, NUMBER, offsetof(options, image_kb), "image-kb", "KB", "size of a stored image (default: 110)"},
    {OPTION_PLAN, NUMBER, offsetof(options, core_rate), "core-rate", "N",
     "images that a core decodes per second, as teskd data bench prints it (default: 600)"},
    {OPTION_PREFLIGHT, COUNT, offsetof(options, patience), "patience", "SECONDS",
     "how long a host may take for one check of its disks, files or GPUs (default: 60)"},
    {OPTION_SETTINGS, FLAG, offsetof(options, settings_table), "settings", NULL,
     "print the table of all settings as Markdown (docs/settings.md) and exit"},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static bool is_path(const option_row *row)
{
    return row->value && (strstr(row->value, "FILE") || strcmp(row->value, "DIR") == 0);
}

static bool is_allowed(const option_row *row, option_set allowed)
{
    return row->bit == 0 || (row->bit & allowed);
}

void options_help(option_set allowed, FILE *out)
{
    for (int i = 0; i < ROWS; i++) {
        char left[64];
        if (!is_allowed(&rows[i], allowed))
            continue;
        snprintf(left, sizeof left, "--%s %s", rows[i].name, rows[i].value ? rows[i].value : "");
        fprintf(out, "  %-26s %s\n", left, rows[i].help);
    }
}

static int read_count(const char *name, const char *text, long long *value)
{
    char *end;
    *value = strtoll(text, &end, 10);
    CHECK(*text && !*end && *value >= 0, ERROR_USAGE, "--%s %s: expected a whole number of at least 0", name, text);
    return 0;
}

static int read_number(const char *name, const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    CHECK(*text && !*end && *value >= 0 && isfinite(*value), ERROR_USAGE, "--%s %s: expected a number of at least 0",
          name, text);
    return 0;
}

static int take_config(options *o, const char *name)
{
    TRY(recipe_find(name, o->config_path, &o->is_recipe));
    return settings_load(&o->config, o->config_path);
}

/* "--checkpoint=~/x" reaches the program as it is; only "--checkpoint ~/x" is the shell's. */
static int expand_path(options *o, const option_row *row, const char **value)
{
    if (!is_path(row) || (*value)[0] != '~')
        return 0;
    CHECK(o->n_expanded < OPTION_PATHS, ERROR_USAGE, "--%s: more than %d paths with ~", row->name, OPTION_PATHS);
    char *path = o->expanded[o->n_expanded++];
    if (path_expand(*value, path, SETTING_TEXT_BYTES) < 0)
        return error_prefix(ERROR_USAGE, "--%s", row->name);
    *value = path;
    return 0;
}

static int take(options *o, const option_row *row, const char *value)
{
    CHECK(!row->value || *value, ERROR_USAGE, "--%s: its value is empty; is a variable of the shell not set?",
          row->name);
    TRY(expand_path(o, row, &value));
    void *member = (char *)o + row->at;
    switch (row->kind) {
    case FLAG:
        *(bool *)member = true;
        return 0;
    case TEXT:
        *(const char **)member = value;
        return 0;
    case COUNT:
        return read_count(row->name, value, member);
    case NUMBER:
        return read_number(row->name, value, member);
    case SETTING:
        break;
    }
    if (strcmp(row->name, "config") == 0)
        return take_config(o, value);
    if (strcmp(row->name, "set") == 0)
        return settings_set(&o->config, value);
    char assignment[128];
    snprintf(assignment, sizeof assignment, "run.device=%s", value);
    return settings_set(&o->config, assignment);
}

/* The option of this subcommand for what another one, or another program, calls so; or NULL. */
static const char *own_name(const char *name, option_set allowed)
{
    static const struct {
        const char *elsewhere, *here;
    } names[] = {{"resume", "checkpoint"},  {"pretrained", "checkpoint"},
                 {"weights", "checkpoint"}, {"ckpt", "checkpoint"},
                 {"output", "out"},         {"o", "out"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (int row = 0; row < ROWS && strcmp(names[i].elsewhere, name) == 0; row++)
            if (strcmp(rows[row].name, names[i].here) == 0 && is_allowed(&rows[row], allowed))
                return names[i].here;
    return NULL;
}

static const char *similar_name(const char *name, option_set allowed)
{
    enum { TYPING_ERRORS = 2 };
    const char *similar = NULL;
    for (int i = 0; i < ROWS; i++)
        if (is_allowed(&rows[i], allowed) && text_distance(rows[i].name, name) <= TYPING_ERRORS)
            similar = rows[i].name;
    return similar;
}

/* What may have been meant by an option that there is not; empty when nothing is near. */
static void advise(const char *name, option_set allowed, char advice[SETTING_ADVICE_BYTES])
{
    const char *meant = own_name(name, allowed);
    advice[0] = '\0';
    if (!meant && setting_option_advice(name, advice))
        return;
    if (!meant)
        meant = similar_name(name, allowed);
    if (meant)
        snprintf(advice, SETTING_ADVICE_BYTES, "did you mean --%s?", meant);
}

static int unknown_option(const char *argument, option_set allowed, const char *command)
{
    char name[64], advice[SETTING_ADVICE_BYTES];
    const char *begin = argument + strspn(argument, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(begin, "="), begin);
    advise(name, allowed, advice);
    return error_set(ERROR_USAGE, "%.80s is not an option of \"teskd %s\" (see teskd %s --help)%s%s", argument, command,
                     command, advice[0] ? "; " : "", advice);
}

/* Reads argv over what `o` holds. */
static int read_all(options *o)
{
    enum { FIRST_VALUE = 256 }; /* beyond the characters that getopt gives back itself */
    struct option known[ROWS + 1] = {{0}};
    int argc = o->argc, n_known = 0;
    char **argv = o->argv;
    for (int i = 0; i < ROWS; i++) /* an option that is not allowed here is not known here */
        if (is_allowed(&rows[i], o->allowed))
            known[n_known++] = (struct option){rows[i].name, rows[i].value != NULL, NULL, FIRST_VALUE + i};
    optind = 0;
    o->n_expanded = 0;
    for (;;) {
        int found = getopt_long_only(argc, argv, ":", known, NULL); /* "-lr" is one wrong option, not two */
        if (found == -1)
            break;
        CHECK(found != ':', ERROR_USAGE, "%s needs a value; see teskd %s --help", argv[optind - 1], argv[0]);
        if (found == '?')
            return unknown_option(argv[optind - 1], o->allowed, argv[0]);
        TRY(take(o, &rows[found - FIRST_VALUE], optarg));
    }
    o->n_arguments = argc - optind;
    o->arguments = argv + optind;
    return 0;
}

/* A file that is read is never the one to write. */
static int check_targets(const options *o)
{
    const struct {
        const char *name, *path;
    } reads[] = {{"checkpoint", o->checkpoint}, {"from", o->from}, {"resume", o->resume}, {"config", o->config_path}},
      writes[] = {{"out", o->out}, {"predictions", o->predictions}, {"dump-graph", o->dump_graph}, {"grid", o->grid}};
    for (size_t r = 0; r < sizeof reads / sizeof reads[0]; r++)
        for (size_t w = 0; w < sizeof writes / sizeof writes[0]; w++)
            CHECK(!reads[r].path || !writes[w].path || !is_same_file(reads[r].path, writes[w].path), ERROR_USAGE,
                  "--%s %s: that is the file that --%s reads", writes[w].name, writes[w].path, reads[r].name);
    return 0;
}

int options_read(options *o, int argc, char **argv, option_set allowed)
{
    *o = (options){.steps = -1,
                   .train_images = -1,
                   .test_images = -1,
                   .seed = -1,
                   .shard_mib = -1,
                   .max_side = -1,
                   .quality = -1,
                   .threads = -1,
                   .image_size = -1,
                   .images_per_second = -1,
                   .nodes = -1,
                   .gpus = -1,
                   .gpu_batch = -1,
                   .adapters = -1,
                   .net = -1,
                   .inside = -1,
                   .step_ms = -1,
                   .hop_us = -1,
                   .noise = -1,
                   .net_share = -1,
                   .image_kb = -1,
                   .core_rate = -1,
                   .patience = -1,
                   .argc = argc,
                   .argv = argv,
                   .allowed = allowed};
    settings_default(&o->config);
    TRY(read_all(o));
    CHECK(o->n_arguments == 0 || (allowed & OPTION_ARGUMENTS), ERROR_USAGE,
          "\"%s\" is not expected here; see teskd %s --help", o->arguments[0], argv[0]);
    if (o->help)
        return 0;
    TRY(check_targets(o));
    return settings_validate(&o->config);
}

int options_apply(const options *o, settings *config)
{
    options again = *o;
    again.config = *config;
    TRY(read_all(&again));
    *config = again.config;
    return 0;
}

/* " --NAME" and its value, where it was given. */
static void describe_option(const options *o, const option_row *row, char *text, size_t bytes)
{
    const void *member = (const char *)o + row->at;
    const char *value = row->kind == TEXT ? *(const char *const *)member : NULL;
    long long count = row->kind == COUNT ? *(const long long *)member : -1;
    double number = row->kind == NUMBER ? *(const double *)member : -1;
    text[0] = '\0';
    if ((row->kind == FLAG && *(const bool *)member) || (value && is_path(row)))
        snprintf(text, bytes, " --%s", row->name);
    else if (value)
        snprintf(text, bytes, " --%s %s", row->name, value);
    else if (count >= 0)
        snprintf(text, bytes, " --%s %lld", row->name, count);
    else if (number >= 0)
        snprintf(text, bytes, " --%s %.17g", row->name, number);
}

void options_describe(const options *o, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "%s", o->argv[0]);
    for (int i = 0; i < ROWS && used < bytes; i++) {
        if (rows[i].kind == SETTING || !is_allowed(&rows[i], o->allowed))
            continue;
        describe_option(o, &rows[i], text + used, bytes - used);
        used += strlen(text + used);
    }
}

int options_refuse_others(const options *o, option_set allowed, const char *command)
{
    for (int i = 0; i < ROWS; i++) {
        char text[SETTING_TEXT_BYTES];
        if (rows[i].kind == SETTING || !is_allowed(&rows[i], o->allowed) || is_allowed(&rows[i], allowed))
            continue;
        describe_option(o, &rows[i], text, sizeof text);
        CHECK(!text[0], ERROR_USAGE, "--%s is not an option of \"teskd %s\" (see teskd %s --help)", rows[i].name,
              command, command);
    }
    return 0;
}
