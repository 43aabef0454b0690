/* Owns the order of rows and the weights of the scaling, see resample.h. Invariant: the ring holds every row that an
 * output still to be made needs. One thread a resampler. */
#include "resample.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Room for `bytes`, without what was there; NULL when there is no memory. */
static void *grown(void *memory, size_t *room, size_t bytes)
{
    if (bytes <= *room)
        return memory;
    free(memory);
    memory = malloc(bytes);
    *room = memory ? bytes : 0;
    return memory;
}

static int no_memory(size_t bytes)
{
    return error_set(ERROR_MEMORY, "no memory for %zu bytes of an image's rows", bytes);
}

static void axis_free(resample_axis *axis)
{
    free(axis->spans);
    free(axis->weights);
}

void resampler_free(resampler *r)
{
    axis_free(&r->across);
    axis_free(&r->down);
    free(r->input);
    free(r->ring);
    free(r->rows);
    *r = (resampler){0};
}

/* The triangle over an axis of `size` inputs. */
typedef struct {
    double step, reach; /* from output to output, from the middle to the ends */
    int32_t size;
} triangle;

static triangle triangle_of(int32_t size, int32_t outputs)
{
    const double step = (double)size / outputs;
    return (triangle){.step = step, .reach = step < 1 ? 1 : step, .size = size};
}

static double middle(const triangle *t, int32_t output)
{
    return (output + 0.5) * t->step;
}

static resample_span span_of(const triangle *t, int32_t output)
{
    const double at = middle(t, output);
    const int32_t first = larger((int32_t)(at - t->reach + 0.5), 0);
    return (resample_span){.first = first, .taps = smaller((int32_t)(at + t->reach + 0.5), t->size) - first};
}

static double height_at(const triangle *t, int32_t output, int32_t input)
{
    const double x = fabs((input - middle(t, output) + 0.5) * (1 / t->reach));
    return x < 1 ? 1 - x : 0;
}

static void set_weight(resample_weights *groups, int32_t tap, double weight)
{
    const int32_t whole = (int32_t)(0.5 + weight * (1 << RESAMPLE_BITS));
    resample_weights *group = groups + tap / RESAMPLE_GROUP;
    group->low[tap % RESAMPLE_GROUP] = (int16_t)(whole & ((1 << RESAMPLE_LOW) - 1));
    group->high[tap % RESAMPLE_GROUP] = (int16_t)(whole >> RESAMPLE_LOW);
}

/* Divided by their sum, in the order of Pillow: the rounding is part of the result. */
static void set_weights(const triangle *t, int32_t output, resample_weights *groups)
{
    const resample_span span = span_of(t, output);
    double sum = 0;
    for (int32_t i = 0; i < span.taps; i++)
        sum += height_at(t, output, span.first + i);
    for (int32_t i = 0; i < span.taps; i++)
        set_weight(groups, i, height_at(t, output, span.first + i) / sum);
}

/* Spans of the outputs from `window` on; they count from the first one's begin. */
static int make_spans(resample_axis *axis, const triangle *t, int32_t window)
{
    const size_t bytes = (size_t)axis->outputs * sizeof *axis->spans;
    axis->spans = grown(axis->spans, &axis->spans_room, bytes);
    if (!axis->spans)
        return no_memory(bytes);
    axis->begin = span_of(t, window).first;
    for (int32_t i = 0; i < axis->outputs; i++) {
        const resample_span span = span_of(t, window + i);
        axis->spans[i] = (resample_span){.first = span.first - axis->begin, .taps = span.taps};
        axis->most_taps = larger(axis->most_taps, span.taps);
        axis->end = span.first + span.taps;
    }
    return 0;
}

static int make_weights(resample_axis *axis, const triangle *t, int32_t window)
{
    axis->groups = (axis->most_taps + RESAMPLE_GROUP - 1) / RESAMPLE_GROUP;
    const size_t bytes = (size_t)axis->outputs * (size_t)axis->groups * sizeof *axis->weights;
    axis->weights = grown(axis->weights, &axis->weights_room, bytes);
    if (!axis->weights)
        return no_memory(bytes);
    memset(axis->weights, 0, bytes);
    for (int32_t i = 0; i < axis->outputs; i++)
        set_weights(t, window + i, axis->weights + (size_t)i * (size_t)axis->groups);
    return 0;
}

/* `outputs` of the `scaled` from `window` on, of an axis of `size` inputs. */
static int axis_make(resample_axis *axis, int32_t size, int32_t scaled, int32_t window, int32_t outputs)
{
    axis->outputs = outputs;
    axis->same = size == scaled;
    axis->begin = window;
    axis->end = window + outputs;
    axis->most_taps = 1;
    if (axis->same)
        return 0;
    const triangle t = triangle_of(size, scaled);
    TRY(make_spans(axis, &t, window));
    return make_weights(axis, &t, window);
}

