/* A ring of slots between threads that make batches and one caller that takes them. `opened` slots from `head` on are
 * laid out, oldest first; a slot's images are handed to the threads one by one, and it is the caller's once all are
 * done. Everything but the content of slots is touched under the mutex; an image's place in a slot belongs to the
 * thread that took it. Seek and close stop the threads first. */
#include "io/data/loader.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "io/data/augment.h"
#include "io/data/file_system.h"
#include "io/data/image_maker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SLOTS = 4, /* one in the caller's hands, three ahead */
    ALIGNMENT = 64,
    PATIENCE_SECONDS = 30,    /* without an image, before the file system is named */
    LEAST_IMAGES_AT_ONCE = 16 /* of a set in memory: less work than handing them out */
};

typedef struct {
    loader_slot images;
    int32_t taken, done; /* of images.batch.share.images */
    int status;
    error_copy failure; /* errors are kept per thread, so the text travels with the slot */
} ring_slot;

typedef struct {
    loader *l;
    image_maker *maker;
    pthread_t thread;
} worker;

struct loader {
    loader_options options;
    bad_images *bad;
    worker *workers;
    int32_t running; /* threads */

    int32_t *order; /* [images] of epoch `order_epoch` */
    int64_t order_epoch, next_epoch, next_index;

    pthread_mutex_t mutex;
    pthread_cond_t wanted, made; /* there is work to take; an image is done */
    ring_slot slots[SLOTS];
    int32_t head, opened;
    bool held, stop, failed; /* held: the caller still uses the slot at `head` */
    int64_t images_made;
    double waited;
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

/* ---- opening ---- */

static bool allocate_slot(loader_slot *slot, const loader_options *o, size_t share)
{
    const size_t bytes = (share * loader_image_bytes(o, o->height, o->width) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    slot->labels = malloc(share * sizeof *slot->labels);
    slot->index = malloc(share * sizeof *slot->index);
    if (bytes > 0)
        slot->pixels = o->memory.alloc(o->memory.context, bytes);
    if (o->content != LOADER_REAL)
        slot->choices = malloc(share * AUGMENT_CHOICE * sizeof *slot->choices);
    return slot->labels && slot->index && (slot->pixels || bytes == 0) && (slot->choices || o->content == LOADER_REAL);
}

static void free_slot(loader_slot *slot, const loader_memory *memory)
{
    if (slot->pixels)
        memory->free(memory->context, slot->pixels);
    free(slot->choices);
    free(slot->labels);
    free(slot->index);
}

static int open_workers(loader *l)
{
    l->workers = calloc((size_t)l->options.threads, sizeof *l->workers);
    CHECK(l->workers, ERROR_MEMORY, "no memory for %d threads of a loader", l->options.threads);
    for (int32_t i = 0; i < l->options.threads; i++) {
        l->workers[i].l = l;
        TRY(image_maker_open(&l->workers[i].maker, &l->options, l->bad));
    }
    return 0;
}

static int allocate(loader *l)
{
    const loader_options *o = &l->options;
    const size_t share = (size_t)batch_plan_largest_share(&o->plan);
    l->order = malloc((size_t)o->set->images * sizeof *l->order);
    bool got = l->order != NULL;
    for (int i = 0; i < SLOTS; i++)
        got = allocate_slot(&l->slots[i].images, o, share) && got;
    CHECK(got, ERROR_MEMORY, "no memory for %d batches of %zu images of %d x %d", SLOTS, share, o->height, o->width);
    TRY(bad_images_open(
        &l->bad,
        &(bad_images_options){.set = o->set, .substitutes = o->substitutes, .limit = o->bad_limit, .log = o->log}));
    return open_workers(l);
}

static int check_options(const loader_options *o)
{
    const image_set *set = o->set;
    CHECK(o->plan.options.images == set->images, ERROR_INTERNAL, "a plan of %lld images for a data set of %d",
          (long long)o->plan.options.images, set->images);
    CHECK(set->height == SIZE_VARIES || (o->height == set->height && o->width == set->width), ERROR_INTERNAL,
          "batches of %dx%d of a data set of %dx%d", o->width, o->height, set->width, set->height);
    CHECK(set->pixels || o->content != LOADER_CHOICES, ERROR_INTERNAL, "nobody holds the images of the data set");
    CHECK(o->threads >= 1, ERROR_INTERNAL, "a loader with %d threads", o->threads);
    return 0;
}

/* Waits go by the clock that nobody sets. */
static void open_conditions(loader *l)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&l->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wanted, NULL);
    pthread_cond_init(&l->made, &attributes);
    pthread_condattr_destroy(&attributes);
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
    open_conditions(l);
    int status = allocate(l);
    if (status < 0)
        loader_close(&l);
    *made = l;
    return status;
}

