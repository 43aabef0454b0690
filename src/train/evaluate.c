/* Owns the evaluation loop. One thread. */
#include "train/evaluate.h"
#include "base/error.h"

static int evaluate_share(experiment *e, loader *batches, metrics *sums)
{
    TRY(loader_seek(batches, 0, 0));
    for (int32_t step = 0; step < loader_steps(batches); step++) {
        loader_batch batch;
        TRY(loader_next(batches, &batch));
        if (batch.images == 0)
            continue;
        program *p = experiment_feed_evaluation(e, &batch);
        CHECK(p, ERROR_INTERNAL, "no program for an evaluation batch of %d pictures", batch.images);
        TRY(program_run(&e->run, p, NULL));
        metrics_add_step(sums, p, &e->run, &e->step.model, batch.images, batch.images);
    }
    return 0;
}

int evaluate(experiment *e, loader *batches, metrics *mean)
{
    metrics sums = {0};
    TRY(comm_agree(e->ranks, evaluate_share(e, batches, &sums)));
    TRY(metrics_reduce(&sums, e->ranks));
    *mean = metrics_mean(&sums);
    return 0;
}
