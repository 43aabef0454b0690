/* CIFAR's binary files as an input: each image becomes a PNG, without loss. Owns the open sets. One thread until it is
 * open. */
#include "io/pack/input.h"

#include "base/error.h"
#include "io/data/source.h"
#include "io/image/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void close_cifar(pack_input *input)
{
    image_set *sets = input->own;
    for (int split = 0; sets && split < PACK_SPLITS; split++)
        image_set_close(&sets[split]);
    free(sets);
}

static int read_image(const pack_input *input, int split, const pack_entry *entry, byte_buffer *buffer)
{
    const image_set *set = &((const image_set *)input->own)[split];
    uint8_t *png;
    size_t size;
    TRY(image_encode_png(set->pixels + entry->place * image_bytes(set), set->height, set->width, &png, &size));
    int status = byte_buffer_reserve(buffer, size);
    if (status == 0)
        memcpy(buffer->bytes, png, size);
    buffer->size = size;
    free(png);
    return status;
}

/* CIFAR's classes are in alphabetical order, as class folders are. */
static int take_classes(pack_input *input, const image_set *set)
{
    for (int32_t label = 0; label < set->classes; label++) {
        char id[64];
        const char *name = image_set_class_name(set, label);
        if (name)
            snprintf(id, sizeof id, "%s", name);
        else
            snprintf(id, sizeof id, "%02d", label);
        TRY(pack_input_add_class(input, id));
    }
    return 0;
}

static int take_images(pack_input *input, int split, const image_set *set)
{
    char name[PACK_NAME_BYTES], identity[IMAGE_SET_IDENTITY_BYTES];
    image_set_identity(set, identity);
    input->stamp = XXH3_64bits_withSeed(identity, strlen(identity), input->stamp);
    for (int32_t i = 0; i < set->images; i++) {
        const pack_entry entry = {.place = (uint64_t)i, .size = (uint32_t)image_bytes(set), .label = set->labels[i]};
        snprintf(name, sizeof name, "%s/%05d.png", input->class_ids[entry.label], i);
        TRY(pack_input_add(input, split, name, &entry));
    }
    return 0;
}

static int open_cifar(pack_input *input, const pack_options *options, const char *name)
{
    const data_source *source;
    image_set *sets = calloc(PACK_SPLITS, sizeof *sets);
    CHECK(sets, ERROR_MEMORY, "no memory for CIFAR");
    input->own = sets;
    input->close = close_cifar;
    input->read = read_image;
    snprintf(input->title, sizeof input->title, "%s in %.200s", name, options->from);
    TRY(source_find(&source, name));
    for (int split = 0; split < PACK_SPLITS; split++) {
        const source_request request = {.path = options->from, .split = split ? SPLIT_TEST : SPLIT_TRAIN};
        TRY(source_open(&sets[split], source, &request));
        if (split == 0)
            TRY(take_classes(input, &sets[split]));
        TRY(take_images(input, split, &sets[split]));
    }
    return 0;
}

int input_open_cifar10(pack_input *input, const pack_options *options)
{
    return open_cifar(input, options, "cifar10");
}

int input_open_cifar100(pack_input *input, const pack_options *options)
{
    return open_cifar(input, options, "cifar100");
}

bool input_holds_cifar10(const char *path)
{
    return pack_exists(path, "data_batch_1.bin") || pack_exists(path, "cifar-10-batches-bin/data_batch_1.bin");
}

bool input_holds_cifar100(const char *path)
{
    return pack_exists(path, "train.bin") || pack_exists(path, "cifar-100-binary/train.bin");
}