/* ---- making batches ---- */

static void order_epoch(loader *l, int64_t epoch)
{
    const loader_options *o = &l->options;
    if (l->order_epoch != epoch)
        image_order_fill(&o->order, o->set, o->seed, epoch, l->order);
    l->order_epoch = epoch;
}

/* Lays out the batch at the cursor in the next slot and moves the cursor on. */
static void open_slot(loader *l)
{
    const loader_options *o = &l->options;
    ring_slot *slot = &l->slots[(l->head + l->opened++) % SLOTS];
    const bool varies = o->sizes.last > 0;
    const int32_t size = varies ? image_sizes_at(&o->sizes, l->next_epoch) : 0;
    order_epoch(l, l->next_epoch);
    slot->taken = slot->done = slot->status = 0;
    slot->images.batch = (loader_batch){.pixels = slot->images.pixels,
                                        .choices = slot->images.choices,
                                        .labels = slot->images.labels,
                                        .share = batch_plan_at(&o->plan, l->next_index),
                                        .epoch = l->next_epoch,
                                        .index = l->next_index,
                                        .height = varies ? size : o->height,
                                        .width = varies ? size : o->width};
    const micro_batch *share = &slot->images.batch.share;
    memcpy(slot->images.index, l->order + share->position, (size_t)share->images * sizeof *slot->images.index);
    if (++l->next_index == o->plan.micro_batches) {
        l->next_index = 0;
        l->next_epoch++;
    }
}

/* The oldest slot with images that no thread has taken; a new one where there is room. NULL: nothing to do. */
static ring_slot *find_work(loader *l)
{
    for (int32_t i = 0;; i++) {
        if (i == l->opened) {
            if (l->opened == SLOTS || l->failed)
                return NULL;
            open_slot(l);
            pthread_cond_broadcast(&l->wanted);
            pthread_cond_signal(&l->made); /* a rank may have no image of a batch */
        }
        ring_slot *slot = &l->slots[(l->head + i) % SLOTS];
        if (slot->taken < slot->images.batch.share.images)
            return slot;
    }
}

static int32_t take_images(const loader *l, ring_slot *slot, int32_t *first)
{
    const int32_t left = slot->images.batch.share.images - slot->taken;
    int32_t count = 1;
    if (l->options.set->pixels)
        count = slot->images.batch.share.images / l->options.threads;
    if (l->options.set->pixels && count < LEAST_IMAGES_AT_ONCE)
        count = LEAST_IMAGES_AT_ONCE;
    *first = slot->taken;
    count = count < left ? count : left;
    slot->taken += count;
    return count;
}

/* A failure ends the stream at its slot. */
static void note_done(loader *l, ring_slot *slot, int32_t count, int status)
{
    slot->done += count;
    l->images_made += count;
    if (status < 0 && slot->status == 0) {
        slot->status = status;
        slot->failure = error_save();
        l->failed = true;
    }
    pthread_cond_signal(&l->made);
}

