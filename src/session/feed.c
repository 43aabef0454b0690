/* Owns the loader of a set, copies of the batch's labels and choices, and the memory that bytes pass through. That is
 * the loader's slots, pinned, and two pieces of the device's, one lane of uploads each. While one piece goes into a
 * program's input (whose place is fixed, since the program may be captured), the next batch comes into the other.
 * Invariant: with uploads, the loader's current batch is the one on its way; `now` is the one before it. One thread. */
#include "session/feed.h"
#include "base/error.h"
#include "io/data/augment.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = UPLOAD_LANES / 2 }; /* of one feed; a trainer has two */

struct feed {
    session *e;
    const image_set *set;
    step_input input;
    bool training, ahead; /* ahead: `next` is on its way */
    loader *batches;
    loader_batch now, next; /* of `now` nothing but the pixels is the loader's */
    program *step;
    int32_t *labels, *choices; /* of `now` */
    void *staged[LANES];
    int lane; /* of staged[]: where `next` goes, or went */
};

/* ---- opening ---- */

/* Of one image of so many pixels in height and width. */
static size_t input_bytes(int32_t size)
{
    return (size_t)size * (size_t)size * IMAGE_CHANNELS;
}

/* Of the largest images. */
static int32_t largest_size(const feed *f)
{
    return f->training ? f->e->images.sizes.last : f->e->images.eval_size;
}

static bool uploads(const feed *f)
{
    return f->input.kind == INPUT_BYTES && f->e->device->ops->upload;
}

static void *alloc_pinned(void *context, size_t bytes)
{
    backend *device = context;
    return device->ops->alloc_pinned(device, bytes);
}

static void free_pinned(void *context, void *memory)
{
    backend *device = context;
    device->ops->free_pinned(device, memory);
}

static const batch_plan *plan_of(const feed *f)
{
    return f->training ? &f->e->train_plan : &f->e->test_plan;
}

static image_order order_of(const feed *f)
{
    const settings *c = &f->e->config;
    if (!f->training)
        return (image_order){.kind = IMAGE_ORDER_SET};
    return (image_order){.kind = c->data.order == ORDER_BLOCK ? IMAGE_ORDER_BLOCK : IMAGE_ORDER_GLOBAL,
                         .block = (int32_t)c->data.block_images,
                         .window = (int32_t)c->data.window_blocks};
}

static int open_loader(feed *f)
{
    static const loader_content contents[] = {
        [INPUT_REAL] = LOADER_REAL, [INPUT_BYTES] = LOADER_BYTES, [INPUT_RESIDENT] = LOADER_CHOICES};
    const session *e = f->e;
    const settings *c = &e->config;
    const int32_t size = largest_size(f);
    loader_options options = {.set = f->set,
                              .height = size,
                              .width = size,
                              .plan = *plan_of(f),
                              .seed = (uint64_t)c->train.seed,
                              .order = order_of(f),
                              .augment = f->training && c->data.augment,
                              .crop = {.scale = {c->data.crop_scale.value[0], c->data.crop_scale.value[1]},
                                       .ratio = {c->data.crop_ratio.value[0], c->data.crop_ratio.value[1]}},
                              .resize = e->images.resize_size,
                              .content = contents[f->input.kind],
                              .real = f->e->device->ops->real,
                              .threads = e->loader_threads,
                              .substitutes = c->data.on_bad == BAD_SUBSTITUTE,
                              .bad_limit = c->data.bad_limit,
                              .path = e->data_path,
                              .log = e->log};
    if (f->training && e->images.source->side == SIZE_VARIES)
        options.sizes = e->images.sizes;
    if (uploads(f))
        options.memory = (loader_memory){alloc_pinned, free_pinned, e->device};
    return loader_open(&f->batches, &options);
}

