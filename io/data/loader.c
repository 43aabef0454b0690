/* A ring of slots between one thread that makes batches and one caller that takes them. `ready` slots from `head` on
 * are the caller's, the others the thread's; a slot's content is touched only by its owner, everything else under the
 * mutex. The thread alone uses `order` and the cursor; seek and close stop it first. */
#include "io/data/loader.h"

#include "base/error.h"
#include "base/rng.h"
#include "base/thread.h"
#include "io/data/augment.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4, ALIGNMENT = 64 }; /* one slot in the caller's hands, three ahead */

typedef struct {
    void *pixels;
    int32_t *choices, *labels;
    loader_batch batch;
    int status;
    error_copy failure; /* errors are kept per thread, so the text travels with the slot */
} loader_slot;

struct loader {
    loader_options options;

    image_reader
        *reader; /* of a set that does not hold its images; with the memory for one that is not normalised yet */
    uint8_t *bytes;

    int32_t *order; /* [images] of epoch `order_epoch` */
    int64_t order_epoch, next_epoch, next_index;

    pthread_t thread;
    bool running;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    loader_slot slots[SLOTS];
    int32_t head, ready;
    bool held, stop; /* held: the caller still uses the slot at `head` */
};

static void *own_alloc(void *context, size_t bytes)
{
    (void)context;
    return aligned_alloc(ALIGNMENT, bytes);
}

static void own_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static size_t batch_image_bytes(const loader_options *o)
{
    return (size_t)o->height * (size_t)o->width * IMAGE_CHANNELS;
}

/* Of one image in a slot. */
static size_t slot_image_bytes(const loader_options *o)
{
    switch (o->content) {
    case LOADER_REAL:
        return batch_image_bytes(o) * dtype_bytes(o->real);
    case LOADER_BYTES:
        return batch_image_bytes(o);
    default:
        return 0;
    }
}

