/* Owns the words about steps whose numbers are not finite, and the search for the node. Invariant: the ranks search in
 * step, and one of them, where the value was first, has the message. One thread. */
#include "train/bad_step.h"
#include "base/error.h"
#include "run/look.h"
#include "train/metrics.h"

#include <stdlib.h>

enum { PLACE_BYTES = 96, IMAGES_BYTES = 512 };

/* Where the first bad value of this rank is. */
typedef struct {
    not_finite what;
    bool before;         /* an update of the step before has made it */
    int32_t micro_batch; /* of the step, from 0 on */
    int32_t position;    /* of the micro-batch's first image in the epoch's order */
} finding;

/* ---- places ---- */

static void place_text(const done_step *s, int64_t step, int32_t index, char text[PLACE_BYTES])
{
    const int32_t all = batch_plan_step_micro_batches(&s->e->train_plan, step - 1);
    char part[48] = "";
    if (all > 1)
        snprintf(part, sizeof part, ", micro-batch %d of %d", index + 1, all);
    snprintf(text, PLACE_BYTES, "epoch %lld, step %lld%s", (long long)s->at->epoch + 1, (long long)step, part);
}

/* The step, and the index in it of the micro-batch, that lie `runs` runs of programs back, the last one counted. */
static int64_t step_back(const done_step *s, int64_t runs, int32_t *index)
{
    int64_t step = s->at->step;
    int32_t all = batch_plan_step_micro_batches(&s->e->train_plan, step - 1);
    while (runs > all && step > 1) {
        runs -= all;
        step--;
        all = batch_plan_step_micro_batches(&s->e->train_plan, step - 1);
    }
    *index = runs > 0 && runs <= all ? all - (int32_t)runs : 0;
    return step;
}

/* ---- the words ---- */

static const char *pass_text(const graph *g, const not_finite *what)
{
    const unsigned op = what->node->op;
    uint32_t backward = 0;
    while (backward < g->n_nodes && !op_has(g->nodes[backward].op, TRAIT_LOSS_GRADIENT))
        backward++;
    if (op_has(op, TRAIT_UPDATE | TRAIT_DEFERRED) || op == OP_EMA_UPDATE || op == OP_LOSS_SCALE || op == OP_SUM_SQUARES)
        return "update";
    return what->index < backward || op_has(op, TRAIT_LOSS | TRAIT_MEASURE) ? "forward" : "backward";
}

static int images_text(const done_step *s, const finding *f, char text[IMAGES_BYTES])
{
    const not_finite *what = &f->what;
    char worst[IMAGES_BYTES / 2];
    text[0] = '\0';
    if (what->images == 0)
        return 0;
    TRY(feed_image_text(s->batches, s->at->epoch, f->position + what->worst_image, worst, sizeof worst));
    if (what->bad_images == what->images)
        snprintf(text, IMAGES_BYTES, ", in all %d images of this rank", what->images);
    else
        snprintf(text, IMAGES_BYTES, ", in %d of %d images, most in %s", what->bad_images, what->images, worst);
    return 0;
}

static int say_node(const done_step *s, const graph *g, const finding *f)
{
    const not_finite *what = &f->what;
    const graph_node *node = what->node;
    char place[PLACE_BYTES], images[IMAGES_BYTES];
    place_text(s, s->at->step, f->micro_batch, place);
    TRY(images_text(s, f, images));
    return error_set(
        ERROR_DATA,
        "the numbers are no longer finite in %s: the first is a result of %s%s of %s (%s, %s)%s, %lld of its "
        "%lld values%s",
        place, what->summed ? "the sum over the ranks of " : "", op_name((op_id)node->op), node->label,
        head_names[model_head_of(node->label)], pass_text(g, what), f->before ? " in the step before" : "",
        (long long)what->bad, (long long)what->values, images);
}

static int say_nothing_found(const done_step *s)
{
    char place[PLACE_BYTES];
    place_text(s, s->at->step, 0, place);
    return error_set(
        ERROR_DATA,
        "the numbers are no longer finite in %s, but every one was when the step ran again: the same work gave another "
        "result, so a GPU or its memory may be at fault",
        place);
}

/* ---- the search ---- */

/* The program that this rank ended the step with. */
static program *last_program(const done_step *s)
{
    const session *e = s->e;
    const int64_t first = (s->at->step - 1) * e->config.train.accumulate;
    const int32_t all = batch_plan_step_micro_batches(&e->train_plan, s->at->step - 1);
    const micro_batch last = batch_plan_at(&e->train_plan, first + all - 1);
    return e->training[image_sizes_index(&e->images.sizes, s->at->epoch)][last.kind];
}