static int allocate(feed *f)
{
    backend *device = f->e->device;
    size_t share = (size_t)batch_plan_largest_share(plan_of(f)), bytes = share * input_bytes(largest_size(f));
    f->labels = malloc(share * sizeof *f->labels);
    f->choices = malloc(share * AUGMENT_CHOICE * sizeof *f->choices);
    CHECK(f->labels && f->choices, ERROR_MEMORY, "no memory for the labels of %zu images", share);
    for (int i = 0; i < LANES && uploads(f); i++) {
        f->staged[i] = device->ops->alloc(device, bytes);
        CHECK(f->staged[i], ERROR_MEMORY, "the device has no memory left for %zu images on their way (%.0f MiB)", share,
              (double)bytes / 0x1p20);
    }
    return 0;
}

static int write_state(const feed *f, const char *suffix, const void *values)
{
    char name[GRAPH_NAME_BYTES];
    backend *device = f->e->device;
    snprintf(name, sizeof name, "%s%s", f->input.set, suffix);
    const store_entry *entry = store_find(&f->e->tensors, name);
    CHECK(entry, ERROR_INTERNAL, "%s is not in the store", name);
    return device->ops->write(device, entry->memory, values, tensor_bytes(&entry->desc));
}

static int write_set(const feed *f)
{
    double table[256 * IMAGE_CHANNELS]; /* or as many floats */
    if (f->input.kind == INPUT_REAL)
        return 0;
    augment_table(f->set, f->e->device->ops->real, table);
    TRY(write_state(f, "/table", table));
    return f->input.kind == INPUT_RESIDENT ? write_state(f, "", f->set->pixels) : 0;
}

static int open_all(feed *f)
{
    TRY(open_loader(f));
    TRY(allocate(f));
    return write_set(f);
}

int feed_open(feed **made, session *e, bool training)
{
    feed *f = calloc(1, sizeof *f);
    *made = f;
    if (f)
        *f = (feed){.e = e,
                    .training = training,
                    .set = training ? &e->train_set : &e->test_set,
                    .input = training ? e->train_input : e->test_input};
    int status = comm_agree(e->ranks, f ? open_all(f) : error_set(ERROR_MEMORY, "no memory to feed a data set"));
    if (status < 0)
        feed_close(made);
    return status;
}

/* The device's memory goes first: freeing it waits for the copies from the loader's. */
void feed_close(feed **made)
{
    feed *f = *made;
    *made = NULL;
    if (!f)
        return;
    for (int i = 0; i < LANES; i++)
        if (f->staged[i])
            f->e->device->ops->free(f->e->device, f->staged[i]);
    loader_close(&f->batches);
    free(f->labels);
    free(f->choices);
    free(f);
}

/* ---- bytes on their way ---- */

/* The backend's number of a lane of this feed. */
static int upload_lane(const feed *f, int lane)
{
    return f->training ? lane : LANES + lane;
}

static int is_uploaded(void *context, bool *done)
{
    const feed *f = context;
    backend *device = f->e->device;
    return device->ops->upload_done(device, upload_lane(f, f->lane), done);
}

/* The upload of `next`. */
static int await_upload(feed *f)
{
    return runtime_await(&f->e->run, is_uploaded, f);
}

/* Takes the next batch from the loader; its bytes begin to come. The loader may have given up the one before. */
static int fetch(feed *f)
{
    backend *device = f->e->device;
    TRY(loader_next(f->batches, &f->next));
    if (!uploads(f))
        return 0;
    f->ahead = true;
    f->lane = (f->lane + 1) % LANES;
    if (f->next.share.images == 0)
        return 0;
    return device->ops->upload(device, upload_lane(f, f->lane), f->staged[f->lane], f->next.pixels,
                               (size_t)f->next.share.images * input_bytes(f->next.height));
}

static int write_bytes(const feed *f)
{
    backend *device = f->e->device;
    runtime *run = &f->e->run;
    int lane = upload_lane(f, f->lane);
    const tensor_desc *desc;
    void *pixels = program_value(f->step, run, "pixels", &desc);
    if (!uploads(f))
        return program_write(f->step, run, "pixels", f->now.pixels, tensor_bytes(desc));
    TRY(device->ops->upload_use(device, lane));
    TRY(device->ops->copy(device, pixels, f->staged[f->lane], tensor_bytes(desc)));
    return device->ops->upload_release(device, lane);
}

/* ---- batches ---- */

