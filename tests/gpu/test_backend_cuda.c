/* The CUDA backend on a GPU against the float64 reference, in one precision a run: every op of the list of layers, also
 * in place, and every convolution and matrix product of real networks' training steps, at small batches. A test an op,
 * so that a failing one hides no other.
 *
 *     test_backend_cuda fp32|tf32|fp16|bf16 [--deterministic] [--tuned] [--own]
 *
 * --tuned chooses plans and products by time, as training does, and asks the networks' convolutions for the sums of
 * their results; --own leaves out what NVIDIA's libraries compute. Exit code 77: no GPU, or one without this precision.
 * One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../graph/recipe.h"
#include "base/error.h"
#include "kernels/cuda/device/cuda_devices.h"
#include "kernels/cuda/device/cuda_open.h"
#include "model/step.h"
#include "op_cases.h"
#include "op_check.h"
#include "sums_twice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CHECKS = 4096, SKIPPED = 77 };

static const struct {
    const char *name;
    dtype activation;
    double bound; /* relative L2 of an op against float64 on the same inputs */
} precisions[] = {[CUDA_FP16] = {"fp16", DTYPE_F16, 2e-3},
                  [CUDA_BF16] = {"bf16", DTYPE_BF16, 1e-2},
                  [CUDA_TF32] = {"tf32", DTYPE_F32, 1e-3},
                  [CUDA_FP32] = {"fp32", DTYPE_F32, 1e-5}};
enum { PRECISIONS = sizeof precisions / sizeof precisions[0] };

/* Networks whose layers together have the kinds of shapes of all others. */
static const struct {
    const char *network;
    bool students, rewritten;
    int32_t batch;
} networks[] = {{"cifarresnet18", true, true, 4}, {"cifarresnet18", true, false, 4}, {"resnet18", true, true, 2},
                {"resnet50", false, true, 2},     {"resnext18", true, true, 4},      {"vgg16", true, true, 4}};
enum { NETWORKS = sizeof networks / sizeof networks[0] };

typedef struct {
    backend *tested, *reference;
    double bound;
} devices;

typedef struct {
    const devices *on;
    kernel_request tested, reference; /* alike but for the dtypes */
    int in_place;
    char name[192];
} op_test;

typedef struct {
    devices on;
    dtype activation;
    bool own;   /* no products and convolutions */
    bool tuned; /* by time */
    int count;
    op_test *checks;
} check_list;

static bool is_product(unsigned op)
{
    return op == OP_CONV2D || op == OP_CONV2D_DGRAD || op == OP_CONV2D_WGRAD || op == OP_LINEAR ||
           op == OP_LINEAR_DGRAD || op == OP_LINEAR_WGRAD || op == OP_CONCAT_LINEAR || op == OP_CONCAT_LINEAR_DGRAD ||
           op == OP_CONCAT_LINEAR_WGRAD || op == OP_CHANNEL_MOMENTS || op == OP_LINEAR_BN || op == OP_LINEAR_BN_DGRAD;
}

static int add_check(check_list *list, const kernel_request *tested, const kernel_request *reference, int in_place,
                     const char *name)
{
    CHECK(list->count < MAX_CHECKS, ERROR_MEMORY, "more than %d ops to check", MAX_CHECKS);
    op_test *new = &list->checks[list->count++];
    *new = (op_test){.on = &list->on, .tested = *tested, .reference = *reference, .in_place = in_place};
    snprintf(new->name, sizeof new->name, "%.170s%s", name, in_place >= 0 ? " in place" : "");
    new->tested.label = new->reference.label = new->name;
    return 0;
}

