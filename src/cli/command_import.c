/* Owns `teskd import`: a checkpoint that begins with the weights of a safetensors file. */
#include "base/error.h"
#include "cli/commands.h"
#include "export/tensor_names.h"
#include "export/weights_file.h"
#include "train/checkpoint.h"
#include "train/folder_lock.h"
#include "train/output_folder.h"
#include "train/snapshot.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Names of one sort of trouble; the first ones are listed. */
enum { LISTED_MAX = 6, LIST_BYTES = 560 };
typedef struct {
    int count;
    char text[LIST_BYTES];
} name_list;

static void list(name_list *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void list(name_list *l, const char *format, ...)
{
    size_t used = strlen(l->text);
    va_list arguments;
    if (++l->count > LISTED_MAX || used + 2 >= sizeof l->text)
        return;
    if (l->count > 1)
        used += (size_t)snprintf(l->text + used, sizeof l->text - used, ", ");
    va_start(arguments, format);
    vsnprintf(l->text + used, sizeof l->text - used, format, arguments);
    va_end(arguments);
}

/* "; 9 missing: a, b, c and 6 more", or nothing. */
static void say(char *message, size_t bytes, const name_list *l, const char *what)
{
    size_t used = strlen(message);
    if (l->count == 0)
        return;
    used += (size_t)snprintf(message + used, bytes - used, "; %d %s: %s", l->count, what, l->text);
    if (l->count > LISTED_MAX && used < bytes)
        snprintf(message + used, bytes - used, " and %d more", l->count - LISTED_MAX);
}

static void shape_text(const int64_t *shape, int rank, char text[96])
{
    size_t used = (size_t)snprintf(text, 96, "[");
    for (int i = 0; i < rank && used < 80; i++)
        used += (size_t)snprintf(text + used, 96 - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + used, 96 - used, "]");
}

static void check_entry(const weights_file *file, const store_entry *entry, bool teacher_only, name_list *missing,
                        name_list *misshapen)
{
    const safetensors_info *tensor = weights_file_find(file, entry->name);
    int64_t shape[4];
    int rank = store_file_shape(&entry->desc, shape);
    if (!tensor && !(teacher_only && model_is_students(entry->name)))
        list(missing, "%s", entry->name);
    if (!tensor || (tensor->rank == rank && memcmp(tensor->shape, shape, (size_t)rank * sizeof *shape) == 0))
        return;
    char has[96], wants[96];
    shape_text(tensor->shape, tensor->rank, has);
    shape_text(shape, rank, wants);
    list(misshapen, "%s %s instead of %s", entry->name, has, wants);
}

/* Is it of no use here, and rightly in the file all the same? */
static bool is_ignored(const char *name, bool teacher_only)
{
    return tensor_names_is_counter(name) || (teacher_only && model_is_students(name));
}

/* All that does not fit, in one message. */
static int check_tensors(const session *e, const weights_file *file, const options *o)
{
    name_list missing = {0}, surplus = {0}, misshapen = {0};
    for (uint32_t i = 0; i < e->tensors.n_entries; i++)
        if (store_role(e->tensors.entries[i].name) == ENTRY_MODEL)
            check_entry(file, &e->tensors.entries[i], o->teacher_only, &missing, &misshapen);
    for (int32_t i = 0; i < safetensors_count(file->file); i++) {
        const char *name = weights_file_name(file, i);
        if (!is_ignored(name, o->teacher_only) && !store_find(&e->tensors, name))
            list(&surplus, "%s", name);
    }
    if (missing.count + surplus.count + misshapen.count == 0)
        return 0;
    char message[3 * LIST_BYTES + 128] = "";
    say(message, sizeof message, &misshapen, "of another shape");
    say(message, sizeof message, &missing, "missing");
    say(message, sizeof message, &surplus, "unknown");
    return error_set(ERROR_SHAPE, "%s is not %s with %d classes%s", o->from, e->step.model.network->name,
                     e->step.model.classes, message);
}

static int read_tensor(backend *device, store_entry *entry, const weights_file *file)
{
    const safetensors_info *tensor = weights_file_find(file, entry->name);
    if (!tensor)
        return 0;
    double *values = malloc((size_t)tensor_count(&entry->desc) * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory to read %s", entry->name);
    int status = weights_file_read(file, tensor, values);
    if (status == 0)
        status = store_import_f64(device, entry, values);
    free(values);
    return status;
}

static void say_wrapper(const weights_file *file, logger *log)
{
    const char *wrapped = weights_file_wrapped(file);
    if (wrapped)
        log_info(log, "%s: all names begin with \"%.*s\", which is left out", file->path, (int)file->wrapper, wrapped);
}

static int read_tensors(session *e, const options *o)
{
    weights_file file;
    TRY(weights_file_open(&file, o->from, &e->tensors));
    say_wrapper(&file, e->log);
    int status = check_tensors(e, &file, o);
    for (uint32_t i = 0; i < e->tensors.n_entries && status == 0; i++)
        if (store_role(e->tensors.entries[i].name) == ENTRY_MODEL)
            status = read_tensor(e->device, &e->tensors.entries[i], &file);
    weights_file_close(&file);
    return status;
}

static int save_snapshot(const session *e, const progress *at, const char *path)
{
    snapshot s;
    int status = snapshot_open(&s, e);
    if (status == 0)
        status = snapshot_take(&s, at);
    if (status == 0)
        status = snapshot_write(&s, path, NULL);
    snapshot_close(&s);
    return status;
}

/* A checkpoint is saved by name into output.dir; not into that of a training that has a file of this name itself. */
static int save(session *e, const char *out)
{
    const char *slash = strrchr(out, '/');
    const char *name = slash ? slash + 1 : out;
    const progress start = {.evaluated_at = -1, .best_top1 = -1};
    folder_lock *lock = NULL;
    snprintf(e->config.output.dir, sizeof e->config.output.dir, "%.*s", slash ? (int)(slash - out) : 1,
             slash ? out : ".");
    if (output_folder_writes(name))
        TRY(folder_lock_take(&lock, e->config.output.dir, e->log));
    int status = save_snapshot(e, &start, out);
    folder_lock_release(&lock);
    return status;
}

static int check(const options *o, const comm *ranks)
{
    CHECK(comm_describe(ranks)->size == 1, ERROR_USAGE, "teskd import runs on one rank, not on %d",
          comm_describe(ranks)->size);
    CHECK(o->from, ERROR_USAGE, "teskd import needs --from FILE.safetensors");
    CHECK(o->out, ERROR_USAGE, "teskd import needs --out FILE.h5");
    CHECK(strlen(o->out) < SETTING_TEXT_BYTES, ERROR_USAGE, "--out: longer than %d bytes", SETTING_TEXT_BYTES - 1);
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    settings config = o->config;
    session e;
    TRY(comm_agree(ranks, check(o, ranks)));
    config.run.device = DEVICE_CPU;
    int status = session_open(&e, &config, log, ranks, WILL_TRAIN);
    if (status == 0)
        status = session_build_training(&e);
    if (status == 0)
        status = read_tensors(&e, o);
    if (status == 0)
        status = store_start_ema(&e.tensors);
    if (status == 0)
        status = save(&e, o->out);
    if (status == 0)
        log_info(log, "%s: %s with %d classes from %s, ready for eval --checkpoint or train --resume", o->out,
                 e.step.model.network->name, e.step.model.classes, o->from);
    return session_end(&e, status);
}

const command command_import = {
    .name = "import",
    .summary = "make a checkpoint from the weights in a safetensors file",
    .usage = "",
    .options = OPTION_FROM | OPTION_OUT_FILE | OPTION_TEACHER_ONLY,
    .uses_settings = true,
    .run = run,
};
