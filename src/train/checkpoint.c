/* Owns what a checkpoint holds. Invariant: only rank 0 touches files, and every rank gets the same outcome.
 * Main thread only (HDF5). */
#include "train/checkpoint.h"
#include "base/error.h"
#include "train/class_names.h"
#include "train/resume_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Epochs and classes as many as the settings take; steps as many as a double counts. */
static const int64_t MOST_EPOCHS = 1000000, MOST_CLASSES = 1000000, MOST_RANKS = 1000000, MOST_STEPS = INT64_C(1) << 53;

/* Weights and running statistics go to "weights/NAME"; the others have a prefix of their own. */
static void tensor_path(const store_entry *entry, char path[2 * GRAPH_NAME_BYTES])
{
    snprintf(path, 2 * GRAPH_NAME_BYTES, "%s%s", store_role(entry->name) == ENTRY_MODEL ? "weights/" : "", entry->name);
}

static int write_tensors(const store *tensors, tensor_file *file)
{
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        const store_entry *entry = &tensors->entries[i];
        if (!store_is_saved(entry))
            continue;
        int64_t shape[4];
        int rank = store_file_shape(&entry->desc, shape);
        char path[2 * GRAPH_NAME_BYTES];
        void *values = malloc(tensor_bytes(&entry->desc));
        CHECK(values, ERROR_MEMORY, "no memory to write %s", entry->name);
        tensor_path(entry, path);
        int status = store_export(tensors->device, entry, values);
        if (status == 0)
            status = tensor_file_write(file, path, (dtype)entry->desc.dtype, rank, shape, values);
        free(values);
        TRY(status);
    }
    return 0;
}

static int write_set(tensor_file *file, const char *key, const image_set *set)
{
    char text[IMAGE_SET_IDENTITY_BYTES];
    if (set->images == 0)
        return 0;
    image_set_identity(set, text);
    return tensor_file_set_text(file, key, text);
}

/* An imported checkpoint is of no set. */
static int check_set(tensor_file *file, const char *path, const char *key, const image_set *set, const session *e,
                     bool *is_other)
{
    char now[IMAGE_SET_IDENTITY_BYTES], *saved = NULL;
    if (set->images == 0 || !tensor_file_has(file, key))
        return 0;
    image_set_identity(set, now);
    TRY(tensor_file_get_text(file, key, &saved));
    bool same = strcmp(now, saved) == 0;
    *is_other = !same;
    int status = same || e->other_data ? 0
                                       : error_set(ERROR_SETTINGS,
                                                   "%s: now %s, but %s is of a training on %s; at the start of an "
                                                   "epoch --other-data goes on all the same",
                                                   key, now, path, saved);
    if (!same && e->other_data)
        log_info(e->log, "  %s is now %s, in the checkpoint %s", key, now, saved);
    free(saved);
    return status;
}

static int write_attributes(const session *e, const progress *at, tensor_file *file)
{
    const int64_t count = METRICS_COUNT;
    TRY(tensor_file_set_int(file, "epoch", at->epoch));
    TRY(tensor_file_set_int(file, "step", at->step));
    TRY(tensor_file_set_int(file, "steps_done", at->steps_done));
    TRY(tensor_file_set_int(file, "seed", e->config.train.seed));
    TRY(tensor_file_set_int(file, "classes", e->step.model.classes));
    TRY(tensor_file_set_int(file, "ranks", e->info->size));
    TRY(tensor_file_set_int(file, "evaluated_at", at->evaluated_at));
    TRY(tensor_file_set_double(file, "best_top1", at->best_top1));
    TRY(tensor_file_set_text(file, "network", e->step.model.network->name));
    TRY(tensor_file_set_text(file, "program", "teskd " TESKD_VERSION));
    TRY(tensor_file_write(file, "progress/epoch_sums", DTYPE_F64, 1, &count, &at->epoch_sums));
    TRY(write_set(file, "train_set", &e->train_set));
    TRY(write_set(file, "test_set", &e->test_set));
    TRY(class_names_write(file, &e->train_set));
    char *text = settings_to_text(&e->config);
    CHECK(text, ERROR_MEMORY, "no memory for the settings");
    int status = tensor_file_set_text(file, "settings", text);
    free(text);
    return status;
}

