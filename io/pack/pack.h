/* Packing: from what people have of a data set to shards.
 *
 * A plan is made first, the same on every rank: which images there are, in which order, in which shard. Then each rank
 * writes its shards, a thread one at a time, and at last one rank writes the manifest, without which there is no data
 * set. A packing that was ended goes on with the shards that are whole; the result is the same to the byte, and so it
 * is for any number of threads and ranks.
 *
 * Errors are ERROR_USAGE for options that do not go together, ERROR_FILE, ERROR_DATA, and name the file.
 */
#ifndef TESKD_IO_PACK_PACK_H
#define TESKD_IO_PACK_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACK_SPLITS = 2, PACK_NAMED = 5, PACK_NAME_BYTES = 512, PACK_TITLE_BYTES = 256 };

typedef struct {
    const char *from;               /* folder of the images; NULL with lists */
    const char *kind;               /* NULL: by what `from` holds */
    const char *out;                /* folder of the shards */
    const char *lists[PACK_SPLITS]; /* files of lines "PATH LABEL"; NULL: none */
    const char *root;               /* folder of the lists' paths; NULL: `from`, or that of the list */
    const char *val_labels;         /* file that says the classes of validation images; NULL: found in `from` */
    const char *class_names;        /* file of the classes' names; NULL: found in `from`, or the ids */
    uint64_t shard_bytes, seed;
    int32_t max_side, quality; /* max_side 0: every image stays as it is, byte for byte */
    bool fail_on_bad;          /* an image that is none ends the packing, instead of being left out */
    bool overwrite;            /* replace another data set in `out` */
} pack_options;

/* The kinds' names, for messages and help: "folders, list, ..." */
const char *pack_kinds(void);

typedef struct pack_plan pack_plan;

int pack_plan_make(pack_plan **plan, const pack_options *options);
void pack_plan_free(pack_plan **plan);

typedef struct {
    char title[PACK_TITLE_BYTES]; /* what is packed, in words */
    const char *id;               /* of the plan: 32 digits */
    int32_t classes, shards[PACK_SPLITS];
    int64_t images[PACK_SPLITS], others; /* others: files that are no images by their names */
    uint64_t bytes[PACK_SPLITS];         /* of the originals */
} pack_description;

pack_description pack_plan_describe(const pack_plan *plan);

/* The folder while it is packed into. */
typedef struct pack_folder pack_folder;

/* Makes the folder, and keeps others out of it where the file system has locks; one rank does it. `*is_done`: it holds
 * this data set already. Shards of another plan, or of originals that have changed since, are removed. */
int pack_folder_open(pack_folder **folder, const pack_plan *plan, bool *is_done);
void pack_folder_close(pack_folder **folder);

typedef struct pack_job pack_job;

typedef struct {
    int64_t images, shards, kept; /* of this rank: done so far; of the shards, those that were there */
    uint64_t bytes;               /* of the originals */
    bool is_over, has_failed;
} pack_progress;

/* Starts the threads that write this rank's shards. The plan outlives the job. */
int pack_job_start(pack_job **job, const pack_plan *plan, int rank, int ranks, int threads);
pack_progress pack_job_progress(const pack_job *job);

/* With `stop`, the threads end after the image at hand. Returns the first failure of any thread; frees the job. */
int pack_job_end(pack_job **job, bool stop);

typedef struct {
    char id[33];
    int64_t images[PACK_SPLITS], left_out;
    uint64_t bytes[PACK_SPLITS];
    int64_t png, grey, cmyk, progressive, misnamed, recoded;
    int32_t named; /* how many of those left out are in `names` */
    char names[PACK_NAMED][PACK_NAME_BYTES];
} pack_report;

/* Looks at all shards, removes those of earlier packings, and writes the manifest; one rank does it, when all are done.
 */
int pack_finish(const pack_plan *plan, pack_report *report);

#endif
