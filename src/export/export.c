/* Owns a trained network on its way out: which tensors, from where, and what the file will say about itself.
 * Main thread only (HDF5). */
#include "export/export.h"
#include "base/error.h"
#include "base/text.h"
#include "train/checkpoint.h"
#include "train/class_names.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool is_utf8(const char *text)
{
    int length = 1;
    for (; *text && length > 0; text += length)
        length = text_utf8_length(text, NULL);
    return length > 0;
}

static void say(network_export *d, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Both kinds of file hold UTF-8 only; a path may be anything. */
static void say(network_export *d, const char *key, const char *format, ...)
{
    char *value = d->values[d->n_texts];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, EXPORT_TEXT_BYTES, format, arguments);
    va_end(arguments);
    if (!is_utf8(value))
        for (char *c = value; *c; c++)
            if (*c & 0x80)
                *c = '?';
    d->texts[d->n_texts++] = (safetensors_text){key, value};
}

static void say_numbers(network_export *d, const char *key, const double numbers[3])
{
    char text[3][TEXT_DOUBLE_BYTES];
    for (int i = 0; i < 3; i++)
        text_from_double(numbers[i], text[i]);
    say(d, key, "%s,%s,%s", text[0], text[1], text[2]);
}

static int say_all(network_export *d, const char *checkpoint, bool ema)
{
    const model_options *o = &d->options.model;
    const network_row *network = o->network;
    const int32_t *blocks = o->blocks[0] ? o->blocks : network->blocks;
    say(d, "network", "%s", network->name);
    say(d, "classes", "%d", o->classes);
    say(d, "width", "%d", o->width ? o->width : network->width);
    say(d, "blocks", "%d,%d,%d,%d", blocks[0], blocks[1], blocks[2], blocks[3]);
    say(d, "students", "%s", model_has_students(o) ? "yes" : "no");
    say(d, "image_height", "%d", o->image_height);
    say(d, "image_width", "%d", o->image_width);
    if (d->images.source->side == SIZE_VARIES)
        say(d, "resize_size", "%d", d->images.resize_size);
    say_numbers(d, "mean", d->images.source->mean);
    say_numbers(d, "std", d->images.source->std);
    say(d, "weights", "%s", ema ? "averages" : "last");
    say(d, "checkpoint", "%s", checkpoint);
    say(d, "epoch", "%lld", (long long)d->epoch);
    say(d, "step", "%lld", (long long)d->step);
    say(d, "steps_done", "%lld", (long long)d->steps_done);
    say(d, "program", "teskd " TESKD_VERSION);
    TRY(class_names_read(d->checkpoint, &d->class_names));
    if (d->class_names && is_utf8(d->class_names))
        d->texts[d->n_texts++] = (safetensors_text){"class_names", d->class_names};
    return 0;
}

static int open_weights(network_export *d, const char *checkpoint, bool ema)
{
    progress at;
    d->prefix = ema ? "ema/" : "weights/";
    TRY(tensor_file_open(&d->checkpoint, checkpoint));
    TRY(checkpoint_position(d->checkpoint, &at));
    d->epoch = at.epoch;
    d->step = at.step;
    d->steps_done = at.steps_done;
    for (value_id id = VALUE_NONE; ema && (id = export_next_tensor(d, id)) != VALUE_NONE;) {
        char path[2 * GRAPH_NAME_BYTES];
        snprintf(path, sizeof path, "%s%s", d->prefix, d->g.values[id].name);
        CHECK(tensor_file_find(d->checkpoint, path), ERROR_USAGE,
              "--ema: %s has no averaged weights; train.ema_decay was 0 in its training", checkpoint);
    }
    return 0;
}

static int build(network_export *d)
{
    d->options.rewrites = REWRITE_NONE;
    d->options.model.image_height = d->options.model.image_width = d->images.eval_size;
    graph_init(&d->g, DTYPE_F32);
    return step_build_evaluation(&d->g, &d->m, &d->options, 1, &(step_input){.kind = INPUT_REAL});
}

int export_open(network_export *d, const char *checkpoint, bool with_students, bool ema, comm *ranks)
{
    settings config;
    *d = (network_export){.path = checkpoint};
    TRY(checkpoint_settings(ranks, checkpoint, &config));
    CHECK(!with_students || config.model.method == METHOD_TESKD, ERROR_USAGE,
          "--all-heads: %s is a checkpoint of a training without students", checkpoint);
    if (!with_students)
        config.model.method = METHOD_PLAIN;
    int status = comm_agree(ranks, configure(&config, &d->images, &d->options));
    if (status == 0)
        status = build(d);
    if (status == 0)
        status = open_weights(d, checkpoint, ema);
    if (status == 0)
        status = say_all(d, checkpoint, ema);
    if (status < 0)
        export_close(d);
    return status;
}

void export_close(network_export *d)
{
    tensor_file_close(&d->checkpoint);
    free(d->class_names);
    model_free(&d->m);
    graph_free(&d->g);
}

value_id export_next_tensor(const network_export *d, value_id last)
{
    for (value_id id = last + 1; id < d->g.n_values; id++) {
        uint8_t kind = d->g.values[id].desc.kind;
        bool persistent = kind == KIND_PARAMETER || kind == KIND_STATE;
        if (persistent && store_role(d->g.values[id].name) == ENTRY_MODEL)
            return id;
    }
    return VALUE_NONE;
}

int export_check_finite(const network_export *d, const char *tensor, const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        CHECK(isfinite(values[i]), ERROR_DATA,
              "%s: '%s': element %lld of %lld would be exported as %g, which is not finite", d->path, tensor,
              (long long)i, (long long)count, (double)values[i]);
    return 0;
}

int export_read(const network_export *d, value_id tensor, float **values, int64_t shape[4], int *rank)
{
    const graph_value *value = &d->g.values[tensor];
    char path[2 * GRAPH_NAME_BYTES];
    int64_t own_shape[4];
    int own_rank = store_file_shape(&value->desc, own_shape);
    *values = malloc((size_t)tensor_count(&value->desc) * sizeof **values);
    CHECK(*values, ERROR_MEMORY, "no memory to read %s", value->name);
    snprintf(path, sizeof path, "%s%s", d->prefix, value->name);
    int status = tensor_file_read(d->checkpoint, path, DTYPE_F32, own_rank, own_shape, *values);
    if (status == 0)
        status = export_check_finite(d, value->name, *values, tensor_count(&value->desc));
    if (status < 0) {
        free(*values);
        *values = NULL;
        return status;
    }
    if (shape)
        memcpy(shape, own_shape, sizeof own_shape);
    if (rank)
        *rank = own_rank;
    return 0;
}