static int save(const session *e, const progress *at, const char *name, bool keep_previous)
{
    char path[SETTING_TEXT_BYTES + 32], previous[SETTING_TEXT_BYTES + 32];
    tensor_file *file = NULL;
    snprintf(path, sizeof path, "%s/%s", e->config.output.dir, name);
    snprintf(previous, sizeof previous, "%s/previous.h5", e->config.output.dir);
    TRY(tensor_file_create(&file, path));
    int status = write_tensors(&e->tensors, file);
    if (status == 0)
        status = write_attributes(e, at, file);
    if (status == 0)
        status = tensor_file_commit(&file, keep_previous ? previous : NULL);
    tensor_file_close(&file);
    return status;
}

/* All ranks hold the same. */
static int check_finite(const session *e, const progress *at)
{
    int64_t count;
    const store_entry *first = NULL;
    TRY(store_count_not_finite(&e->tensors, &count));
    if (count == 0)
        return 0;
    TRY(store_find_not_finite(&e->tensors, &first));
    return error_set(
        ERROR_DATA,
        "%lld of the weights, statistics and momenta are no longer finite in epoch %lld after step %lld, the "
        "first of them in %s",
        (long long)count, (long long)at->epoch + 1, (long long)at->step, first ? first->name : "none");
}

int checkpoint_save(session *e, const progress *at, const char *name, bool keep_previous)
{
    comm_enter(e->ranks, PHASE_CHECKPOINT);
    int status = check_finite(e, at);
    if (status == 0 && e->info->rank == 0)
        status = save(e, at, name, keep_previous);
    return comm_agree(e->ranks, status);
}

static int check_values(const char *name, const store_entry *entry, const void *values)
{
    bool wide = (dtype)entry->desc.dtype == DTYPE_F64;
    for (int64_t i = 0; i < tensor_count(&entry->desc); i++)
        CHECK(isfinite(wide ? ((const double *)values)[i] : (double)((const float *)values)[i]), ERROR_DATA,
              "%s holds numbers that are not finite, as a training leaves them that has diverged", name);
    return 0;
}

static int read_tensor(backend *device, store_entry *entry, tensor_file *file, const char *path)
{
    int64_t shape[4];
    int rank = store_file_shape(&entry->desc, shape);
    void *values = malloc(tensor_bytes(&entry->desc));
    CHECK(values, ERROR_MEMORY, "no memory to read %s", entry->name);
    int status = tensor_file_read(file, path, (dtype)entry->desc.dtype, rank, shape, values);
    if (status == 0)
        status = check_values(path, entry, values);
    if (status == 0)
        status = store_import(device, entry, values);
    free(values);
    return status;
}

static int read_tensors(store *tensors, tensor_file *file, bool without_ema)
{
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        char path[2 * GRAPH_NAME_BYTES];
        tensor_path(&tensors->entries[i], path);
        entry_role role = store_role(tensors->entries[i].name);
        if (!store_is_saved(&tensors->entries[i]) || (without_ema && role == ENTRY_EMA))
            continue;
        bool optional = role == ENTRY_SCALING; /* of a training in another precision */
        if (!optional || tensor_file_find(file, path))
            TRY(read_tensor(tensors->device, &tensors->entries[i], file, path));
    }
    return 0;
}

/* Each entry of the model gets its EMA. */
static int read_ema(store *tensors, tensor_file *file, const char *name)
{
    for (uint32_t i = 0; i < tensors->n_entries; i++) {
        char path[2 * GRAPH_NAME_BYTES];
        if (store_role(tensors->entries[i].name) != ENTRY_MODEL)
            continue;
        snprintf(path, sizeof path, "ema/%s", tensors->entries[i].name);
        CHECK(tensor_file_find(file, path), ERROR_SETTINGS,
              "eval.ema: %s has no averaged weights; train.ema_decay was 0 in its training", name);
        TRY(read_tensor(tensors->device, &tensors->entries[i], file, path));
    }
    return 0;
}

