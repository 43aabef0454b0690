/* Owns the timing of reading, decoding, cropping and the loader. Invariant: all measures take turns in short rounds, so
 * that what else the machine does meets each of them; each goes through the same images, which have been read before.
 * One thread, and those of the loader that is timed. */
#include "tools/data_bench.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/order.h"
#include "base/rng.h"
#include "io/data/loader.h"
#include "io/image/decode.h"
#include "session/configure.h"
#include "session/threads.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLE = 1024, /* images, few enough to stay in the host's memory */
    ROUNDS = 5,
    IMAGES_PER_THREAD = 8, /* of a batch */
    THREAD_COUNTS = 12,    /* 1, 2, 4 ... 1024, and one more */
    JSON_BYTES = 2048
};
static const double round_seconds = 0.4, busy_enough = 0.9;

/* What one thread does with an image after it has read it. */
typedef enum { WORK_READ, WORK_DECODE, WORK_VIEW, WORK_KINDS } work_kind;

/* Images a second in each round, sorted in the end. */
typedef struct {
    double rounds[ROUNDS];
} rates;

typedef struct {
    const settings *config;
    const data_bench_options *options;
    logger *log;
    image_set set;
    image_options images;
    image_reader *reader;
    uint8_t *pixels; /* of one image */
    size_t pixel_bytes;
    double cpu_seconds, seconds; /* of work but reading: what the thread got, and all */
    int64_t next[WORK_KINDS];    /* position of the image that is next */
    double height, width, bytes; /* of an image on average */
    int cores;
    int32_t threads[THREAD_COUNTS]; /* of the loader */
    int thread_counts;
    rates work[WORK_KINDS], loaders[THREAD_COUNTS];
} measurement;

/* ---- opening ---- */

static int check_source(const measurement *m)
{
    const settings *c = m->config;
    CHECK(m->images.source->side == SIZE_VARIES, ERROR_SETTINGS,
          "data.kind: there is nothing to decode in %s; teskd data bench takes shards and folders", c->data.kind);
    CHECK(c->data.path[0], ERROR_SETTINGS, "data.path: empty; it must be the folder that holds %s",
          m->images.source->wants);
    return 0;
}

static int open_set(measurement *m)
{
    const settings *c = m->config;
    const int64_t limit = c->data.train_images;
    step_options step = {0};
    TRY(configure(c, &m->images, &step));
    TRY(check_source(m));
    return source_open(&m->set, m->images.source,
                       &(source_request){.path = c->data.path,
                                         .split = SPLIT_TRAIN,
                                         .limit = limit > 0 && limit < SAMPLE ? (int32_t)limit : SAMPLE,
                                         .classes = step.model.classes,
                                         .seed = (uint64_t)c->train.seed});
}

/* Is a failure no reason to end? */
static bool passes_over(const measurement *m, int status)
{
    return (status == ERROR_FILE || status == ERROR_DATA) && m->config->data.on_bad == BAD_SUBSTITUTE;
}

/* Reads every image once, and takes the averages. */
static int read_all(measurement *m)
{
    int32_t read = 0;
    for (int32_t i = 0; i < m->set.images; i++) {
        int32_t height, width;
        const int status = m->set.ops->load(m->reader, i, &height, &width);
        if (status < 0 && !passes_over(m, status))
            return status;
        if (status < 0)
            continue;
        read++;
        m->height += height;
        m->width += width;
        m->bytes += (double)m->set.ops->stored_bytes(m->reader);
    }
    CHECK(read > 0, ERROR_DATA, "%s: none of %d images can be read", m->config->data.path, m->set.images);
    m->height /= read;
    m->width /= read;
    m->bytes /= read;
    return 0;
}

static void choose_threads(measurement *m)
{
    int usable;
    threads_usable(&usable, &m->cores);
    const int32_t most = m->config->data.threads > 0 ? (int32_t)m->config->data.threads : usable;
    for (int32_t threads = 1; threads < most && m->thread_counts < THREAD_COUNTS - 1; threads *= 2)
        m->threads[m->thread_counts++] = threads;
    m->threads[m->thread_counts++] = most;
}

