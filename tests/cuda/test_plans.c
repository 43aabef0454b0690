/* Every convolution of every network, forward and backward, as its training step has it, has a tensor-core plan on
 * every generation of GPUs; and plans outlive the process on disk. Nothing is run: cuDNN plans for descriptions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../graph/recipe.h"
#include "base/error.h"
#include "devices.h"
#include "kernels/cuda/library/cudnn_convolutions.h"
#include "kernels/cuda/library/cudnn_graph.h"
#include "kernels/cuda/library/cudnn_plan.h"
#include "kernels/cuda/lower/cuda_backend.h"
#include "model/step.h"
#include "usual_layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- native kernels and products that the lowering names; nothing is launched here ---- */

size_t cuda_column_sums_bytes(int64_t rows, int64_t columns)
{
    return rows > 0 ? (size_t)columns * sizeof(float) : 0;
}

int cuda_column_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns, float *sums,
                     void *workspace)
{
    (void)self, (void)x, (void)type, (void)rows, (void)columns, (void)sums, (void)workspace;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

size_t cuda_channel_sums_bytes(int64_t rows, int64_t columns)
{
    return rows > 0 ? (size_t)columns * sizeof(double) : 0;
}

int cuda_channel_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns,
                      double *sums, void *workspace)
{
    (void)self, (void)x, (void)type, (void)rows, (void)columns, (void)sums, (void)workspace;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

int cuda_widen_sums(const cuda_backend *self, const float *sum, const float *square_sum, int64_t columns, double *sums)
{
    (void)self, (void)sum, (void)square_sum, (void)columns, (void)sums;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

float cuda_kernel_time(cuda_backend *self, const kernel *k, size_t workspace)
{
    (void)self, (void)k, (void)workspace;
    return 1;
}

int cuda_add_bias(const cuda_backend *self, void *y, uint8_t type, int64_t rows, int64_t columns, const float *bias)
{
    (void)self, (void)y, (void)type, (void)rows, (void)columns, (void)bias;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

int cuda_convert(const cuda_backend *self, const float *from, uint8_t type, int64_t count, void *to)
{
    (void)self, (void)from, (void)type, (void)count, (void)to;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

int cuda_convert_to_float(const cuda_backend *self, const void *from, uint8_t type, int64_t count, float *to)
{
    (void)self, (void)from, (void)type, (void)count, (void)to;
    return error_set(ERROR_INTERNAL, "nothing is launched here");
}

/* ---- the convolutions of all networks, each shape once ---- */

enum { MAX_LAYERS = 4096 };

typedef struct {
    kernel_request request;
    char label[96];
} layer;

typedef struct {
    int count;
    layer *layers;
} layer_list;

static bool is_convolution(const graph_node *node)
{
    const op_attr *a = &node->attr;
    bool product = a->kernel == 1 && a->stride == 1 && a->pad == 0 && a->groups == 1;
    return (node->op == OP_CONV2D || node->op == OP_CONV2D_DGRAD || node->op == OP_CONV2D_WGRAD) && !product;
}

/* Without sums a fusion is a product. */
static bool is_fusion(const kernel_request *r)
{
    return r->node.op == OP_CONV2D && r->node.attr.kernel == 1 && r->node.attr.stride == 1;
}

/* A fusion whose operands lie side by side is a 1x1 convolution of both, where it gives sums. */
static void as_convolution(kernel_request *r)
{
    if (r->node.op != OP_CONCAT_LINEAR)
        return;
    r->node.op = OP_CONV2D;
    r->node.attr = (op_attr){.kernel = 1, .stride = 1, .groups = 1};
    r->in[0].dim[3] += r->in[1].dim[3];
    r->in[1] = r->in[2];
    r->in[2] = (tensor_desc){0};
}

static bool same_shape(const kernel_request *a, const kernel_request *b)
{
    for (int i = 0; i < 2; i++)
        if (memcmp(a->in[i].dim, b->in[i].dim, sizeof a->in[i].dim) != 0)
            return false;
    const op_attr *x = &a->node.attr, *y = &b->node.attr;
    return a->node.op == b->node.op && memcmp(a->out[0].dim, b->out[0].dim, sizeof a->out[0].dim) == 0 &&
           x->kernel == y->kernel && x->stride == y->stride && x->pad == y->pad && x->groups == y->groups &&
           (tensor_count(&a->in[2]) > 0) == (tensor_count(&b->in[2]) > 0);
}

static int add_layer(layer_list *list, const graph *g, const graph_node *node, const char *network)
{
    layer new = {.request.node = *node};
    for (int i = 0; i < node->n_in; i++)
        new.request.in[i] = *graph_desc(g, node->in[i]);
    for (int i = 0; i < node->n_out; i++)
        if (node->out[i])
            new.request.out[i] = *graph_desc(g, node->out[i]);
    as_convolution(&new.request);
    snprintf(new.label, sizeof new.label, "%s %s", network, node->label);
    for (int i = 0; i < list->count; i++)
        if (same_shape(&list->layers[i].request, &new.request))
            return 0;
    CHECK(list->count < MAX_LAYERS, ERROR_MEMORY, "more than %d different layers", MAX_LAYERS);
    list->layers[list->count++] = new;
    return 0;
}

static int add_network(layer_list *list, const network_row *row)
{
    const int32_t batch = row->input < 64 ? 128 : 256;
    step_options options = recipe_step(row);
    options.model.padded_channels = PADDED_IMAGE_CHANNELS;
    const step_shape shape = {
        .training = true, .batch = batch, .global_batch = batch, .loss_batch = batch, .place = MICRO_BATCH_WHOLE};
    graph g;
    model m;
    graph_init(&g, DTYPE_F32);
    int code = step_build_training(&g, &m, &options, &shape);
    for (uint32_t i = 0; i < g.n_nodes && code == 0; i++)
        if (is_convolution(&g.nodes[i]) || g.nodes[i].op == OP_CONCAT_LINEAR)
            code = add_layer(list, &g, &g.nodes[i], row->name);
    model_free(&m);
    graph_free(&g);
    return code;
}

static int collect_layers(layer_list *list)
{
    list->layers = calloc(MAX_LAYERS, sizeof *list->layers);
    CHECK(list->layers, ERROR_MEMORY, "no memory for the layers");
    for (int i = 0; network_at(i); i++)
        TRY(add_network(list, network_at(i)));
    return 0;
}

/* ---- plans ---- */

typedef struct {
    const described_gpu *gpu;
    layer_list list;
} setting;

static cuda_libraries *open_libraries(void)
{
    cuda_libraries *libraries = NULL;
    assert_int_equal(cuda_libraries_open(&libraries), 0);
    if (cuda_library_check(libraries, CUDA_CUDNN) < 0) {
        print_message("%s\n", error_message());
        cuda_libraries_close(libraries);
        skip();
    }
    return libraries;
}

static cuda_convolutions *open_for(const cuda_libraries *libraries, const described_gpu *gpu,
                                   cuda_convolutions_options options)
{
    char json[GPU_JSON_BYTES], name[64];
    cuda_convolutions *convolutions = NULL;
    described_gpu_json(gpu, json);
    snprintf(name, sizeof name, "sm%d-%d", gpu->sm, gpu->multiprocessors);
    options.device = json;
    options.model = name;
    if (cuda_convolutions_open(&convolutions, libraries, &options) < 0)
        fail_msg("%s: %s", gpu->name, error_message());
    return convolutions;
}

static int prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    switch (k->request.node.op) {
    case OP_CONV2D:
        return cuda_conv2d_prepare(self, k, workspace);
    case OP_CONV2D_DGRAD:
        return cuda_conv2d_dgrad_prepare(self, k, workspace);
    default:
        return cuda_conv2d_wgrad_prepare(self, k, workspace);
    }
}

/* A layer in 16 bits; biases and gradients of weights are float32. */
static void set_type(kernel_request *r, uint8_t type)
{
    r->in[0].dtype = r->in[1].dtype = type;
    r->out[0].dtype = r->node.op == OP_CONV2D_WGRAD ? DTYPE_F32 : type;
}

typedef struct {
    int layers, tensor_cores;
    size_t workspace;
} tally;

static int try_layer(cuda_backend *self, const layer *l, uint8_t type, tally *sum)
{
    kernel k = {.request = l->request};
    size_t workspace = 0;
    set_type(&k.request, type);
    sum->layers++;
    if (prepare(self, &k, &workspace) < 0) {
        print_message("  %s: %s\n", l->label, error_message());
        return 1;
    }
    bool tensor_cores = cuda_convolution_chosen(k.plan).tensor_cores;
    if (!tensor_cores)
        print_message("  %s (%s): no plan with tensor cores\n", l->label, op_name(l->request.node.op));
    sum->tensor_cores += tensor_cores;
    sum->workspace = workspace > sum->workspace ? workspace : sum->workspace;
    k.release_plan(k.plan);
    return tensor_cores ? 0 : 1;
}

/* Every layer; returns how many lack a tensor-core plan. */
static int try_gpu(const cuda_libraries *libraries, const described_gpu *gpu, uint8_t type, const layer_list *list)
{
    tally sums[OP_COUNT] = {0};
    static const op_id ops[] = {OP_CONV2D, OP_CONV2D_DGRAD, OP_CONV2D_WGRAD};
    int lacking = 0;
    cuda_backend self = {.real = (dtype)type, .convolutions = open_for(libraries, gpu, (cuda_convolutions_options){0})};
    for (int i = 0; i < list->count; i++)
        if (!is_fusion(&list->layers[i].request))
            lacking += try_layer(&self, &list->layers[i], type, &sums[list->layers[i].request.node.op]);
    print_message("sm_%-4d %-9s", gpu->sm, dtype_name(type));
    for (int i = 0; i < 3; i++)
        print_message(" %12s %3d of %3d, %4.0f MiB", op_name(ops[i]), sums[ops[i]].tensor_cores, sums[ops[i]].layers,
                      (double)sums[ops[i]].workspace / 0x1p20);
    print_message("\n");
    cuda_convolutions_close(self.convolutions);
    return lacking;
}

static void tensor_core_plans(void **state)
{
    const setting *s = *state;
    cuda_libraries *libraries = open_libraries();
    print_message("tensor-core plans of distinct layers, and the largest workspace:\n");
    int lacking = try_gpu(libraries, s->gpu, DTYPE_F16, &s->list);
    if (s->gpu->bfloat16)
        lacking += try_gpu(libraries, s->gpu, DTYPE_BF16, &s->list);
    cuda_libraries_close(libraries);
    assert_int_equal(lacking, 0);
}

/* cuDNN 9.19 has no TF32 plan for the weights of a first layer: the one layer that does without. */
static bool is_stem_gradient(const kernel_request *r)
{
    return r->node.op == OP_CONV2D_WGRAD && r->in[0].dim[3] == 8;
}

/* float32 without TF32 takes no tensor cores, with it it does; either way there is a plan. */
static void float32_plans(void **state)
{
    const setting *s = *state;
    cuda_libraries *libraries = open_libraries();
    for (int tf32 = 0; tf32 < 2; tf32++) {
        cuda_backend self = {.real = DTYPE_F32, .tf32 = tf32};
        self.convolutions = open_for(libraries, s->gpu, (cuda_convolutions_options){.tf32 = tf32});
        int tensor_cores = 0, layers = 0;
        for (int i = 0; i < s->list.count; i += 7) {
            kernel k = {.request = s->list.layers[i].request};
            if (is_fusion(&k.request))
                continue;
            layers++;
            size_t workspace = 0;
            if (prepare(&self, &k, &workspace) < 0)
                fail_msg("%s: %s", s->list.layers[i].label, error_message());
            bool uses_them = cuda_convolution_chosen(k.plan).tensor_cores;
            if (tf32 && !uses_them)
                print_message("  %s (%s): no tensor cores\n", s->list.layers[i].label,
                              op_name(s->list.layers[i].request.node.op));
            tensor_cores += uses_them || (tf32 && s->gpu->sm >= 80 && is_stem_gradient(&k.request));
            k.release_plan(k.plan);
        }
        print_message("sm_%-4d float32%s: %d of %d with tensor cores\n", s->gpu->sm, tf32 ? " (TF32)" : "",
                      tensor_cores, layers);
        assert_int_equal(tensor_cores, tf32 && s->gpu->sm >= 80 ? layers : 0);
        cuda_convolutions_close(self.convolutions);
    }
    cuda_libraries_close(libraries);
}

static bool has_sums(const kernel_request *r)
{
    /* cuDNN 9.19 has none for it, nor for groups, nor on sm_90 for larger feature maps. */
    bool first_layer = r->in[0].dim[3] == 8;
    return r->node.op == OP_CONV2D && tensor_count(&r->in[2]) == 0 && r->node.attr.groups == 1 && !first_layer &&
           tensor_count(&r->in[0]) <= INT32_MAX;
}

/* Generations for which cuDNN 9.19 has precompiled plans of a convolution in float16 that adds up what it writes. */
static bool adds_up(const described_gpu *gpu)
{
    return gpu->sm == 80 || gpu->sm == 89 || gpu->sm == 90 || gpu->sm == 100;
}

static cuda_convolution_desc describe(const kernel_request *r, uint8_t type, bool statistics)
{
    static const cuda_convolution_kind kinds[] = {[OP_CONV2D] = CUDA_CONVOLUTION_FORWARD,
                                                  [OP_CONV2D_DGRAD] = CUDA_CONVOLUTION_DGRAD,
                                                  [OP_CONV2D_WGRAD] = CUDA_CONVOLUTION_WGRAD};
    const tensor_desc *x = r->node.op == OP_CONV2D_DGRAD ? &r->out[0] : &r->in[0];
    const tensor_desc *y = r->node.op == OP_CONV2D ? &r->out[0] : r->node.op == OP_CONV2D_DGRAD ? &r->in[0] : &r->in[1];
    return (cuda_convolution_desc){.kind = kinds[r->node.op],
                                   .batch = x->dim[0],
                                   .height = x->dim[1],
                                   .width = x->dim[2],
                                   .channels = x->dim[3],
                                   .out_height = y->dim[1],
                                   .out_width = y->dim[2],
                                   .out_channels = y->dim[3],
                                   .kernel = r->node.attr.kernel,
                                   .stride = r->node.attr.stride,
                                   .pad = r->node.attr.pad,
                                   .groups = r->node.attr.groups,
                                   .type = type,
                                   .bias = tensor_count(&r->in[2]) > 0 && r->node.op == OP_CONV2D,
                                   .statistics = statistics};
}

static void plans_with_sums(void **state)
{
    const setting *s = *state;
    cuda_libraries *libraries = open_libraries();
    cuda_backend self = {.real = DTYPE_F16};
    int layers = 0, found = 0;
    self.convolutions = open_for(libraries, s->gpu, (cuda_convolutions_options){0});
    for (int i = 0; i < s->list.count; i++) {
        const kernel_request *r = &s->list.layers[i].request;
        cuda_convolution_desc desc = describe(r, DTYPE_F16, true);
        cuda_convolution *convolution = NULL;
        size_t workspace = 0;
        if (!has_sums(r))
            continue;
        layers++;
        assert_int_equal(cuda_sums_way_known(self.convolutions, &desc), CUDA_SUMS_APART); /* nothing can be measured */
        if (cuda_convolution_prepare(self.convolutions, &desc, &convolution, &workspace) < 0) {
            if (adds_up(s->gpu))
                print_message("  %s: %s\n", s->list.layers[i].label, error_message());
            continue;
        }
        found++;
        cuda_convolution_release(convolution);
    }
    print_message("sm_%d float16: %d of %d convolutions can add up what they write\n", s->gpu->sm, found, layers);
    assert_int_equal(found, adds_up(s->gpu) ? layers : 0);
    cuda_convolutions_close(self.convolutions);
    cuda_libraries_close(libraries);
}

/* ---- what would be timed on a GPU ---- */

enum { TIMED = 24, COMPILED = 2, EVERY = 5 };

typedef struct {
    int layers, plans, fewest, compiled;
} timed_plans;

static void count_plans(const cudnn_scope *device, const cudnn_rules *rules, const cuda_convolution_desc *desc,
                        timed_plans *sum)
{
    cudnn_scope s;
    cudnn_plan plans[TIMED];
    cudnn_scope_init(&s, device->api);
    cudnnBackendDescriptor_t operations = cudnn_convolution_graph(&s, desc);
    int count = cudnn_plan_find(&s, operations, rules, TIMED, plans), compiled = 0;
    for (int i = 0; i < count; i++)
        compiled += plans[i].run_time_compiled;
    if (count > 0) {
        sum->fewest = sum->layers == 0 || count < sum->fewest ? count : sum->fewest;
        sum->layers++;
        sum->plans += count;
        sum->compiled += compiled;
    }
    cudnn_scope_free(&s);
}

/* With a driver cuDNN also offers engines that it compiles at run time, for seconds each: none is wanted. */
static void plans_to_time(void **state)
{
    const setting *s = *state;
    cuda_libraries *libraries = open_libraries();
    char json[GPU_JSON_BYTES];
    described_gpu_json(s->gpu, json);
    for (int t = 0; t < (s->gpu->bfloat16 ? 2 : 1); t++) {
        const uint8_t type = t ? DTYPE_BF16 : DTYPE_F16;
        timed_plans plain = {0}, sums = {0};
        cudnn_scope device;
        cudnn_scope_init(&device, libraries);
        cudnn_rules rules = {.tensor_cores = true, .compiled = COMPILED, .workspace_limit = (size_t)1 << 30};
        rules.device = cudnn_new(&device, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
        cudnn_set(&device, rules.device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                  (int64_t)strlen(json), json);
        cudnn_finalize(&device, rules.device, "a described GPU");
        assert_int_equal(cudnn_scope_status(&device), 0);
        cudnn_rules rules_of_sums = rules;
        rules_of_sums.unnoted = true;
        rules_of_sums.compiled = 0;
        int layers = 0;
        for (int i = 0; i < s->list.count; i += EVERY, layers++) {
            const kernel_request *r = &s->list.layers[i].request;
            const cuda_convolution_desc desc = describe(r, type, false), with_sums = describe(r, type, true);
            count_plans(&device, &rules, &desc, &plain);
            if (has_sums(r))
                count_plans(&device, &rules_of_sums, &with_sums, &sums);
        }
        print_message("sm_%-4d %-9s %d convolutions: %d plans to time, at least %d; %d with sums: %d, at least %d; "
                      "%d compiled at run time\n",
                      s->gpu->sm, dtype_name(type), plain.layers, plain.plans, plain.fewest, sums.layers, sums.plans,
                      sums.fewest, plain.compiled + sums.compiled);
        assert_int_equal(plain.layers, layers);
        assert_int_equal(plain.compiled + sums.compiled, 0);
        cudnn_scope_free(&device);
    }
    cuda_libraries_close(libraries);
}

static cuda_convolution_choice choose(cuda_convolutions *convolutions, cuda_convolution_kind kind)
{
    cuda_convolution_desc desc = usual_layer;
    desc.kind = kind;
    cuda_convolution *convolution = NULL;
    size_t workspace = 0;
    if (cuda_convolution_prepare(convolutions, &desc, &convolution, &workspace) < 0)
        fail_msg("%s", error_message());
    cuda_convolution_choice choice = cuda_convolution_chosen(convolution);
    assert_int_equal(choice.workspace, workspace);
    assert_int_equal(cuda_convolution_run(convolution, &(cuda_convolution_args){0}), ERROR_KERNEL); /* no GPU */
    cuda_convolution_release(convolution);
    return choice;
}

static void damage_files(const char *root)
{
    char command[256];
    snprintf(command, sizeof command,
             "for f in '%s'/*/*; do printf x | dd of=\"$f\" bs=1 seek=200 conv=notrunc status=none || exit 1; done",
             root);
    assert_int_equal(system(command), 0);
}

/* A plan comes back from disk; not for another rule or GPU, nor from a damaged file. */
static void plans_on_disk(void **state)
{
    const setting *s = *state;
    char root[] = "/tmp/teskd_plans_XXXXXX", command[64];
    assert_non_null(mkdtemp(root));
    cuda_libraries *libraries = open_libraries();
    for (int kind = CUDA_CONVOLUTION_FORWARD; kind <= CUDA_CONVOLUTION_WGRAD; kind++) {
        static const bool cached[] = {false, true, false, false, false, true};
        for (int visit = 0; visit < 6; visit++) {
            described_gpu gpu = *s->gpu;
            gpu.multiprocessors -= visit == 3;
            cuda_convolutions_options options = {.cache = root, .deterministic = visit == 2};
            if (visit == 4)
                damage_files(root);
            cuda_convolutions *convolutions = open_for(libraries, &gpu, options);
            assert_int_equal(choose(convolutions, (cuda_convolution_kind)kind).from_cache, cached[visit]);
            cuda_convolutions_close(convolutions);
        }
    }
    cuda_libraries_close(libraries);
    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

/* test_plans [75 | 80 | ...]: a process for each GPU, because cuDNN keeps what it learns of the first it plans for. */
int main(int count, char **words)
{
    setting s = {0};
    int sm = count > 1 ? atoi(words[1]) : 90;
    for (int i = 0; i < described_gpu_count; i++)
        if (described_gpus[i].sm == sm)
            s.gpu = &described_gpus[i];
    if (!s.gpu) {
        fprintf(stderr, "no described GPU of sm_%d\n", sm);
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(tensor_core_plans, &s), cmocka_unit_test_prestate(float32_plans, &s),
        cmocka_unit_test_prestate(plans_with_sums, &s), cmocka_unit_test_prestate(plans_to_time, &s),
        cmocka_unit_test_prestate(plans_on_disk, &s)};
    if (collect_layers(&s.list) < 0) {
        fprintf(stderr, "%s\n", error_message());
        return 2;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(s.list.layers);
    return failed;
}
