/* Owns the list of bad images of a process. Invariant: no image is in it twice; it is touched under the mutex alone. */
#include "io/data/bad_images.h"

#include "base/error.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { MOST_WARNINGS = 20 };

struct bad_images {
    bad_images_options options;
    pthread_mutex_t mutex;
    int32_t *list, count, most;
};

/* How many may be bad. */
static int32_t allowed(const bad_images_options *o)
{
    const double share = floor(o->limit * o->set->images);
    return share < 1 ? 1 : (int32_t)share;
}

int bad_images_open(bad_images **made, const bad_images_options *options)
{
    bad_images *bad = calloc(1, sizeof *bad);
    *made = bad;
    CHECK(bad, ERROR_MEMORY, "no memory for a list of bad images");
    bad->options = *options;
    bad->most = allowed(options);
    pthread_mutex_init(&bad->mutex, NULL);
    bad->list = malloc(((size_t)bad->most + 1) * sizeof *bad->list);
    if (bad->list)
        return 0;
    bad_images_close(made);
    return error_set(ERROR_MEMORY, "no memory for a list of bad images");
}

void bad_images_close(bad_images **bad)
{
    if (!*bad)
        return;
    pthread_mutex_destroy(&(*bad)->mutex);
    free((*bad)->list);
    free(*bad);
    *bad = NULL;
}

static bool is_known(const bad_images *bad, int32_t index)
{
    for (int32_t i = 0; i < bad->count; i++)
        if (bad->list[i] == index)
            return true;
    return false;
}

/* Keeps the message of the image that went past the limit. */
static int refuse_more(const bad_images *bad, int status)
{
    const bad_images_options *o = &bad->options;
    return error_suffix(status,
                        "; that is bad image %d of %d, and data.bad_limit = %g allows %d: is the data set whole?",
                        bad->count, o->set->images, o->limit, bad->most);
}

static int note(bad_images *bad, int32_t index, int status)
{
    if (is_known(bad, index))
        return 0;
    bad->list[bad->count++] = index;
    if (bad->count > bad->most)
        return refuse_more(bad, status);
    if (bad->options.log && bad->count <= MOST_WARNINGS)
        log_warning(bad->options.log, "bad image: %s; image %d takes its place%s", error_message(),
                    bad_images_substitute(bad->options.set, index),
                    bad->count == MOST_WARNINGS ? "; further ones are only counted" : "");
    return 0;
}

int bad_images_add(bad_images *bad, int32_t index, int status)
{
    if (!bad->options.substitutes || (status != ERROR_DATA && status != ERROR_FILE))
        return status;
    pthread_mutex_lock(&bad->mutex);
    status = bad->count <= bad->most ? note(bad, index, status) : refuse_more(bad, status);
    pthread_mutex_unlock(&bad->mutex);
    return status;
}

int32_t bad_images_substitute(const image_set *set, int32_t index)
{
    return index + 1 < set->images ? index + 1 : 0;
}

int64_t bad_images_count(bad_images *bad)
{
    pthread_mutex_lock(&bad->mutex);
    const int64_t count = bad->count;
    pthread_mutex_unlock(&bad->mutex);
    return count;
}