static int ring_reserve(resampler *r)
{
    r->ring_rows = r->down.most_taps + RESAMPLE_ROWS;
    r->ring_bytes = (size_t)r->across.outputs * IMAGE_CHANNELS + RESAMPLE_BEYOND;
    const size_t bytes = (size_t)r->ring_rows * r->ring_bytes;
    r->ring = grown(r->ring, &r->ring_room, bytes);
    r->rows = grown(r->rows, &r->rows_room, ((size_t)r->down.most_taps + 1) * sizeof *r->rows);
    return r->ring && r->rows ? 0 : no_memory(bytes);
}

int resampler_begin(resampler *r, const resample_kernels *kernels, const image_view *view, uint8_t *pixels)
{
    const image_region *from = &view->region, *window = &view->window;
    r->kernels = kernels;
    r->pixels = pixels;
    r->received = r->made = 0;
    TRY(axis_make(&r->across, from->width, view->width, window->left, window->width));
    TRY(axis_make(&r->down, from->height, view->height, window->top, window->height));
    r->needed = (image_region){.top = from->top + r->down.begin,
                               .left = from->left + r->across.begin,
                               .height = r->down.end - r->down.begin,
                               .width = r->across.end - r->across.begin};
    return ring_reserve(r);
}

/* An output at the edge has fewer taps than the others and as many weights: those beyond its taps are 0, what they
 * multiply is read. */
static size_t beyond(const resample_axis *axis)
{
    return RESAMPLE_BEYOND + (axis->same ? 0 : (size_t)axis->groups * RESAMPLE_GROUP * RESAMPLE_PIXEL);
}

int resampler_reserve(resampler *r, int32_t width, uint8_t *rows[RESAMPLE_ROWS])
{
    r->input_bytes = (size_t)width * RESAMPLE_PIXEL + beyond(&r->across);
    r->input = grown(r->input, &r->input_room, RESAMPLE_ROWS * r->input_bytes);
    if (!r->input)
        return no_memory(RESAMPLE_ROWS * r->input_bytes);
    for (int i = 0; i < RESAMPLE_ROWS; i++) {
        rows[i] = r->input + (size_t)i * r->input_bytes;
        memset(rows[i] + (size_t)width * RESAMPLE_PIXEL, 0, beyond(&r->across));
    }
    return 0;
}

bool resampler_done(const resampler *r)
{
    return r->made == r->down.outputs;
}

static uint8_t *ring_row(const resampler *r, int32_t row)
{
    return r->ring + (size_t)(row % r->ring_rows) * r->ring_bytes;
}

/* A batch that is not full makes its last row again. */
static void take_rows(resampler *r, int32_t count, int32_t left)
{
    const uint8_t *in[RESAMPLE_ROWS];
    uint8_t *out[RESAMPLE_ROWS];
    for (int32_t i = 0; i < RESAMPLE_ROWS; i++) {
        const int32_t row = smaller(i, count - 1);
        in[i] = r->input + (size_t)row * r->input_bytes + (size_t)left * RESAMPLE_PIXEL;
        out[i] = ring_row(r, r->received + row);
    }
    if (!r->across.same)
        r->kernels->across(in, &r->across, out);
    for (int32_t i = 0; i < count && r->across.same; i++)
        r->kernels->pack(in[i], r->across.outputs, out[i]);
    r->received += count;
}

static void make_row(resampler *r, int32_t output)
{
    const resample_axis *axis = &r->down;
    const size_t bytes = (size_t)r->across.outputs * IMAGE_CHANNELS;
    uint8_t *out = r->pixels + (size_t)output * bytes;
    if (axis->same) {
        memcpy(out, ring_row(r, output), bytes);
        return;
    }
    const resample_span span = axis->spans[output];
    for (int32_t i = 0; i <= span.taps; i++)
        r->rows[i] = ring_row(r, span.first + smaller(i, span.taps - 1));
    r->kernels->down(r->rows, span.taps, axis->weights + (size_t)output * (size_t)axis->groups, (int32_t)bytes, out);
}

static int32_t rows_before(const resample_axis *axis, int32_t output)
{
    return axis->same ? output + 1 : axis->spans[output].first + axis->spans[output].taps;
}

void resampler_push(resampler *r, int32_t count, int32_t left)
{
    take_rows(r, count, left);
    while (!resampler_done(r) && rows_before(&r->down, r->made) <= r->received)
        make_row(r, r->made++);
}
