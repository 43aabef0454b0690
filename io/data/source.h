/* Where labelled images come from: the table of sources, and the sets that are open.
 *
 * A set has all labels in memory. Its images are RGB bytes, in rows from the top. A set whose images have one size may
 * hold them all (`pixels`). Every other set gives one image at a time through readers: `load` fetches what is stored of
 * an image, `render` makes the pixels of a view of it, so that a compressed image need not be decoded whole. A set does
 * not change once it is open, so any number of threads may read it, each with a reader of its own.
 *
 * Errors are ERROR_FILE or ERROR_DATA and name the file, and the record or offset in it.
 */
#ifndef TESKD_IO_DATA_SOURCE_H
#define TESKD_IO_DATA_SOURCE_H

#include "base/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIZE_VARIES = -1, SYNTHETIC_CLASSES = 10 /* unless others are wanted */ };

typedef enum { SPLIT_TRAIN, SPLIT_TEST, SPLITS } data_split;

/* Where a device with memory of its own gets the images from. */
typedef enum {
    PLACEMENT_BY_SIZE, /* a set that is small is copied there once */
    PLACEMENT_DEVICE,  /* copied there once, for measurements without the way from the host */
    PLACEMENT_HOST     /* batch by batch */
} data_placement;

typedef struct image_set image_set;
typedef struct image_reader image_reader;

/* How the images of a set are read one at a time. */
typedef struct {
    int (*reader_open)(image_reader **reader, const image_set *set);
    /* Image `index` becomes the reader's own; height and width are those of all of it. */
    int (*load)(image_reader *reader, int32_t index, int32_t *height, int32_t *width);
    /* A view of the image that was loaded, as [window.height][window.width][3]. */
    int (*render)(image_reader *reader, const image_view *view, uint8_t *pixels);
    /* How many bytes were fetched of the image that was loaded last. */
    size_t (*stored_bytes)(const image_reader *reader);
    void (*reader_close)(image_reader *reader);
    /* What messages call the image: its file, or its name and the file that it is in. */
    void (*describe)(const image_set *set, int32_t index, char *text, size_t bytes);
    void (*set_close)(image_set *set); /* what `own` points to */
} image_set_ops;

struct image_set {
    int32_t images, classes;
    int32_t height, width;                           /* of every image; SIZE_VARIES */
    uint8_t *pixels;                                 /* [images][height][width][3]; NULL: through `ops` */
    int32_t *labels;                                 /* [images], each in [0, classes) */
    int32_t *storage;                                /* [images], the images as they lie side by side; NULL: in order */
    char **class_names;                              /* [classes]; NULL where the source has none */
    float mean[IMAGE_CHANNELS], std[IMAGE_CHANNELS]; /* of pixels scaled to 0..1 */
    const image_set_ops *ops;                        /* NULL where `pixels` holds all images */
    uint64_t content;                                /* of a set without pixels: tells other images from these */
    void *own;                                       /* of the source */
};

/* The ranks that open a set together, so that what is slow to find out is found out once. */
typedef struct {
    void *context;
    bool first; /* this rank finds out */
    int (*agree)(void *context, int status);
    int (*broadcast)(void *context, void *bytes, size_t size); /* from the first to all */
} source_ranks;

/* What is wanted of a source. */
typedef struct {
    const char *path; /* data.path */
    data_split split;
    int32_t limit;   /* the first so many images; 0: all. Of synthetic images: so many. */
    int32_t side;    /* of images that have no size of their own */
    int32_t classes; /* of synthetic labels */
    uint64_t seed;
    const source_ranks *ranks; /* NULL: this process alone */
} source_request;

/* What is known of the data at a path before a set is opened. */
typedef struct {
    int32_t classes; /* 0: as many as are wanted */
    int64_t images[SPLITS];
} source_facts;

typedef struct data_source data_source;

/* How a source is opened. */
typedef struct {
    int (*open)(image_set *set, const data_source *source, const source_request *request);
    int (*describe)(source_facts *facts, const char *path); /* NULL: the table says it all */
    bool in_shards; /* the folder holds shards and their manifest (io/shard/shard.h), which can be copied elsewhere */
    bool (*holds)(const data_source *source, const char *folder, const char *path); /* NULL: it has no files */
} source_driver;

/* What is known of a source without opening it. */
struct data_source {
    const char *name, *title; /* as in data.kind, and for people */
    int32_t classes;          /* 0: as many as are wanted */
    int32_t side;             /* height and width; 0: as is wanted; SIZE_VARIES */
    double mean[IMAGE_CHANNELS], std[IMAGE_CHANNELS];
    int32_t images[SPLITS]; /* of the official set, or as many as are made */
    const char *wants;      /* what the folder data.path must hold; NULL: the source has no files */
    data_placement placement;
    const source_driver *driver;
};

/* The source of that name. ERROR_SETTINGS, with the names that there are, where there is none. */
int source_find(const data_source **source, const char *name);

/* Row `index` of the table, or NULL past its end. */
const data_source *source_at(int index);

/* By the table or, where the number of classes lies with the data, by a look at `path`; an empty one is the table's. */
int source_describe(source_facts *facts, const data_source *source, const char *path);

/* Clears `set` and opens a split of the source; nothing is held after an error. With request->ranks every rank
 * calls it, and a failure of one may be known to that one alone. ERROR_SETTINGS for a negative limit. */
int source_open(image_set *set, const data_source *source, const source_request *request);

/* Is `path` one of the files, of either split, that the source reads in `folder`? */
bool source_holds(const data_source *source, const char *folder, const char *path);

/* How many images of a split there are as far as is known without opening it. */
int64_t source_expected_images(const data_source *source, data_split split, int64_t limit);

/* Of a set whose images have one size. */
static inline size_t image_bytes(const image_set *set)
{
    return (size_t)set->height * (size_t)set->width * IMAGE_CHANNELS;
}

/* Image `index` of `images` that are taken evenly out of `all`, for sources that store one class after the other. */
static inline int64_t source_spread(int64_t index, int64_t images, int64_t all)
{
    return index * all / images;
}

/* NULL where the source has no names. */
const char *image_set_class_name(const image_set *set, int32_t label);

/* What the set is, in words: how many images, their size, the classes, and a checksum of all labels and of
 * what `pixels` holds or, for stored images, of the source's own id. The same text means the same set. */
enum { IMAGE_SET_IDENTITY_BYTES = 128 };
void image_set_identity(const image_set *set, char text[IMAGE_SET_IDENTITY_BYTES]);

/* Frees what opening allocated and clears `set`; a cleared set is fine. */
void image_set_close(image_set *set);

/* Class names, as many as there are and in their order, parted by line feeds; NULL where the source has none. The
 * caller frees the text. */
int image_set_class_list(const image_set *set, char **text);

/* For messages: "image 17 (n01440764/x.JPEG in DIR/train-00000.h5)". */
void image_set_describe(const image_set *set, int32_t index, char *text, size_t bytes);

/* For sources whose classes have names: makes room for those of `classes` classes, then sets one by one. */
int image_set_allocate_names(image_set *set, int32_t classes);
int image_set_name_class(image_set *set, int32_t label, const char *name);

/* For sources that hold all images: sets the sizes, and allocates pixels and labels. */
int image_set_allocate(image_set *set, int32_t images, int32_t height, int32_t width, int32_t classes);

#endif
