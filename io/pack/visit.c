/* Owns the threads of a visit, each with a decoder and memory for one image. They share the number of the next image
 * and the counts. The caller's thread shows the progress and waits for them. */
#include "io/pack/visit.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "io/pack/input.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAMED = 20 };

typedef struct {
    const shard_set *set;
    const visit_options *options;
    int split;
    _Atomic int64_t next, done, failed;
    _Atomic uint64_t bytes;
    atomic_int running;
    atomic_bool stopped;
    pthread_mutex_t mutex; /* of the two below */
    int status;            /* what ended the visit */
    error_copy message;
} visit;

typedef struct {
    visit *v;
    pthread_t thread;
    image_decoder *decoder;
    byte_buffer buffer;
} visitor;

static int look_at(visitor *w, int64_t index)
{
    const visit *v = w->v;
    const visit_options *o = v->options;
    const visited_image image = {.set = v->set,
                                 .split = v->split,
                                 .index = index,
                                 .image = shard_set_image(v->set, index),
                                 .bytes = w->buffer.bytes,
                                 .decoder = w->decoder};
    TRY(shard_set_read(v->set, index, w->buffer.bytes));
    return o->visit ? o->visit(o->context, &image) : 0;
}

static void end_all(visit *v, int status)
{
    pthread_mutex_lock(&v->mutex);
    if (v->status == 0) {
        v->status = status;
        v->message = error_save();
    }
    v->stopped = true;
    pthread_mutex_unlock(&v->mutex);
}

/* Goes on, unless nothing else would come out any better. */
static void note_failure(visit *v, int64_t index, int status)
{
    char name[SHARD_NAME_BYTES];
    const error_copy reason = error_save();
    if (v->options->stops || (status != ERROR_DATA && status != ERROR_FILE)) {
        end_all(v, status);
        return;
    }
    if (v->failed++ >= MOST_NAMED)
        return;
    if (shard_set_name(v->set, index, name) < 0)
        snprintf(name, sizeof name, "image %" PRId64, index);
    log_error(v->options->log, "%s: %s", name, reason.text);
}

static int visit_one(visitor *w, int64_t index)
{
    visit *v = w->v;
    const uint32_t size = shard_set_image(v->set, index)->size;
    TRY(byte_buffer_reserve(&w->buffer, size));
    int status = look_at(w, index);
    if (status < 0)
        note_failure(v, index, status);
    v->bytes += size;
    v->done++;
    return 0;
}

static void *run(void *context)
{
    visitor *w = context;
    visit *v = w->v;
    int status = image_decoder_open(&w->decoder);
    while (status == 0 && !v->stopped) {
        const int64_t index = v->next++;
        if (index >= shard_set_images(v->set))
            break;
        status = visit_one(w, index);
    }
    if (status < 0)
        end_all(v, status);
    v->running--;
    return NULL;
}

static void show_progress(const visit *v, double start)
{
    const double seconds = clock_seconds() - start, rate = seconds > 0 ? (double)v->done / seconds : 0;
    const int64_t all = shard_set_images(v->set);
    log_live(v->options->log, "%s split %s: %" PRId64 " of %" PRId64 " images, %.0f images/s, %.0f s left",
             v->options->doing, v->split ? "val" : "train", (int64_t)v->done, all, rate,
             rate > 0 ? (double)(all - v->done) / rate : 0);
}

static int start(visit *v, visitor *workers, int *started)
{
    for (*started = 0; *started < v->options->threads; ++*started) {
        visitor *w = &workers[*started];
        w->v = v;
        v->running++;
        const int failure = thread_start(&w->thread, run, w);
        if (failure != 0) {
            v->running--;
            return error_set(ERROR_MEMORY, "cannot start a thread: %s", strerror(failure));
        }
    }
    return 0;
}

static void await(visit *v, visitor *workers, int started)
{
    enum { PAUSE_US = 50000 };
    const double begin = clock_seconds();
    while (v->running > 0) {
        clock_sleep_us(v->done < 1000 ? PAUSE_US / 50 : PAUSE_US);
        show_progress(v, begin);
    }
    for (int i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        image_decoder_close(&workers[i].decoder);
        free(workers[i].buffer.bytes);
    }
}

int visit_split(const shard_set *set, int split, const visit_options *options, visit_report *report)
{
    visit v = {.set = set, .options = options, .split = split};
    visitor *workers = calloc((size_t)options->threads, sizeof *workers);
    int started;
    CHECK(workers, ERROR_MEMORY, "no memory for %d threads", options->threads);
    pthread_mutex_init(&v.mutex, NULL);
    int status = start(&v, workers, &started);
    if (status < 0)
        end_all(&v, status);
    await(&v, workers, started);
    pthread_mutex_destroy(&v.mutex);
    free(workers);
    report->images += v.done;
    report->failed += v.failed;
    report->bytes += v.bytes;
    if (v.status < 0)
        error_restore(&v.message);
    return v.status;
}

int visit_decode(void *unused, const visited_image *image)
{
    image_info info;
    (void)unused;
    TRY(image_probe(image->decoder, image->bytes, image->image->size, &info));
    CHECK(info.height == image->image->height && info.width == image->image->width, ERROR_DATA,
          "%dx%d pixels, the shard says %dx%d", info.width, info.height, image->image->width, image->image->height);
    const image_view whole = image_whole(&info);
    uint8_t *pixels = malloc((size_t)info.height * (size_t)info.width * IMAGE_CHANNELS);
    CHECK(pixels, ERROR_MEMORY, "no memory for an image of %dx%d", info.width, info.height);
    int status = image_decode(image->decoder, image->bytes, image->image->size, &whole, pixels);
    free(pixels);
    return status;
}