static bool allocate_slot(loader_slot *slot, const loader_options *o, size_t share)
{
    size_t bytes = (share * slot_image_bytes(o) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    slot->labels = malloc(share * sizeof *slot->labels);
    if (bytes > 0)
        slot->pixels = o->memory.alloc(o->memory.context, bytes);
    if (o->content != LOADER_REAL)
        slot->choices = malloc(share * AUGMENT_CHOICE * sizeof *slot->choices);
    return slot->labels && (slot->pixels || bytes == 0) && (slot->choices || o->content == LOADER_REAL);
}

static void free_slot(loader_slot *slot, const loader_memory *memory)
{
    if (slot->pixels)
        memory->free(memory->context, slot->pixels);
    free(slot->choices);
    free(slot->labels);
}

static int allocate(loader *l)
{
    const loader_options *o = &l->options;
    const image_set *set = o->set;
    const size_t share = (size_t)batch_plan_largest_share(&o->plan);
    l->order = malloc((size_t)set->images * sizeof *l->order);
    bool got = l->order != NULL;
    for (int i = 0; i < SLOTS; i++)
        got = allocate_slot(&l->slots[i], o, share) && got;
    if (!set->pixels)
        got = (l->bytes = malloc(batch_image_bytes(o))) != NULL && got;
    CHECK(got, ERROR_MEMORY, "no memory for %d batches of %zu images of %d x %d", SLOTS, share, o->height, o->width);
    return set->pixels ? 0 : set->ops->reader_open(&l->reader, set);
}

static int check_options(const loader_options *o)
{
    const image_set *set = o->set;
    CHECK(o->plan.options.images == set->images, ERROR_INTERNAL, "a plan of %lld images for a data set of %d",
          (long long)o->plan.options.images, set->images);
    CHECK(set->height == SIZE_VARIES || (o->height == set->height && o->width == set->width), ERROR_INTERNAL,
          "batches of %dx%d of a data set of %dx%d", o->width, o->height, set->width, set->height);
    CHECK(set->pixels || o->content != LOADER_CHOICES, ERROR_INTERNAL, "nobody holds the images of the data set");
    return 0;
}

int loader_open(loader **made, const loader_options *options)
{
    *made = NULL;
    TRY(check_options(options));
    loader *l = calloc(1, sizeof *l);
    CHECK(l, ERROR_MEMORY, "no memory for a loader");
    l->options = *options;
    if (!options->memory.alloc)
        l->options.memory = (loader_memory){own_alloc, own_free, NULL};
    l->order_epoch = -1;
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    int status = allocate(l);
    if (status < 0)
        loader_close(&l);
    *made = l;
    return status;
}

static void order_epoch(loader *l, int64_t epoch)
{
    if (l->order_epoch == epoch)
        return;
    const int32_t images = l->options.set->images;
    if (l->options.shuffle)
        rng_permutation(l->options.seed, (uint64_t)epoch, images, l->order);
    else
        for (int32_t i = 0; i < images; i++)
            l->order[i] = i;
    l->order_epoch = epoch;
}

/* Copies the chosen images into the slot, where they are numbered from 0 on. */
static void copy_images(const image_set *set, loader_slot *slot, int32_t count)
{
    const size_t bytes = image_bytes(set);
    for (int32_t k = 0; k < count; k++) {
        int32_t *image = slot->choices + (size_t)k * AUGMENT_CHOICE;
        memcpy((char *)slot->pixels + (size_t)k * bytes, set->pixels + (size_t)*image * bytes, bytes);
        *image = k;
    }
}

/* The whole image, scaled, at its place in the slot or, where it is to be normalised, in memory of the loader. */
static int read_image(loader *l, int32_t index, uint8_t *pixels)
{
    const loader_options *o = &l->options;
    const image_set_ops *ops = o->set->ops;
    image_region whole = {0};
    TRY(ops->load(l->reader, index, &whole.height, &whole.width));
    return ops->render(l->reader, &whole, o->height, o->width, pixels);
}

/* Images that are read one at a time are scaled and turned, not cropped. */
static int read_images(loader *l, loader_slot *slot, const augment_key *augment, const int32_t *order)
{
    const loader_options *o = &l->options;
    const micro_batch *place = &slot->batch.place;
    for (int32_t k = 0; k < place->images; k++) {
        const bool flip = augment && augment_choose(*augment, place->position + k).flip;
        uint8_t *at = (uint8_t *)slot->pixels + (size_t)k * slot_image_bytes(o);
        slot->labels[k] = o->set->labels[order[k]];
        TRY(read_image(l, order[k], o->content == LOADER_REAL ? l->bytes : at));
        if (o->content == LOADER_REAL)
            augment_normalise(o->set, l->bytes, o->height, o->width, flip, o->real, at);
        else
            memcpy(slot->choices + (size_t)k * AUGMENT_CHOICE, (int32_t[]){k, AUGMENT_PADDING, AUGMENT_PADDING, flip},
                   AUGMENT_CHOICE * sizeof *slot->choices);
    }
    return 0;
}

static int fill_slot(loader *l, loader_slot *slot, const int32_t *order)
{
    const loader_options *o = &l->options;
    const loader_batch *batch = &slot->batch;
    const micro_batch *place = &batch->place;
    const augment_key key = {o->seed, (int32_t)batch->epoch}, *augment = o->augment ? &key : NULL;
    if (!o->set->pixels)
        return read_images(l, slot, augment, order);
    if (o->content == LOADER_REAL)
        return augment_batch(o->set, augment, order, place->position, place->images, o->real, slot->pixels,
                             slot->labels);
    TRY(augment_choices(o->set, augment, order, place->position, place->images, slot->choices, slot->labels));
    if (o->content == LOADER_BYTES)
        copy_images(o->set, slot, place->images);
    return 0;
}

/* Makes the batch at the cursor and moves the cursor on. */
static int make_batch(loader *l, loader_slot *slot)
{
    const loader_options *o = &l->options;
    order_epoch(l, l->next_epoch);
    slot->batch = (loader_batch){.pixels = slot->pixels,
                                 .choices = slot->choices,
                                 .labels = slot->labels,
                                 .place = batch_plan_at(&o->plan, l->next_index),
                                 .epoch = l->next_epoch,
                                 .index = l->next_index};
    if (++l->next_index == o->plan.micro_batches) {
        l->next_index = 0;
        l->next_epoch++;
    }
    return fill_slot(l, slot, l->order + slot->batch.place.position);
}

static void *run_ahead(void *context)
{
    loader *l = context;
    pthread_mutex_lock(&l->mutex);
    int status = 0;
    while (status == 0) {
        while (!l->stop && l->ready == SLOTS)
            pthread_cond_wait(&l->changed, &l->mutex);
        if (l->stop)
            break;
        loader_slot *slot = &l->slots[(l->head + l->ready) % SLOTS];
        pthread_mutex_unlock(&l->mutex);
        status = slot->status = make_batch(l, slot);
        if (status < 0)
            slot->failure = error_save();
        pthread_mutex_lock(&l->mutex);
        l->ready++;
        pthread_cond_signal(&l->changed);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static void stop_thread(loader *l)
{
    if (!l->running)
        return;
    pthread_mutex_lock(&l->mutex);
    l->stop = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
    pthread_join(l->thread, NULL);
    l->running = l->stop = false;
}

int loader_seek(loader *l, int64_t epoch, int64_t index)
{
    const int64_t most = l->options.plan.micro_batches;
    CHECK(epoch >= 0 && epoch < INT32_MAX && index >= 0 && index <= most, ERROR_INTERNAL,
          "the loader cannot go to epoch %lld, micro-batch %lld of %lld", (long long)epoch, (long long)index,
          (long long)most);
    stop_thread(l);
    l->next_epoch = index == most ? epoch + 1 : epoch;
    l->next_index = index == most ? 0 : index;
    l->head = l->ready = 0;
    l->held = false;
    int failure = thread_start(&l->thread, run_ahead, l);
    CHECK(failure == 0, ERROR_MEMORY, "cannot start the loader's thread: %s", strerror(failure));
    l->running = true;
    return 0;
}

int loader_next(loader *l, loader_batch *batch)
{
    if (!l->running)
        TRY(loader_seek(l, l->next_epoch, l->next_index));
    pthread_mutex_lock(&l->mutex);
    if (l->held) {
        l->head = (l->head + 1) % SLOTS;
        l->ready--;
        l->held = false;
        pthread_cond_signal(&l->changed);
    }
    while (l->ready == 0)
        pthread_cond_wait(&l->changed, &l->mutex);
    const loader_slot *slot = &l->slots[l->head];
    l->held = slot->status == 0;
    pthread_mutex_unlock(&l->mutex);
    if (slot->status < 0) {
        error_restore(&slot->failure);
        return slot->status;
    }
    *batch = slot->batch;
    return 0;
}

void loader_close(loader **l)
{
    if (!*l)
        return;
    stop_thread(*l);
    pthread_cond_destroy(&(*l)->changed);
    pthread_mutex_destroy(&(*l)->mutex);
    for (int i = 0; i < SLOTS; i++)
        free_slot(&(*l)->slots[i], &(*l)->options.memory);
    if ((*l)->reader)
        (*l)->options.set->ops->reader_close((*l)->reader);
    free((*l)->bytes);
    free((*l)->order);
    free(*l);
    *l = NULL;
}