static int add_cases(check_list *list)
{
    for (int row = 0; row < layer_case_count; row++) {
        kernel_request tested[LAYER_MAX_OPS], reference[LAYER_MAX_OPS];
        int count = layer_requests(&layer_cases[row], list->activation, tested);
        layer_requests(&layer_cases[row], DTYPE_F64, reference);
        for (int i = 0; i < count; i++) {
            char name[160];
            unsigned op = tested[i].node.op;
            if (list->own && is_product(op))
                continue;
            layer_describe(&layer_cases[row], op_case_name(op), name, sizeof name);
            TRY(add_check(list, &tested[i], &reference[i], -1, name));
            if (op_case_in_place(op) >= 0)
                TRY(add_check(list, &tested[i], &reference[i], op_case_in_place(op), name));
            kernel_request fused = tested[i], reference_fused = reference[i];
            if (op_fused(&fused) && op_fused(&reference_fused))
                TRY(add_check(list, &fused, &reference_fused, -1, name));
            strncat(name, " in patches", sizeof name - strlen(name) - 1);
            for (int32_t patch = 2; patch <= 8; patch *= 2)
                if (op_in_patches(&tested[i], patch))
                    TRY(add_check(list, &tested[i], &reference[i], -1, name));
        }
    }
    return 0;
}

/* ---- the products and convolutions of networks, each shape once ---- */

static bool same_tensor(const tensor_desc *a, const tensor_desc *b)
{
    return memcmp(a->dim, b->dim, sizeof a->dim) == 0 && a->dtype == b->dtype && a->layout == b->layout;
}

static bool same_request(const kernel_request *a, const kernel_request *b)
{
    const op_attr *x = &a->node.attr, *y = &b->node.attr;
    bool same = a->node.op == b->node.op && x->kernel == y->kernel && x->stride == y->stride && x->pad == y->pad &&
                x->groups == y->groups;
    for (int i = 0; i < 3; i++)
        same = same && same_tensor(&a->in[i], &b->in[i]);
    return same && same_tensor(&a->out[0], &b->out[0]) && same_tensor(&a->out[1], &b->out[1]);
}

/* Rows side by side are checked as rows of their own. */
static tensor_desc plain(const tensor_desc *t)
{
    tensor_desc copy = *t;
    copy.row_stride = copy.patch = 0;
    return copy;
}

static tensor_desc in_float64(const tensor_desc *t)
{
    tensor_desc copy = *t;
    if (copy.dtype == DTYPE_F32 || copy.dtype == DTYPE_F16 || copy.dtype == DTYPE_BF16)
        copy.dtype = DTYPE_F64;
    return copy;
}

static int add_node(check_list *list, const graph *g, const graph_node *node, const char *network)
{
    char name[160];
    kernel_request tested = {.node = *node}, reference;
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i])
            tested.in[i] = plain(graph_desc(g, node->in[i]));
    for (int i = 0; i < node->n_out; i++)
        if (node->out[i])
            tested.out[i] = plain(graph_desc(g, node->out[i]));
    for (int i = 0; i < list->count; i++)
        if (same_request(&list->checks[i].tested, &tested))
            return 0;
    reference = tested;
    for (int i = 0; i < NODE_MAX_IN; i++)
        reference.in[i] = in_float64(&tested.in[i]);
    for (int i = 0; i < NODE_MAX_OUT; i++)
        reference.out[i] = in_float64(&tested.out[i]);
    snprintf(name, sizeof name, "%s of %s, %.80s", op_name((op_id)node->op), network, node->label);
    TRY(add_check(list, &tested, &reference, -1, name));
    if (!list->tuned || !op_fused(&tested) || !op_fused(&reference))
        return 0;
    strncat(name, " with sums", sizeof name - strlen(name) - 1);
    return add_check(list, &tested, &reference, -1, name);
}

static int add_network(check_list *list, int index)
{
    const network_row *row = network_find(networks[index].network);
    const bool rewritten = networks[index].rewritten;
    const int32_t batch = networks[index].batch;
    CHECK(row, ERROR_INTERNAL, "there is no network \"%s\"", networks[index].network);
    step_options options = recipe_step(row);
    options.model.teskd = networks[index].students;
    options.precision = (precision_options){list->activation, list->activation == DTYPE_F16};
    options.rewrites = rewritten ? REWRITE_ALL : REWRITE_NONE;
    const step_shape shape = {
        .training = true, .batch = batch, .global_batch = batch, .loss_batch = batch, .place = MICRO_BATCH_WHOLE};
    graph g;
    model m;
    graph_init(&g, DTYPE_F32);
    int code = step_build_training(&g, &m, &options, &shape);
    for (uint32_t i = 0; i < g.n_nodes && code == 0; i++)
        if (is_product(g.nodes[i].op))
            code = add_node(list, &g, &g.nodes[i], row->name);
    model_free(&m);
    graph_free(&g);
    return code;
}