int checkpoint_position(tensor_file *file, progress *at)
{
    TRY(tensor_file_get_int(file, "epoch", 0, MOST_EPOCHS, &at->epoch));
    TRY(tensor_file_get_int(file, "steps_done", 0, MOST_STEPS, &at->steps_done));
    TRY(tensor_file_get_int(file, "step", 0, at->steps_done, &at->step));
    at->evaluated_at = at->steps_done;
    if (tensor_file_has(file, "evaluated_at")) /* older files were saved after the evaluation */
        TRY(tensor_file_get_int(file, "evaluated_at", -1, at->steps_done, &at->evaluated_at));
    return 0;
}

static int read_progress(tensor_file *file, progress *at)
{
    const int64_t count = METRICS_COUNT;
    double sums[METRICS_COUNT];
    TRY(checkpoint_position(file, at));
    TRY(tensor_file_get_double(file, "best_top1", -1, 1, &at->best_top1));
    TRY(tensor_file_read(file, "progress/epoch_sums", DTYPE_F64, 1, &count, sums));
    for (int i = 0; i < METRICS_COUNT; i++)
        CHECK(isfinite(sums[i]), ERROR_DATA, "progress/epoch_sums holds numbers that are not finite");
    memcpy(&at->epoch_sums, sums, sizeof sums);
    return 0;
}

/* Statistics of batch normalisation are those of a rank's share, unless run.sync_bn joins them. */
static int say_ranks(const session *e, tensor_file *file)
{
    int64_t saved = e->info->size;
    if (tensor_file_has(file, "ranks"))
        TRY(tensor_file_get_int(file, "ranks", 1, MOST_RANKS, &saved));
    if (saved != e->info->size)
        log_info(e->log, "  ranks are now %d, in the checkpoint %lld", e->info->size, (long long)saved);
    return 0;
}

/* A training knows it; the settings may leave it to the data. */
static int read_classes(tensor_file *file, settings *config)
{
    return tensor_file_get_int(file, "classes", 1, MOST_CLASSES, &config->model.classes);
}

static int saved_settings(tensor_file *file, const char *path, settings *saved)
{
    char *text;
    TRY(tensor_file_get_text(file, "settings", &text));
    settings_default(saved);
    int status = settings_parse_text(saved, text, path);
    free(text);
    return status;
}

/* An EMA that the checkpoint lacks starts from the weights. One that nobody wants any more is left. */
static bool is_taken(const session *e, const settings *saved, const char *path)
{
    const char *name = strncmp(path, "weights/", 8) == 0 ? path + 8 : path;
    bool dropped = strncmp(path, "ema/", 4) == 0 && e->config.train.ema_decay == 0 && saved->train.ema_decay > 0;
    bool scaling = strcmp(path, LOSS_SCALE_STATE) == 0; /* of a training in another precision */
    return store_find(&e->tensors, name) || dropped || scaling || strcmp(path, "progress/epoch_sums") == 0;
}

static int check_all_taken(const session *e, const settings *saved, tensor_file *file, const char *path)
{
    for (int32_t i = 0; i < tensor_file_count(file); i++)
        CHECK(is_taken(e, saved, tensor_file_info(file, i)->name), ERROR_SHAPE,
              "%s: tensor '%s' belongs to no part of this network", path, tensor_file_info(file, i)->name);
    return 0;
}

static int load_all(session *e, tensor_file *file, const char *path, progress *at)
{
    settings saved, now = e->config;
    bool is_other = false;
    TRY(saved_settings(file, path, &saved));
    TRY(read_progress(file, at));
    TRY(read_classes(file, &saved));
    now.model.classes = e->step.model.classes;
    TRY(resume_check(&now, &saved, path, at->step > 0));
    TRY(class_names_check(file, path, &e->train_set));
    CHECK(at->step == 0 || !e->other_data, ERROR_USAGE, "--other-data: %s is of an epoch that is not finished", path);
    TRY(check_set(file, path, "train_set", &e->train_set, e, &is_other));
    is_other = false;
    TRY(check_set(file, path, "test_set", &e->test_set, e, &is_other));
    if (is_other)
        at->evaluated_at = -1;
    bool other_measure = saved.eval.flip != now.eval.flip || saved.eval.ema != now.eval.ema;
    if (is_other || other_measure) /* such accuracies do not compare */
        at->best_top1 = -1;
    TRY(check_all_taken(e, &saved, file, path));
    bool starts_ema = now.train.ema_decay > 0 && saved.train.ema_decay == 0;
    TRY(read_tensors(&e->tensors, file, starts_ema));
    resume_say_changes(&now, &saved, e->log);
    TRY(say_ranks(e, file));
    return starts_ema ? store_start_ema(&e->tensors) : 0;
}

