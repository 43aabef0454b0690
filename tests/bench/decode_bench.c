/* Owns the measurement of decoding: decode_bench LIST THREADS PASSES reads the files that LIST names, one a line, and
 * decodes each PASSES times as training does: a random crop, scaled to 224x224. Prints images/s. A thread takes the
 * next file as soon as it is free, as in the loader. */
#include "base/clock.h"
#include "base/error.h"
#include "io/image/crop.h"
#include "io/image/decode.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 224, MOST_FILES = 1 << 20, PATH_BYTES = 4096, MOST_THREADS = 256 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} stored_file;

typedef struct {
    const stored_file *files;
    int32_t count;
    int64_t images;     /* to decode: count x passes */
    atomic_llong *next; /* of them, for whichever thread is free */
    int64_t decoded, refused;
    pthread_t thread;
} work;

static int read_file(const char *path, stored_file *file)
{
    long length = -1;
    FILE *stream = fopen(path, "rb");
    CHECK(stream, ERROR_FILE, "%s: cannot be opened", path);
    if (fseek(stream, 0, SEEK_END) == 0)
        length = ftell(stream);
    rewind(stream);
    file->size = length < 0 ? 0 : (size_t)length;
    file->bytes = malloc(file->size + 1);
    const bool whole = file->bytes && fread(file->bytes, 1, file->size, stream) == file->size;
    fclose(stream);
    CHECK(whole, ERROR_FILE, "%s: cannot be read", path);
    return 0;
}

static int read_list(const char *path, stored_file *files, int32_t *count)
{
    char line[PATH_BYTES];
    FILE *list = fopen(path, "r");
    CHECK(list, ERROR_FILE, "%s: cannot be opened", path);
    int status = 0;
    for (*count = 0; status == 0 && *count < MOST_FILES && fgets(line, sizeof line, list);) {
        line[strcspn(line, "\n")] = '\0';
        status = read_file(line, &files[(*count)++]);
    }
    fclose(list);
    return status;
}

static int decode(image_decoder *decoder, const stored_file *file, uint32_t position, uint8_t *pixels)
{
    static const crop_range usual = {.scale = {0.08, 1}, .ratio = {3.0 / 4, 4.0 / 3}};
    image_info info;
    TRY(image_probe(decoder, file->bytes, file->size, &info));
    const image_region all = {.height = SIDE, .width = SIDE};
    const image_view view = {.region = crop_random(&usual, info.height, info.width, 1, 1, position),
                             .height = SIDE,
                             .width = SIDE,
                             .window = all};
    return image_decode(decoder, file->bytes, file->size, &view, pixels);
}

static void *decode_all(void *argument)
{
    work *w = argument;
    image_decoder *decoder;
    uint8_t *pixels = malloc((size_t)SIDE * SIDE * IMAGE_CHANNELS);
    if (!pixels || image_decoder_open(&decoder) < 0)
        abort();
    for (int64_t i; (i = atomic_fetch_add(w->next, 1)) < w->images;)
        if (decode(decoder, &w->files[i % w->count], (uint32_t)i, pixels) < 0)
            w->refused++;
        else
            w->decoded++;
    image_decoder_close(&decoder);
    free(pixels);
    return NULL;
}

static void measure(const stored_file *files, int32_t count, int32_t threads, int32_t passes)
{
    work all[MOST_THREADS];
    atomic_llong next = 0;
    int64_t decoded = 0, refused = 0;
    const double begin = clock_seconds();
    for (int32_t t = 0; t < threads; t++) {
        all[t] = (work){.files = files, .count = count, .images = (int64_t)count * passes, .next = &next};
        if (pthread_create(&all[t].thread, NULL, decode_all, &all[t]) != 0)
            abort();
    }
    for (int32_t t = 0; t < threads; t++) {
        pthread_join(all[t].thread, NULL);
        decoded += all[t].decoded;
        refused += all[t].refused;
    }
    printf("%.1f images/s, %lld refused, %s\n", (double)decoded / (clock_seconds() - begin), (long long)refused,
           image_isa());
}

int main(int argc, char **argv)
{
    int32_t count;
    stored_file *files = calloc(MOST_FILES, sizeof *files);
    const int threads = argc > 2 ? atoi(argv[2]) : 0, passes = argc > 3 ? atoi(argv[3]) : 0;
    if (!files || threads < 1 || threads > MOST_THREADS || passes < 1) {
        fprintf(stderr, "usage: decode_bench LIST THREADS PASSES\n");
        return 2;
    }
    if (read_list(argv[1], files, &count) < 0) {
        fprintf(stderr, "decode_bench: %s\n", error_message());
        return 1;
    }
    measure(files, count, threads, passes);
    for (int32_t i = 0; i < count; i++)
        free(files[i].bytes);
    free(files);
    return 0;
}