static int add_networks(check_list *list)
{
    for (int i = 0; i < NETWORKS && !list->own; i++)
        TRY(add_network(list, i));
    return 0;
}

/* ---- running ---- */

static void check_one(void **state)
{
    const op_test *t = *state;
    op_check_request(t->on->tested, t->on->reference, &t->tested, &t->reference, t->in_place, t->on->bound, t->name);
}

static int run_checks(check_list *list)
{
    struct CMUnitTest *tests = calloc((size_t)list->count, sizeof *tests);
    if (!tests)
        return 1;
    for (int i = 0; i < list->count; i++)
        tests[i] = (struct CMUnitTest){
            .name = list->checks[i].name, .test_func = check_one, .initial_state = &list->checks[i]};
    int failed = _cmocka_run_group_tests("the CUDA backend", tests, (size_t)list->count, NULL, NULL);
    free(tests);
    return failed ? 1 : 0;
}

static int check_all(check_list *list)
{
    int code = 1;
    list->checks = calloc(MAX_CHECKS, sizeof *list->checks);
    if (!list->checks || add_cases(list) < 0 || add_networks(list) < 0)
        fprintf(stderr, "%s\n", list->checks ? error_message() : "no memory");
    else
        code = run_checks(list);
    if (list->tuned && list->activation != DTYPE_F32 && check_sums_twice(list->on.tested, (uint8_t)list->activation))
        code = 1;
    free(list->checks);
    return code;
}

static int precision_of(const char *name)
{
    for (int i = 0; i < PRECISIONS; i++)
        if (strcmp(precisions[i].name, name) == 0)
            return i;
    return -1;
}

static int open_and_check(check_list *list, const cuda_options *options)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int code = backend_cuda_open(&list->on.tested, options);
    if (code < 0) {
        fprintf(stderr, "%s\n", error_message());
        return code == ERROR_SETTINGS ? SKIPPED : 1; /* a precision that this GPU has not, or a real failure */
    }
    code = 1;
    if (backend_reference_open(&list->on.reference, cores > 1 ? (int)cores : 1) == 0) {
        printf("%s\n", list->on.tested->ops->description(list->on.tested));
        code = check_all(list);
        list->on.reference->ops->close(list->on.reference);
    }
    list->on.tested->ops->close(list->on.tested);
    return code;
}

int main(int count, char **words)
{
    check_list list = {0};
    char cache[] = "/tmp/teskd_test_plans_XXXXXX", command[64];
    int precision = count > 1 ? precision_of(words[1]) : -1;
    cuda_options options = {.precision = (cuda_precision)precision, .plan_cache = cache};
    for (int i = 2; i < count; i++) {
        list.own |= strcmp(words[i], "--own") == 0;
        list.tuned |= strcmp(words[i], "--tuned") == 0;
        options.deterministic |= strcmp(words[i], "--deterministic") == 0;
    }
    options.tune = list.tuned;
    if (precision < 0) {
        fprintf(stderr, "usage: %s fp32|tf32|fp16|bf16 [--deterministic] [--tuned] [--own]\n", words[0]);
        return 2;
    }
    if (cuda_device_count() <= 0) {
        fprintf(stderr, "no GPU: %s\n", error_message());
        return SKIPPED;
    }
    list.activation = precisions[precision].activation;
    list.on.bound = precisions[precision].bound;
    if (!mkdtemp(cache))
        return 1;
    int code = open_and_check(&list, &options);
    snprintf(command, sizeof command, "rm -r '%s'", cache);
    return system(command) == 0 ? code : 1;
}