static int open_all(measurement *m)
{
    TRY(open_set(m));
    TRY(m->set.ops->reader_open(&m->reader, &m->set));
    choose_threads(m);
    log_live(m->log, "reading %d images of %s", m->set.images, m->config->data.path);
    return read_all(m);
}

static void close_all(measurement *m)
{
    if (m->reader)
        m->set.ops->reader_close(m->reader);
    image_set_close(&m->set);
    free(m->pixels);
}

/* ---- one thread, step by step ---- */

static crop_range range_of(const settings *c)
{
    return (crop_range){.scale = {c->data.crop_scale.value[0], c->data.crop_scale.value[1]},
                        .ratio = {c->data.crop_ratio.value[0], c->data.crop_ratio.value[1]}};
}

/* What a training would see of the image at that position of its first epoch. */
static image_view random_view(const measurement *m, int64_t position, int32_t height, int32_t width)
{
    const crop_range range = range_of(m->config);
    const int32_t side = m->images.sizes.last;
    return (image_view){.region = crop_random(&range, height, width, (uint64_t)m->config->train.seed,
                                              rng_stream(RNG_CROP, 0), (uint32_t)position),
                        .height = side,
                        .width = side,
                        .window = {.height = side, .width = side}};
}

static int make_room(measurement *m, const image_view *view)
{
    const size_t bytes = (size_t)view->window.height * (size_t)view->window.width * IMAGE_CHANNELS;
    if (bytes <= m->pixel_bytes)
        return 0;
    free(m->pixels);
    m->pixels = malloc(bytes);
    m->pixel_bytes = m->pixels ? bytes : 0;
    CHECK(m->pixels, ERROR_MEMORY, "no memory for an image of %zu bytes", bytes);
    return 0;
}

static int take_image(measurement *m, work_kind k)
{
    int32_t height, width;
    const int64_t position = m->next[k]++;
    TRY(m->set.ops->load(m->reader, (int32_t)(position % m->set.images), &height, &width));
    if (k == WORK_READ)
        return 0;
    const image_view view = k == WORK_DECODE ? image_whole(&(image_info){.height = height, .width = width})
                                             : random_view(m, position, height, width);
    TRY(make_room(m, &view));
    return m->set.ops->render(m->reader, &view, m->pixels);
}

/* What this thread has had of the cores. */
static double cpu_seconds(void)
{
    struct timespec had;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &had);
    return (double)had.tv_sec + 1e-9 * (double)had.tv_nsec;
}

static int time_work(measurement *m, work_kind k, double *rate)
{
    const double cpu_begin = cpu_seconds();
    int64_t images = 0;
    const double begin = clock_seconds();
    double seconds = 0;
    while (seconds < round_seconds) {
        const int status = take_image(m, k);
        if (status < 0 && !passes_over(m, status))
            return status;
        images += status == 0;
        seconds = clock_seconds() - begin;
    }
    *rate = (double)images / seconds;
    if (k != WORK_READ) {
        m->cpu_seconds += cpu_seconds() - cpu_begin;
        m->seconds += seconds;
    }
    return 0;
}

/* ---- the loader ---- */

static int open_loader(const measurement *m, int32_t threads, loader **made)
{
    const settings *c = m->config;
    const int32_t side = m->images.sizes.last, images = m->set.images, batch = IMAGES_PER_THREAD * threads;
    loader_options options = {.set = &m->set,
                              .height = side,
                              .width = side,
                              .seed = (uint64_t)c->train.seed,
                              .order = {.kind = IMAGE_ORDER_GLOBAL},
                              .augment = true,
                              .crop = range_of(c),
                              .content = LOADER_BYTES,
                              .threads = threads,
                              .substitutes = c->data.on_bad == BAD_SUBSTITUTE,
                              .bad_limit = c->data.bad_limit,
                              .path = c->data.path};
    TRY(batch_plan_make(&options.plan, &(batch_options){.images = images,
                                                        .batch = batch < images ? batch : images,
                                                        .accumulate = 1,
                                                        .ranks = 1,
                                                        .drop_last = true,
                                                        .training = true}));
    return loader_open(made, &options);
}

