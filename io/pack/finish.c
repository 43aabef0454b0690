/* Owns the last step of a packing: from whole shards to the manifest. One thread of one rank. */
#include "io/pack/plan.h"

#include "base/error.h"
#include "io/shard/shard_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void count_flags(pack_report *r, const shard_file *file)
{
    for (int64_t i = 0; i < file->record.images; i++) {
        const uint32_t flags = file->images[i].flags;
        r->png += (flags & SHARD_PNG) != 0;
        r->grey += (flags & SHARD_GREY) != 0;
        r->cmyk += (flags & SHARD_CMYK) != 0;
        r->progressive += (flags & SHARD_PROGRESSIVE) != 0;
        r->misnamed += (flags & SHARD_MISNAMED) != 0;
        r->recoded += (flags & SHARD_RECODED) != 0;
    }
}

static int count_left_out(pack_report *r, const shard_file *file)
{
    for (int64_t i = 0; i < file->left_out.count && r->named < PACK_NAMED; i++)
        TRY(shard_file_text(file, &file->left_out, i, r->names[r->named++], PACK_NAME_BYTES));
    r->left_out += file->left_out.count;
    return 0;
}

/* What a whole shard says of itself. */
static int take_shard(manifest *m, const char *folder, int split, int32_t shard, XXH3_state_t *id, pack_report *r)
{
    shard_file file;
    TRY(shard_file_open_unlisted(&file, m, folder, split, shard));
    m->records[split][shard] = file.record;
    m->set.images[split] += file.record.images;
    m->set.bytes[split] += file.record.bytes;
    XXH3_128bits_update(id, &file.index_checksum, sizeof file.index_checksum);
    count_flags(r, &file);
    int status = count_left_out(r, &file);
    shard_file_close(&file);
    return status;
}

static void add_classes(XXH3_state_t *id, const shard_manifest *set)
{
    for (int32_t i = 0; i < set->classes; i++) {
        XXH3_128bits_update(id, set->class_ids[i], strlen(set->class_ids[i]) + 1);
        XXH3_128bits_update(id, set->class_names[i], strlen(set->class_names[i]) + 1);
    }
}

/* The data set's id covers the classes and all that the shards say of their images, their checksums among it. */
static int take_shards(manifest *m, const char *folder, XXH3_state_t *id, pack_report *r)
{
    XXH3_128bits_reset(id);
    add_classes(id, &m->set);
    for (int split = 0; split < PACK_SPLITS; split++) {
        XXH3_128bits_update(id, &m->set.shards[split], sizeof m->set.shards[split]);
        for (int32_t i = 0; i < m->set.shards[split]; i++)
            TRY(take_shard(m, folder, split, i, id, r));
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(id);
    snprintf(m->set.id, sizeof m->set.id, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
    return 0;
}

static int allocate(manifest *m, XXH3_state_t **id)
{
    *id = XXH3_createState();
    for (int split = 0; split < PACK_SPLITS; split++) {
        m->records[split] = calloc((size_t)m->set.shards[split] + 1, sizeof *m->records[split]);
        CHECK(*id && m->records[split], ERROR_MEMORY, "no memory for the manifest");
    }
    return 0;
}

static void fill_report(pack_report *report, const manifest *m)
{
    memcpy(report->id, m->set.id, sizeof report->id);
    memcpy(report->images, m->set.images, sizeof report->images);
    memcpy(report->bytes, m->set.bytes, sizeof report->bytes);
}

int pack_finish(const pack_plan *plan, pack_report *report)
{
    XXH3_state_t *id;
    manifest m = plan_manifest(plan); /* its classes are the plan's */
    memset(report, 0, sizeof *report);
    int status = allocate(&m, &id);
    if (status == 0)
        status = take_shards(&m, plan->out, id, report);
    if (status == 0)
        status = manifest_write(&m, plan->out);
    if (status == 0)
        status = pack_folder_finish(plan);
    fill_report(report, &m);
    XXH3_freeState(id);
    free(m.records[0]);
    free(m.records[1]);
    return status;
}