static int load_weights(session *e, tensor_file *file, const char *path)
{
    TRY(class_names_check(file, path, &e->test_set));
    return e->config.eval.ema ? read_ema(&e->tensors, file, path) : read_tensors(&e->tensors, file, false);
}

static int load(session *e, const char *path, progress *at)
{
    tensor_file *file = NULL;
    TRY(tensor_file_open(&file, path));
    int status = at ? load_all(e, file, path, at) : load_weights(e, file, path);
    tensor_file_close(&file);
    return status == ERROR_DATA ? error_prefix(status, "%s", path) : status;
}

/* Says which older file could be taken instead. */
static int offer_previous(int status, const char *path)
{
    char previous[SETTING_TEXT_BYTES + 32];
    const char *slash = strrchr(path, '/');
    snprintf(previous, sizeof previous, "%.*sprevious.h5", slash ? (int)(slash - path) + 1 : 0, path);
    bool is_last = strcmp(slash ? slash + 1 : path, "last.h5") == 0;
    bool offered = (status == ERROR_FILE || status == ERROR_DATA) && is_last && access(previous, F_OK) == 0;
    if (!offered)
        return status;
    return error_suffix(status, "; the one before it is there: --resume %s", previous);
}

static int broadcast_tensor(session *e, const store_entry *entry)
{
    backend *device = e->device;
    size_t bytes = tensor_bytes(&entry->desc);
    void *values = malloc(bytes);
    int status = values ? device->ops->read(device, values, entry->memory, bytes)
                        : error_set(ERROR_MEMORY, "no memory to hand %s to the ranks", entry->name);
    status = comm_agree(e->ranks, status);
    if (status == 0)
        status = comm_broadcast(e->ranks, values, bytes, 0);
    if (status == 0)
        status = device->ops->write(device, entry->memory, values, bytes);
    free(values);
    return status;
}

/* To be called by every rank after rank 0 has read the tensors. */
static int spread_tensors(session *e)
{
    for (uint32_t i = 0; i < e->tensors.n_entries && e->info->size > 1; i++)
        if (store_is_saved(&e->tensors.entries[i]))
            TRY(broadcast_tensor(e, &e->tensors.entries[i]));
    return store_refresh_copies(&e->tensors);
}

int checkpoint_load(session *e, const char *path, progress *at)
{
    int status = e->info->rank == 0 ? load(e, path, at) : 0;
    if (status < 0)
        status = offer_previous(status, path);
    TRY(comm_agree(e->ranks, status));
    TRY(comm_broadcast(e->ranks, at, sizeof *at, 0));
    return spread_tensors(e);
}

int checkpoint_load_weights(session *e, const char *path)
{
    int status = e->info->rank == 0 ? load(e, path, NULL) : 0;
    TRY(comm_agree(e->ranks, status));
    return spread_tensors(e);
}

static int read_settings(const char *path, settings *config)
{
    tensor_file *file = NULL;
    TRY(tensor_file_open(&file, path));
    int status = saved_settings(file, path, config);
    if (status == 0)
        status = read_classes(file, config);
    tensor_file_close(&file);
    return status;
}

int checkpoint_settings(comm *ranks, const char *path, settings *config)
{
    int status = comm_describe(ranks)->rank == 0 ? read_settings(path, config) : 0;
    TRY(comm_agree(ranks, status));
    return comm_broadcast(ranks, config, sizeof *config, 0);
}