/* From the first batch on: threads have to be started, and caches filled. */
static int time_batches(loader *l, double *rate)
{
    int64_t images = 0;
    double seconds = 0;
    loader_batch batch;
    TRY(loader_next(l, &batch));
    const double begin = clock_seconds();
    while (seconds < round_seconds) {
        TRY(loader_next(l, &batch));
        images += batch.share.images;
        seconds = clock_seconds() - begin;
    }
    *rate = (double)images / seconds;
    return 0;
}

static int time_loader(const measurement *m, int32_t threads, int round, double *rate)
{
    loader *l;
    TRY(open_loader(m, threads, &l));
    int status = loader_seek(l, round, 0);
    if (status == 0)
        status = time_batches(l, rate);
    loader_close(&l);
    return status;
}

/* ---- rounds ---- */

static double median(const rates *r)
{
    return r->rounds[ROUNDS / 2];
}

static double best(const rates *r)
{
    return r->rounds[ROUNDS - 1];
}

static int time_round(measurement *m, int round)
{
    log_live(m->log, "round %d of %d", round + 1, ROUNDS);
    for (work_kind k = 0; k < WORK_KINDS; k++)
        TRY(time_work(m, k, &m->work[k].rounds[round]));
    for (int i = 0; i < m->thread_counts; i++)
        TRY(time_loader(m, m->threads[i], round, &m->loaders[i].rounds[round]));
    return 0;
}

static int time_all(measurement *m)
{
    for (int round = 0; round < ROUNDS; round++)
        TRY(time_round(m, round));
    for (work_kind k = 0; k < WORK_KINDS; k++)
        qsort(m->work[k].rounds, ROUNDS, sizeof(double), order_doubles);
    for (int i = 0; i < m->thread_counts; i++)
        qsort(m->loaders[i].rounds, ROUNDS, sizeof(double), order_doubles);
    return 0;
}

/* ---- the report ---- */

/* Of the loader with so many threads. */
static double rate_per_core(const measurement *m, int index)
{
    const int busy = m->threads[index] < m->cores ? m->threads[index] : m->cores;
    return median(&m->loaders[index]) / busy;
}

static double cores_needed(const measurement *m)
{
    return ceil((double)m->options->images_per_second / rate_per_core(m, m->thread_counts - 1));
}

/* Share of the time in which one thread that had enough to do ran at all. */
static double busy_share(const measurement *m)
{
    return m->cpu_seconds / m->seconds;
}

static double ratio_to_one(const measurement *m, int index)
{
    return median(&m->loaders[index]) / median(&m->loaders[0]);
}

/* The value of a line "model name : VALUE", without what would have to be quoted. */
static bool take_name(char *line, char *name, size_t bytes)
{
    const char *colon = strchr(line, ':');
    if (!colon || strncmp(line, "model name", strlen("model name")) != 0)
        return false;
    line[strcspn(line, "\n")] = '\0';
    snprintf(name, bytes, "%s", colon + 1 + strspn(colon + 1, " \t"));
    for (char *c = name; *c; c++)
        if (*c == '"' || *c == '\\' || *c < ' ' || *c > '~')
            *c = ' ';
    return true;
}

static void processor_name(char *name, size_t bytes)
{
    char line[512];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !found && fgets(line, sizeof line, file))
        found = take_name(line, name, bytes);
    if (file)
        fclose(file);
    if (!found)
        snprintf(name, bytes, "unknown processor");
}