static void *run_ahead(void *context)
{
    worker *w = context;
    loader *l = w->l;
    pthread_mutex_lock(&l->mutex);
    while (!l->stop) {
        ring_slot *slot = find_work(l);
        if (!slot) {
            pthread_cond_wait(&l->wanted, &l->mutex);
            continue;
        }
        int32_t first, count = take_images(l, slot, &first);
        pthread_mutex_unlock(&l->mutex);
        int status = image_maker_fill(w->maker, &slot->images, first, count);
        pthread_mutex_lock(&l->mutex);
        note_done(l, slot, count, status);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static void stop_threads(loader *l)
{
    pthread_mutex_lock(&l->mutex);
    l->stop = true;
    pthread_cond_broadcast(&l->wanted);
    pthread_mutex_unlock(&l->mutex);
    for (; l->running > 0; l->running--)
        pthread_join(l->workers[l->running - 1].thread, NULL);
    l->stop = false;
}

static int start_threads(loader *l)
{
    while (l->running < l->options.threads) {
        worker *w = &l->workers[l->running];
        const int failure = thread_start(&w->thread, run_ahead, w);
        CHECK(failure == 0, ERROR_MEMORY, "cannot start a thread of the loader: %s", strerror(failure));
        l->running++;
    }
    return 0;
}

int loader_seek(loader *l, int64_t epoch, int64_t index)
{
    const int64_t most = l->options.plan.micro_batches;
    CHECK(epoch >= 0 && epoch < INT32_MAX && index >= 0 && index <= most, ERROR_INTERNAL,
          "the loader cannot go to epoch %lld, micro-batch %lld of %lld", (long long)epoch, (long long)index,
          (long long)most);
    stop_threads(l);
    l->next_epoch = index == most ? epoch + 1 : epoch;
    l->next_index = index == most ? 0 : index;
    l->head = l->opened = 0;
    l->held = l->failed = false;
    return start_threads(l);
}

/* ---- taking them ---- */

static bool is_ready(const loader *l)
{
    const ring_slot *slot = &l->slots[l->head];
    return l->opened > 0 && (slot->status < 0 || slot->done == slot->images.batch.share.images);
}

/* An image that some thread has been reading, or -1. */
static int32_t image_being_read(const loader *l)
{
    for (int32_t i = 0; i < l->running; i++)
        if (image_maker_at(l->workers[i].maker) >= 0)
            return image_maker_at(l->workers[i].maker);
    return -1;
}

static void say_stalled(const loader *l)
{
    const loader_options *o = &l->options;
    const int32_t index = image_being_read(l);
    if (o->log && index >= 0)
        log_warning(o->log, "no image has come for %d seconds; image %d is being read from %s (%s)", PATIENCE_SECONDS,
                    index, o->path ? o->path : "its file", o->path ? file_system_name(o->path) : "file system");
}

static void await_batch(loader *l)
{
    const double start = clock_seconds();
    int64_t before = l->images_made;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_SECONDS;
    while (!is_ready(l)) {
        const int error = pthread_cond_timedwait(&l->made, &l->mutex, &until);
        if (error != ETIMEDOUT && l->images_made == before)
            continue;
        if (error == ETIMEDOUT && l->images_made == before)
            say_stalled(l);
        before = l->images_made;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += PATIENCE_SECONDS;
    }
    l->waited += clock_seconds() - start;
}

static void give_back(loader *l)
{
    if (!l->held)
        return;
    l->head = (l->head + 1) % SLOTS;
    l->opened--;
    l->held = false;
    pthread_cond_broadcast(&l->wanted);
}

int loader_next(loader *l, loader_batch *batch)
{
    if (l->running == 0)
        TRY(loader_seek(l, l->next_epoch, l->next_index));
    pthread_mutex_lock(&l->mutex);
    give_back(l);
    await_batch(l);
    const ring_slot *slot = &l->slots[l->head];
    l->held = slot->status == 0;
    *batch = slot->images.batch;
    pthread_mutex_unlock(&l->mutex);
    if (slot->status < 0)
        error_restore(&slot->failure);
    return slot->status;
}

loader_report loader_describe(loader *l)
{
    pthread_mutex_lock(&l->mutex);
    const double waited = l->waited;
    pthread_mutex_unlock(&l->mutex);
    return (loader_report){.waited = waited, .bad_images = bad_images_count(l->bad)};
}

void loader_close(loader **made)
{
    loader *l = *made;
    if (!l)
        return;
    stop_threads(l);
    pthread_cond_destroy(&l->wanted);
    pthread_cond_destroy(&l->made);
    pthread_mutex_destroy(&l->mutex);
    for (int i = 0; i < SLOTS; i++)
        free_slot(&l->slots[i].images, &l->options.memory);
    for (int32_t i = 0; l->workers && i < l->options.threads; i++)
        image_maker_close(&l->workers[i].maker);
    free(l->workers);
    bad_images_close(&l->bad);
    free(l->order);
    free(l);
    *made = NULL;
}
