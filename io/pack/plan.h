/* Which image goes into which shard, and where in it. Constant once it is made: any thread. */
#ifndef TESKD_IO_PACK_PLAN_H
#define TESKD_IO_PACK_PLAN_H

#include "io/pack/input.h"
#include "io/shard/manifest.h"

struct pack_plan {
    pack_options options;
    char *out; /* options.out, of its own */
    pack_input input;
    char id[SHARD_ID_BYTES];
    int32_t *order[PACK_SPLITS]; /* [count], indices of entries */
    int32_t shards[PACK_SPLITS];
    int64_t *first[PACK_SPLITS]; /* [shards + 1], places in `order` */
};

/* What a manifest says before the shards are there: the plan and the classes are borrowed. */
manifest plan_manifest(const pack_plan *plan);

/* Removes shards of earlier plans, and the note of the packing. */
int pack_folder_finish(const pack_plan *plan);

static inline const pack_entry *plan_entry(const pack_plan *plan, int split, int64_t place)
{
    return &plan->input.entries[split][plan->order[split][place]];
}

#endif
