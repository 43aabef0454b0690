/* Owns the tables of a dry run. One thread. */
#include "tools/dry_run.h"
#include "base/atomic_file.h"
#include "base/error.h"
#include "run/memory_report.h"

#include <string.h>

/* Weights and work of a part of the network. */
typedef struct {
    double weights, macs;
} cost;

static double weights_of(const graph *g, const graph_node *node)
{
    double weights = 0;
    for (int k = 0; k < node->n_in; k++)
        if (graph_desc(g, node->in[k])->kind == KIND_PARAMETER)
            weights += (double)tensor_count(graph_desc(g, node->in[k]));
    return weights;
}

static void layer_line(logger *log, const graph *g, uint32_t index, double weights, double macs)
{
    const graph_node *node = &g->nodes[index];
    const int32_t *x = graph_desc(g, node->in[0])->dim, *y = graph_desc(g, node->out[0])->dim;
    char in[32], out[32];
    snprintf(in, sizeof in, "%dx%dx%d", x[1], x[2], x[3]);
    snprintf(out, sizeof out, "%dx%dx%d", y[1], y[2], y[3]);
    log_info(log, "  %-24s %-19s %12s -> %-12s %10.0f %10.3f", node->label, op_name((op_id)node->op), in, out, weights,
             macs / 1e6);
}

/* The network as written, before any rewrite. */
static int describe_network(session *e)
{
    graph g;
    model m;
    cost backbone = {0, 0}, students = {0, 0};
    const step_shape shape = {.training = true, .batch = 1, .global_batch = 1, .loss_batch = 1};
    model_options options = e->step.model;
    options.padded_channels = 0;
    graph_init(&g, e->device->ops->real);
    model_build(&m, &g, &options, &shape);
    log_info(e->log, "  %-24s %-19s %12s    %-12s %10s %10s", "layer", "op", "in", "out", "weights", "MMAC");
    for (uint32_t i = 0; i < g.n_nodes && !g.status; i++) {
        double weights = weights_of(&g, &g.nodes[i]), macs = graph_node_macs(&g, &g.nodes[i]);
        bool student = model_is_students(g.nodes[i].label);
        cost *part = student ? &students : &backbone;
        part->weights += weights;
        part->macs += macs;
        if (weights > 0)
            layer_line(e->log, &g, i, weights, macs);
    }
    log_info(e->log, "  backbone %.2f M weights, %.3f GMAC an image; students %.2f M, %.3f GMAC",
             backbone.weights / 1e6, backbone.macs / 1e9, students.weights / 1e6, students.macs / 1e9);
    int status = graph_status(&g);
    model_free(&m);
    graph_free(&g);
    return status;
}

static void describe_memory(session *e)
{
    static const char *const names[KIND_COUNT] = {[KIND_INPUT] = "inputs",
                                                  [KIND_PARAMETER] = "parameters",
                                                  [KIND_GRADIENT] = "gradients",
                                                  [KIND_STATE] = "states",
                                                  [KIND_ACTIVATION] = "activations"};
    size_t unpacked = 0, workspace = 0, total = 0, bytes[KIND_COUNT] = {0};
    for (int i = 0; i < e->run.n_programs; i++) {
        const program *p = e->run.programs[i];
        for (int kind = 0; kind < KIND_COUNT; kind++)
            if (p->plan.arena_bytes[kind] > bytes[kind])
                bytes[kind] = p->plan.arena_bytes[kind];
        if (p->plan.activation_bytes_unpacked > unpacked)
            unpacked = p->plan.activation_bytes_unpacked;
        if (p->workspace_bytes > workspace)
            workspace = p->workspace_bytes;
    }
    log_info(e->log, "memory of a rank:");
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        total += bytes[kind];
        if (kind == KIND_ACTIVATION)
            log_info(e->log, "  %-12s %10.1f MiB (%.1f without sharing)", names[kind], (double)bytes[kind] / 0x1p20,
                     (double)unpacked / 0x1p20);
        else
            log_info(e->log, "  %-12s %10.1f MiB", names[kind], (double)bytes[kind] / 0x1p20);
    }
    log_info(e->log, "  %-12s %10.1f MiB", "workspace", (double)workspace / 0x1p20);
    log_info(e->log, "  %-12s %10.1f MiB", "total", (double)(total + workspace) / 0x1p20);
    log_info(e->log, "  %-12s %10.1f MiB in rank 0's host memory, twice while one is written", "checkpoint",
             (double)memory_saved_bytes(&e->run) / 0x1p20);
}

int dry_run(session *e)
{
    log_info(e->log, "%s on %s", e->step.model.network->name, e->device->ops->description(e->device));
    TRY(describe_network(e));
    describe_memory(e);
    log_info(e->log, "work:");
    log_info(e->log, "  %lld steps per epoch of %d images (%lld training images), %lld epochs",
             (long long)e->train_plan.steps, e->train_plan.options.batch, (long long)e->train_images,
             (long long)e->config.train.epochs);
    log_info(e->log, "  %d ranks, %d threads each", e->info->size, e->threads);
    return 0;
}

int dry_run_dump_graph(const session *e, const char *path)
{
    if (e->info->rank != 0)
        return 0;
    const program *p = session_last_size(e)[0] ? session_last_size(e)[0] : session_last_size(e)[MICRO_BATCH_KINDS / 2];
    atomic_file *file;
    TRY(atomic_file_create(&file, path));
    graph_dot(&p->step, atomic_file_stream(file));
    return atomic_file_commit(&file);
}