int feed_seek(feed *f, int64_t epoch, int64_t index)
{
    if (f->ahead && f->next.epoch == epoch && f->next.index == index)
        return 0;
    if (f->ahead)
        TRY(await_upload(f));
    f->ahead = false;
    return loader_seek(f->batches, epoch, index);
}

static int write_choices(const feed *f)
{
    return program_write(f->step, &f->e->run, "choice", f->choices,
                         (size_t)f->now.share.images * AUGMENT_CHOICE * sizeof *f->choices);
}

static int write_images(const feed *f)
{
    size_t values = (size_t)f->now.share.images * input_bytes(f->now.height);
    return program_write(f->step, &f->e->run, "input", f->now.pixels, values * dtype_bytes(f->e->device->ops->real));
}

static int write_inputs(const feed *f)
{
    TRY(program_write(f->step, &f->e->run, "target", f->labels, (size_t)f->now.share.images * sizeof *f->labels));
    if (f->input.kind == INPUT_REAL)
        return write_images(f);
    if (f->input.kind == INPUT_BYTES)
        TRY(write_bytes(f));
    return write_choices(f);
}

static program *program_for(const feed *f, const loader_batch *batch)
{
    const session *e = f->e;
    if (!f->training)
        return e->evaluation[batch->share.kind];
    return e->training[image_sizes_index(&e->images.sizes, batch->epoch)][batch->share.kind];
}

/* `now` becomes the next batch. */
static int take(feed *f)
{
    if (!f->ahead)
        TRY(fetch(f));
    f->ahead = false;
    f->now = f->next;
    memcpy(f->labels, f->now.labels, (size_t)f->now.share.images * sizeof *f->labels);
    if (f->now.choices)
        memcpy(f->choices, f->now.choices, (size_t)f->now.share.images * AUGMENT_CHOICE * sizeof *f->choices);
    f->step = program_for(f, &f->now);
    return f->step ? write_inputs(f) : 0;
}

int feed_next(feed *f, feed_batch *batch)
{
    TRY(take(f));
    if (uploads(f)) {
        TRY(await_upload(f)); /* the loader takes the batch's memory back */
        TRY(fetch(f));
    }
    *batch = (feed_batch){f->step, f->now.share.images, f->now.share.position, f->labels};
    return 0;
}

int feed_image_text(const feed *f, int64_t epoch, int32_t position, char *text, size_t bytes)
{
    const image_order order = order_of(f);
    int32_t *images = malloc((size_t)f->set->images * sizeof *images);
    CHECK(images, ERROR_MEMORY, "no memory for the order of %d images", f->set->images);
    image_order_fill(&order, f->set, (uint64_t)f->e->config.train.seed, epoch, images);
    image_set_describe(f->set, images[position], text, bytes);
    free(images);
    return 0;
}

loader_report feed_describe(const feed *f)
{
    return loader_describe(f->batches);
}

/* ---- mirror images ---- */

static void mirror_row(char *row, int32_t width, size_t pixel)
{
    char kept[IMAGE_CHANNELS * sizeof(double)];
    for (int32_t k = 0; k < width / 2; k++) {
        char *left = row + (size_t)k * pixel, *right = row + (size_t)(width - 1 - k) * pixel;
        memcpy(kept, left, pixel);
        memcpy(left, right, pixel);
        memcpy(right, kept, pixel);
    }
}

int feed_mirror(feed *f)
{
    const loader_batch *batch = &f->now;
    const size_t pixel = IMAGE_CHANNELS * dtype_bytes(f->e->device->ops->real),
                 row_bytes = (size_t)batch->width * pixel;
    if (f->input.kind != INPUT_REAL) {
        for (int32_t n = 0; n < f->now.share.images; n++)
            f->choices[n * AUGMENT_CHOICE + AUGMENT_FLIP] ^= 1;
        return write_choices(f);
    }
    char *row = batch->pixels;
    for (int64_t i = 0; i < (int64_t)batch->share.images * batch->height; i++, row += row_bytes)
        mirror_row(row, batch->width, pixel);
    return write_images(f);
}
