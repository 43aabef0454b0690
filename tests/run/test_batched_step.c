/* Which nodes a program gives to a device to be batched. The device is the reference, and its batched losses are
 * launched backwards: nodes of one launch have no order, so nothing may change. */
#include "base/error.h"
#include "small_step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, error_message());                                                                \
    } while (0)

/* One of the reference's kernels, or several of this backend's. */
struct kernel {
    kernel *inner; /* NULL: batched */
    unsigned op;
    uint32_t n;
    kernel **members;
    kernel_args *args;
};

static const backend_ops *reference;
static backend_ops backwards;

static int prepare(backend *self, const kernel_request *request, kernel **out, size_t *workspace_bytes)
{
    kernel *k = calloc(1, sizeof *k);
    assert_non_null(k);
    k->op = request->node.op;
    *out = k;
    return reference->prepare(self, request, &k->inner, workspace_bytes);
}

static int launch(backend *self, kernel *k, const kernel_args *args)
{
    if (k->inner)
        return reference->launch(self, k->inner, args);
    for (uint32_t i = k->n; i-- > 0;)
        TRY(launch(self, k->members[i], &k->args[i]));
    return 0;
}

static void release(backend *self, kernel *k)
{
    if (k->inner)
        reference->release(self, k->inner);
    free(k->members);
    free(k->args);
    free(k);
}

static int batch_losses(backend *self, uint32_t n, kernel *const *kernels, const kernel_args *args, kernel **out)
{
    (void)self;
    *out = NULL;
    if (!op_is_loss(kernels[0]->op))
        return 0;
    kernel *k = calloc(1, sizeof *k);
    assert_non_null(k);
    *k = (kernel){.n = n, .members = calloc(n, sizeof(kernel *)), .args = calloc(n, sizeof *args)};
    assert_true(k->members && k->args);
    memcpy(k->members, kernels, n * sizeof(kernel *));
    memcpy(k->args, args, n * sizeof *args);
    *out = k;
    return 0;
}

static int open_backwards(backend **out)
{
    TRY(open_reference(out));
    reference = (*out)->ops;
    backwards = *reference;
    backwards.prepare = prepare;
    backwards.launch = launch;
    backwards.release = release;
    backwards.batch_launches = batch_losses;
    (*out)->ops = &backwards;
    return 0;
}

static uint32_t count_losses(const program *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->step.n_nodes; i++)
        n += op_is_loss(p->step.nodes[i].op);
    return n;
}

/* The nodes of the program's batched launches. */
static uint32_t count_batched(const program *p, int *launches)
{
    uint32_t n = 0;
    *launches = 0;
    for (uint32_t i = 0; i < p->n_launches; i++)
        if (p->launches[i].n_nodes > 1) {
            n += p->launches[i].n_nodes;
            ++*launches;
        }
    return n;
}

static void losses_of_a_step_have_no_order(void **state)
{
    (void)state;
    const small_settings settings = {.teskd = true, .feature_weight = 0.02};
    small_step in_order, batched;
    int launches;
    small_step_open(&in_order, &settings, open_reference);
    small_step_open(&batched, &settings, open_backwards);
    assert_int_equal(count_losses(batched.step), 24);
    assert_int_equal(count_batched(batched.step, &launches), 24);
    assert_int_equal(launches, 1);
    assert_int_equal(count_batched(in_order.step, &launches), 0);
    small_step_run(&in_order, in_order.step, 0.05);
    small_step_run(&batched, batched.step, 0.05);
    assert_same_step(&in_order, &batched, 1e-15, 1e-15);
    small_step_close(&in_order);
    small_step_close(&batched);
}

/* A loss of logits that nobody reads afterwards, then the gradient of another: it fits where the logits were. */
static void two_losses(graph *g, bool keep, value_id ids[2])
{
    const op_attr attr = {.count = 2, .weight = 1};
    graph_init(g, DTYPE_F64);
    value_id x = graph_input(g, "x", DTYPE_F64, (const int32_t[]){2, 1, 1, 8});
    value_id target = graph_input(g, "target", DTYPE_I32, (const int32_t[]){2, 1, 1, 1});
    value_id weight = graph_parameter(g, "weight", LAYOUT_OI, (const int32_t[]){8, 1, 1, 8});
    ids[0] = graph_apply(g, OP_LINEAR, NULL, 2, (value_id[]){x, weight});
    if (keep)
        graph_keep(g, ids[0], "logits");
    graph_keep(g, graph_apply(g, OP_CROSS_ENTROPY, &attr, 2, (value_id[]){ids[0], target}), "loss");
    tensor_desc desc = *graph_desc(g, ids[0]);
    ids[1] = graph_value_new(g, desc, NULL);
    graph_emit(g, OP_CROSS_ENTROPY_GRAD, &attr, 2, (value_id[]){x, target}, 1, &ids[1]);
    graph_keep(g, ids[1], "gradient");
    MUST(graph_status(g));
}

static void check_two_losses(bool keep)
{
    graph g;
    store tensors;
    backend *device;
    runtime run;
    program *p;
    value_id ids[2];
    int launches;
    MUST(open_backwards(&device));
    two_losses(&g, keep, ids);
    MUST(store_open(&tensors, device, &g));
    runtime_open(&run, &(runtime_options){.device = device, .tensors = &tensors, .ranks = 1});
    MUST(runtime_add(&run, &g, &p));
    MUST(runtime_bind(&run));
    assert_int_equal(p->plan.offset[ids[0]] != p->plan.offset[ids[1]], keep);
    assert_int_equal(count_batched(p, &launches), keep ? 2 : 0);
    runtime_close(&run);
    store_close(&tensors);
    device->ops->close(device);
}

static void memory_taken_over_ends_a_run(void **state)
{
    (void)state;
    check_two_losses(true);
    check_two_losses(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_a_step_have_no_order),
        cmocka_unit_test(memory_taken_over_ends_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
