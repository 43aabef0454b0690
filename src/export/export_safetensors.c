/* Owns the mapping from a trained network to a safetensors file that PyTorch's load_state_dict takes. One thread. */
#include "base/error.h"
#include "export/export.h"
#include "export/tensor_names.h"
#include "run/store.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 2 * GRAPH_NAME_BYTES };

/* The counters of the norms come first: every tensor then lies at a multiple of its elements' size. */
typedef struct {
    const network_export *d;
    int32_t count, counters;
    safetensors_info *infos;
    char (*names)[NAME_BYTES];
} contents;

static void list_counters(contents *c)
{
    for (value_id id = VALUE_NONE; (id = export_next_tensor(c->d, id)) != VALUE_NONE;)
        if (tensor_names_counter(c->d->g.values[id].name, c->names[c->count], NAME_BYTES)) {
            c->infos[c->count] = (safetensors_info){.name = c->names[c->count], .type = SAFETENSORS_I64};
            c->count++;
        }
    c->counters = c->count;
}

static void list_values(contents *c)
{
    for (value_id id = VALUE_NONE; (id = export_next_tensor(c->d, id)) != VALUE_NONE;) {
        const graph_value *value = &c->d->g.values[id];
        safetensors_info *info = &c->infos[c->count];
        snprintf(c->names[c->count], NAME_BYTES, "%s", value->name);
        info->name = c->names[c->count++];
        info->type = SAFETENSORS_F32;
        info->rank = store_file_shape(&value->desc, info->shape);
    }
}

static int append_all(const contents *c, safetensors_writer *w)
{
    for (int32_t i = 0; i < c->counters; i++)
        TRY(safetensors_append(w, &c->d->steps_done));
    for (value_id id = VALUE_NONE; (id = export_next_tensor(c->d, id)) != VALUE_NONE;) {
        float *values;
        TRY(export_read(c->d, id, &values, NULL, NULL));
        int status = safetensors_append(w, values);
        free(values);
        TRY(status);
    }
    return 0;
}

static int write_contents(contents *c, const char *path)
{
    const network_export *d = c->d;
    safetensors_text texts[EXPORT_TEXTS_MAX + 1] = {{"format", "pt"}};
    memcpy(texts + 1, d->texts, sizeof d->texts);
    list_counters(c);
    list_values(c);
    safetensors_writer *w;
    TRY(safetensors_create(&w, path, c->count, c->infos, d->n_texts + 1, texts));
    int status = append_all(c, w);
    if (status == 0)
        status = safetensors_commit(&w);
    safetensors_abandon(&w);
    return status;
}

int export_write_safetensors(const network_export *d, const char *path)
{
    contents c = {.d = d};
    size_t most = 2 * (size_t)d->g.n_values; /* tensors and counters are fewer than that */
    c.infos = calloc(most, sizeof *c.infos);
    c.names = calloc(most, sizeof *c.names);
    int status = c.infos && c.names ? write_contents(&c, path) : error_set(ERROR_MEMORY, "no memory to write %s", path);
    free(c.infos);
    free(c.names);
    return status;
}
