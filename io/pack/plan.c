/* Owns the plan of a packing. Invariant: a pure function of the list of images and the options, so that all ranks and
 * later starts have the same. One thread. */
#include "io/pack/plan.h"

#include "base/error.h"
#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Orders of epochs are drawn from numbers far below. */
static const uint64_t order_number = UINT64_C(1) << 55;

/* Training images lie in the order in which disks like to read them at random: one that is random already. Validation
 * images keep theirs. */
static int make_order(pack_plan *p, int split)
{
    const int32_t count = (int32_t)p->input.count[split];
    p->order[split] = malloc((size_t)count * sizeof *p->order[split] + 1);
    CHECK(p->order[split], ERROR_MEMORY, "no memory for the order of %" PRId32 " images", count);
    if (split == 0)
        rng_permutation(p->options.seed, order_number, count, p->order[split]);
    for (int32_t i = 0; split != 0 && i < count; i++)
        p->order[split][i] = i;
    return 0;
}

static uint64_t split_bytes(const pack_plan *p, int split)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < p->input.count[split]; i++)
        bytes += p->input.entries[split][i].size;
    return bytes;
}

/* As few shards as the wanted size allows, of nearly equal size, each of one image at least. */
static int cut(pack_plan *p, int split)
{
    const uint64_t bytes = split_bytes(p, split), wanted = p->options.shard_bytes;
    const int64_t images = p->input.count[split];
    const uint64_t most = bytes / wanted + (bytes % wanted != 0);
    const int64_t shards = most > (uint64_t)images ? images : most == 0 && images > 0 ? 1 : (int64_t)most;
    CHECK(shards <= SHARD_MOST, ERROR_USAGE, "%" PRId64 " shards are too many, choose larger ones (--shard-mib)",
          shards);
    p->shards[split] = (int32_t)shards;
    p->first[split] = calloc((size_t)shards + 1, sizeof *p->first[split]);
    CHECK(p->first[split], ERROR_MEMORY, "no memory for the plan of %" PRId64 " shards", shards);
    uint64_t before = 0;
    int64_t place = 0;
    for (int64_t shard = 1; shard < shards; shard++) {
        const uint64_t end = (uint64_t)((double)bytes * (double)shard / (double)shards);
        do
            before += plan_entry(p, split, place++)->size;
        while (before < end && images - place > shards - shard);
        p->first[split][shard] = place;
    }
    p->first[split][shards] = images;
    return 0;
}

static void add_number(XXH3_state_t *state, uint64_t number)
{
    XXH3_128bits_update(state, &number, sizeof number);
}

static void add_text(XXH3_state_t *state, const char *text)
{
    XXH3_128bits_update(state, text, strlen(text) + 1);
}

static void add_entries(XXH3_state_t *state, const pack_plan *p, int split)
{
    add_number(state, (uint64_t)p->input.count[split]);
    for (int64_t i = 0; i < p->input.count[split]; i++) {
        const pack_entry *entry = &p->input.entries[split][i];
        add_text(state, pack_entry_name(&p->input, entry));
        add_number(state, entry->size);
        add_number(state, (uint64_t)entry->label);
    }
}

static void id_text(const XXH3_state_t *state, char id[SHARD_ID_BYTES])
{
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(id, SHARD_ID_BYTES, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
}

/* Of all that decides what the shards hold, as far as it is known without reading the images. */
static int make_id(pack_plan *p)
{
    XXH3_state_t *state = XXH3_createState();
    CHECK(state, ERROR_MEMORY, "no memory for the plan");
    XXH3_128bits_reset(state);
    add_number(state, SHARD_VERSION);
    add_number(state, p->options.seed);
    add_number(state, p->options.shard_bytes);
    add_number(state, (uint64_t)p->options.max_side);
    add_number(state, p->options.max_side > 0 ? (uint64_t)p->options.quality : 0);
    for (int32_t i = 0; i < p->input.classes; i++) {
        add_text(state, p->input.class_ids[i]);
        add_text(state, p->input.class_names[i]);
    }
    for (int split = 0; split < PACK_SPLITS; split++)
        add_entries(state, p, split);
    id_text(state, p->id);
    XXH3_freeState(state);
    return 0;
}

static int check_options(const pack_options *o)
{
    CHECK(o->from || o->lists[0] || o->lists[1], ERROR_USAGE,
          "teskd data pack needs --from FOLDER, or --train-list FILE and --val-list FILE");
    CHECK(o->shard_bytes > 0, ERROR_USAGE, "--shard-mib: expected at least 1");
    CHECK(o->quality >= 1 && o->quality <= 100, ERROR_USAGE, "--quality %d: expected 1 to 100", o->quality);
    return 0;
}

static int make(pack_plan *p)
{
    TRY(check_options(&p->options));
    TRY(pack_input_open(&p->input, &p->options));
    for (int split = 0; split < PACK_SPLITS; split++) {
        TRY(make_order(p, split));
        TRY(cut(p, split));
    }
    return make_id(p);
}

int pack_plan_make(pack_plan **plan, const pack_options *options)
{
    pack_plan *p = calloc(1, sizeof *p);
    *plan = p;
    CHECK(p, ERROR_MEMORY, "no memory for the plan");
    p->options = *options;
    p->out = strdup(options->out);
    int status = p->out ? make(p) : error_set(ERROR_MEMORY, "no memory for the plan");
    if (status < 0)
        pack_plan_free(plan);
    return status;
}

void pack_plan_free(pack_plan **plan)
{
    pack_plan *p = *plan;
    *plan = NULL;
    if (!p)
        return;
    pack_input_close(&p->input);
    for (int split = 0; split < PACK_SPLITS; split++) {
        free(p->order[split]);
        free(p->first[split]);
    }
    free(p->out);
    free(p);
}

pack_description pack_plan_describe(const pack_plan *plan)
{
    pack_description d = {.id = plan->id, .classes = plan->input.classes, .others = plan->input.others};
    snprintf(d.title, sizeof d.title, "%s", plan->input.title);
    for (int split = 0; split < PACK_SPLITS; split++) {
        d.shards[split] = plan->shards[split];
        d.images[split] = plan->input.count[split];
        d.bytes[split] = split_bytes(plan, split);
    }
    return d;
}

manifest plan_manifest(const pack_plan *plan)
{
    manifest m = {.set = {.classes = plan->input.classes,
                          .class_ids = plan->input.class_ids,
                          .class_names = plan->input.class_names,
                          .shards = {plan->shards[0], plan->shards[1]}}};
    memcpy(m.plan, plan->id, sizeof m.plan);
    return m;
}