static void print_json(const measurement *m, const char *processor)
{
    char loaders[JSON_BYTES] = "";
    for (int i = 0; i < m->thread_counts; i++)
        snprintf(loaders + strlen(loaders), JSON_BYTES - strlen(loaders),
                 "%s{\"threads\": %d, \"images_per_second\": %.2f, \"ratio\": %.3f}", i ? ", " : "", m->threads[i],
                 median(&m->loaders[i]), ratio_to_one(m, i));
    log_info(m->log,
             "{\"images\": %d, \"mean_height\": %.1f, \"mean_width\": %.1f, \"mean_bytes\": %.1f, \"image_size\": %d, "
             "\"read\": %.2f, \"decode\": %.2f, \"view\": %.2f, \"loader\": [%s], \"per_core\": %.2f, \"cores\": %d, "
             "\"images_per_second\": %" PRId64 ", \"cores_needed\": %.0f, \"processor\": \"%s\", \"isa\": \"%s\", "
             "\"busy\": %.3f}",
             m->set.images, m->height, m->width, m->bytes, m->images.sizes.last, median(&m->work[WORK_READ]),
             median(&m->work[WORK_DECODE]), median(&m->work[WORK_VIEW]), loaders,
             rate_per_core(m, m->thread_counts - 1), m->cores, m->options->images_per_second, cores_needed(m),
             processor, image_isa(), busy_share(m));
}

static void print_row(logger *log, const char *name, const rates *r)
{
    log_info(log, "  %-36s %10.1f %10.1f", name, median(r), best(r));
}

static void print_work(const measurement *m)
{
    char view[64], batches[64];
    const int32_t side = m->images.sizes.last;
    snprintf(view, sizeof view, "read, random crop scaled to %dx%d", side, side);
    snprintf(batches, sizeof batches, "loader, batches of %dx%d", side, side);
    log_info(m->log, "  %-36s %10s %10s", "one thread", "images/s", "best");
    print_row(m->log, "read", &m->work[WORK_READ]);
    print_row(m->log, "read, decoded whole", &m->work[WORK_DECODE]);
    print_row(m->log, view, &m->work[WORK_VIEW]);
    print_row(m->log, batches, &m->loaders[0]);
}

static void print_loaders(const measurement *m)
{
    log_info(m->log, "  %-36s %10s %10s %8s %10s", "threads of the loader", "images/s", "best", "ratio", "a core");
    for (int i = 0; i < m->thread_counts; i++)
        log_info(m->log, "  %-36d %10.1f %10.1f %8.2f %10.1f", m->threads[i], median(&m->loaders[i]),
                 best(&m->loaders[i]), ratio_to_one(m, i), rate_per_core(m, i));
}

static void print_tables(const measurement *m, const char *processor)
{
    log_info(m->log, "%s: %d images, on average %.0fx%.0f and %.1f KiB", m->config->data.path, m->set.images, m->width,
             m->height, m->bytes / 1024);
    log_info(m->log, "  %s, %d core%s, resampling by %s; medians of %d rounds", processor, m->cores,
             m->cores == 1 ? "" : "s", image_isa(), ROUNDS);
    print_work(m);
    print_loaders(m);
    log_info(m->log, "  cores needed for %" PRId64 " images/s: %.0f, at %.1f images/s a core",
             m->options->images_per_second, cores_needed(m), rate_per_core(m, m->thread_counts - 1));
}

static void warn_of_others(const measurement *m)
{
    if (busy_share(m) < busy_enough)
        log_warning(
            m->log,
            "one thread ran in only %.0f%% of the time: other programs had the cores, or the images do not stay "
            "in memory; the numbers are too low",
            100 * busy_share(m));
}

static void print_result(const measurement *m)
{
    char processor[256];
    processor_name(processor, sizeof processor);
    if (m->options->json)
        print_json(m, processor);
    else
        print_tables(m, processor);
    warn_of_others(m);
}

int bench_data(const settings *config, const data_bench_options *options, logger *log)
{
    measurement m = {.config = config, .options = options, .log = log};
    int status = open_all(&m);
    if (status == 0)
        status = time_all(&m);
    if (status == 0)
        print_result(&m);
    close_all(&m);
    return status;
}
