/* Owns the copy of a training's state and what a checkpoint holds of it. Invariant: between two calls of snapshot_take
 * a snapshot does not change. Threads: one takes, one writes, not at once. */
#include "train/snapshot.h"
#include "base/error.h"
#include "io/file/tensor_file.h"
#include "train/class_names.h"

#include <stdlib.h>
#include <string.h>

int snapshot_open(snapshot *s, const session *e)
{
    const size_t bytes = e->tensors.saved.bytes;
    *s = (snapshot){.e = e, .tensors = malloc(bytes)};
    CHECK(s->tensors, ERROR_MEMORY, "no memory for a copy of the %zu bytes that a checkpoint holds", bytes);
    memset(s->tensors, 1, bytes); /* the system gives memory where it is first written, and to zeros a compiler none */
    return 0;
}

void snapshot_close(snapshot *s)
{
    free(s->tensors);
    *s = (snapshot){0};
}

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

int snapshot_take(snapshot *s, const progress *at)
{
    TRY(check_finite(s->e, at));
    s->at = *at;
    return store_read_saved(&s->e->tensors, s->tensors);
}

void checkpoint_tensor_name(const store_entry *entry, char name[CHECKPOINT_NAME_BYTES])
{
    snprintf(name, CHECKPOINT_NAME_BYTES, "%s%s", store_role(entry->name) == ENTRY_MODEL ? "weights/" : "",
             entry->name);
}

static int write_tensor(const snapshot *s, const store_entry *entry, tensor_file *file)
{
    int64_t shape[4];
    int rank = store_file_shape(&entry->desc, shape);
    char name[CHECKPOINT_NAME_BYTES];
    void *values = malloc(tensor_bytes(&entry->desc));
    CHECK(values, ERROR_MEMORY, "no memory to write %s", entry->name);
    checkpoint_tensor_name(entry, name);
    int status = store_export_saved(&s->e->tensors, entry, s->tensors, values);
    if (status == 0)
        status = tensor_file_write(file, name, (dtype)entry->desc.dtype, rank, shape, values);
    free(values);
    return status;
}

static int write_tensors(const snapshot *s, tensor_file *file)
{
    const store *tensors = &s->e->tensors;
    for (uint32_t i = 0; i < tensors->n_entries; i++)
        if (store_is_saved(tensors->entries[i].name))
            TRY(write_tensor(s, &tensors->entries[i], file));
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

static int write_settings(const session *e, tensor_file *file)
{
    char *text = settings_to_text(&e->config);
    CHECK(text, ERROR_MEMORY, "no memory for the settings");
    int status = tensor_file_set_text(file, "settings", text);
    free(text);
    return status;
}

static int write_attributes(const snapshot *s, tensor_file *file)
{
    const session *e = s->e;
    const progress *at = &s->at;
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
    return write_settings(e, file);
}

int snapshot_write(const snapshot *s, const char *path, const char *kept)
{
    tensor_file *file = NULL;
    TRY(tensor_file_create(&file, path));
    int status = write_tensors(s, file);
    if (status == 0)
        status = write_attributes(s, file);
    if (status == 0)
        status = tensor_file_commit(&file, kept);
    tensor_file_close(&file);
    return status;
}