static int look_at_micro_batch(const done_step *s, int32_t index, finding *f)
{
    session *e = s->e;
    feed_batch batch;
    not_finite what;
    TRY(feed_next(s->batches, &batch));
    TRY(program_write(batch.step, &e->run, "lr", &s->lr, sizeof s->lr));
    TRY(program_look(&e->run, batch.step, &what));
    if (!f->what.node && what.node)
        *f = (finding){.what = what, .micro_batch = index, .position = batch.position};
    return 0;
}

/* The weights are those from before the step, unless the update before it has spoiled them. */
static int search(const done_step *s, finding *f)
{
    session *e = s->e;
    *f = (finding){.before = true};
    TRY(program_look_at_updates(&e->run, last_program(s), &f->what));
    if (f->what.node)
        return 0;
    TRY(metrics_reset(&e->tensors));
    const int64_t first = (s->at->step - 1) * e->config.train.accumulate;
    TRY(comm_agree(e->ranks, feed_seek(s->batches, s->at->epoch, first)));
    for (int32_t i = 0; i < batch_plan_step_micro_batches(&e->train_plan, s->at->step - 1); i++)
        TRY(look_at_micro_batch(s, i, f));
    return 0;
}

/* The rank with the least `number`; of several the lowest. */
static int least(comm *ranks, int64_t number, int *rank)
{
    const int size = comm_describe(ranks)->size;
    int64_t *all = malloc((size_t)size * sizeof *all);
    CHECK(all, ERROR_MEMORY, "no memory for a number of each of %d ranks", size);
    int status = comm_all_gather(ranks, &number, sizeof number, all);
    *rank = 0;
    for (int i = 1; i < size && status == 0; i++)
        if (all[i] < all[*rank])
            *rank = i;
    free(all);
    return status;
}

/* Nodes have the same numbers on all ranks. */
static int64_t order_of(const finding *f)
{
    return f->what.node ? ((int64_t)f->micro_batch << 32) + f->what.index : INT64_MAX;
}

static int say_first(const done_step *s)
{
    const session *e = s->e;
    finding f;
    int first = 0, status = 0;
    TRY(search(s, &f));
    TRY(least(e->ranks, order_of(&f), &first));
    if (first == e->info->rank)
        status = f.what.node ? say_node(s, &last_program(s)->step, &f) : say_nothing_found(s);
    return comm_agree(e->ranks, status);
}

int bad_step_search(const done_step *s)
{
    const session *e = s->e;
    metrics_bad bad;
    loss_scaling scaling;
    TRY(runtime_synchronize(&e->run));
    TRY(metrics_read_bad(&bad, &e->tensors));
    TRY(loss_scaling_read(&scaling, &e->tensors));
    int64_t ranks = bad.bad_runs > 0 || bad.bad_gradients > 0 || scaling.in_row >= SCALE_SKIPS_MOST;
    TRY(comm_all_reduce(e->ranks, &ranks, 1, COMM_I64));
    return ranks > 0 ? say_first(s) : 0;
}

/* ---- without a search ---- */

int bad_step_since_line(const done_step *s, int64_t *steps_done)
{
    const session *e = s->e;
    metrics_bad bad;
    int first = 0, status = 0;
    int32_t index;
    int64_t runs;
    TRY(metrics_read_bad(&bad, &e->tensors));
    TRY(least(e->ranks, -bad.bad_runs, &first));
    runs = bad.bad_runs;
    TRY(comm_broadcast(e->ranks, &runs, sizeof runs, first));
    const int64_t step = step_back(s, runs, &index);
    char place[PLACE_BYTES];
    place_text(s, step, index, place);
    *steps_done = s->at->steps_done - (s->at->step - step);
    if (first == e->info->rank)
        status = error_set(ERROR_DATA, "the loss is no longer finite since %s", place);
    return comm_agree(e->ranks, status);
}

int bad_step_check_scale(const done_step *s, const loss_scaling *scaling)
{
    if (scaling->in_row < SCALE_SKIPS_MOST)
        return 0;
    return comm_agree(
        s->e->ranks,
        error_set(ERROR_DATA,
                  "the gradients of %lld steps in a row, up to epoch %lld, step %lld, are no longer finite in "
                  "16 bits, with a loss scale of %g at last",
                  (long long)scaling->in_row, (long long)s->at->epoch + 1, (long long)s->at->step, scaling->scale));
}

int bad_step_say_again(int status, const session *e, const resume_point *from, int64_t steps_done)
{
    const bool looked = e->config.run.check_finite;
    if (from->path[0])
        error_suffix(status, "; the last checkpoint from before is %s, of epoch %lld, step %lld; --resume %s",
                     from->path, (long long)from->epoch + 1, (long long)from->step, from->path);
    else
        error_suffix(status, "; there is no checkpoint from before; from the beginning on,");
    return error_suffix(status, " --set train.max_steps=%lld%s does the step again%s; a lower train.lr may help",
                        (long long)steps_done, looked ? "" : " --set run.check_finite=yes",
                        looked ? "" : " and names the layer");
}
