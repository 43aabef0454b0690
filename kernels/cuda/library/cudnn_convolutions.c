/* Owns the convolutions of cuDNN: the plan chosen for each shape, and its runs.
 * Invariant: a plan obeys the options that the convolutions were opened with, wherever it came from. One thread at a
 * time. */
#include "cudnn_convolutions.h"
#include "base/error.h"
#include "cudnn_graph.h"
#include "cudnn_plan.h"
#include "graph/node.h"
#include "plan_cache.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PLANS = 24, UNTUNED_PLANS = 4, TUNED_COMPILED = 2, KEY_BYTES = 256 };

static const size_t workspace_limit = (size_t)1 << 30;

struct cuda_convolutions {
    const cuda_libraries *api;
    cudaStream_t stream;
    cuda_timer *timer;
    bool tf32, deterministic, tune;
    cudnnHandle_t handle; /* NULL without a GPU */
    cudnn_scope scope;    /* of the device description */
    cudnnBackendDescriptor_t device;
    plan_cache *cache; /* NULL for none */
    char cache_problem[256];
};

struct cuda_convolution {
    const cuda_convolutions *owner;
    cuda_convolution_desc desc;
    cudnn_scope scope; /* what the plan refers to */
    cudnn_plan plan;
    bool from_cache;
    bool tried; /* the choice is what it would be again: there was memory to run plans, or no GPU */
};

static int open_cache(cuda_convolutions *c, const cuda_convolutions_options *options)
{
    char name[192];
    int version = c->api->version[CUDA_CUDNN];
    snprintf(name, sizeof name, "cudnn-%d.%d.%d-cuda%d-%s", version / 10000, version % 10000 / 100, version % 100,
             CUDART_VERSION / 1000, options->model);
    return plan_cache_open(&c->cache, options->cache, name);
}

static int describe_device(cuda_convolutions *c, const char *json)
{
    c->device = cudnn_new(&c->scope, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    if (json) {
        cudnn_set(&c->scope, c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                  (int64_t)strlen(json), json);
    } else {
        TRY(cudnn_check(c->api, c->api->cudnnCreate(&c->handle), "cuDNN"));
        TRY(cudnn_check(c->api, c->api->cudnnSetStream(c->handle, c->stream), "stream of cuDNN"));
        cudnn_set(&c->scope, c->device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle);
    }
    cudnn_finalize(&c->scope, c->device, "description of the GPU for cuDNN");
    return cudnn_scope_status(&c->scope);
}

int cuda_convolutions_open(cuda_convolutions **out, const cuda_libraries *libraries,
                           const cuda_convolutions_options *options)
{
    TRY(cuda_library_check(libraries, CUDA_CUDNN));
    cuda_convolutions *c = calloc(1, sizeof *c);
    CHECK(c, ERROR_MEMORY, "no memory for the convolutions");
    c->api = libraries;
    c->stream = options->stream;
    c->timer = options->timer;
    c->tf32 = options->tf32;
    c->deterministic = options->deterministic;
    c->tune = options->tune && !options->deterministic && !options->device;
    cudnn_scope_init(&c->scope, libraries);
    int code = describe_device(c, options->device);
    if (code < 0) {
        cuda_convolutions_close(c);
        return code;
    }
    if (options->cache && open_cache(c, options) < 0) {
        snprintf(c->cache_problem, sizeof c->cache_problem, "%s", error_message());
        plan_cache_open_memory(&c->cache); /* layers are alike */
    }
    *out = c;
    return 0;
}

void cuda_convolutions_close(cuda_convolutions *c)
{
    if (!c)
        return;
    plan_cache_close(c->cache);
    cudnn_scope_free(&c->scope);
    if (c->handle)
        c->api->cudnnDestroy(c->handle);
    free(c);
}

const char *cuda_convolutions_cache_problem(const cuda_convolutions *c)
{
    return c->cache_problem;
}

static const char *type_name(uint8_t type)
{
    return type == DTYPE_F16 ? "float16" : type == DTYPE_BF16 ? "bfloat16" : "float32";
}

static int key_of(const cuda_convolutions *c, const cuda_convolution_desc *d, char key[KEY_BYTES])
{
    static const char *const kinds[] = {"forward", "dgrad", "wgrad"};
    int length =
        snprintf(key, KEY_BYTES, "%s %dx%dx%dx%d to %dx%dx%d kernel %d stride %d pad %d groups %d %s%s%s%s%s%s%s",
                 kinds[d->kind], d->batch, d->height, d->width, d->channels, d->out_height, d->out_width,
                 d->out_channels, d->kernel, d->stride, d->pad, d->groups, type_name(d->type), d->bias ? " bias" : "",
                 d->statistics ? " statistics" : "", d->only_tensor_cores ? " tensor-cores" : "",
                 c->tf32 ? " tf32" : "", c->deterministic ? " deterministic" : "", c->tune ? " tuned" : "");
    CHECK(length < KEY_BYTES, ERROR_INTERNAL, "the key of a convolution is too long");
    return 0;
}

/* Those with statistics add up with atomics, and nobody says who clears the sums before. */
static int compiled_plans(const cuda_convolutions *c, const cuda_convolution_desc *desc)
{
    return desc->statistics ? 0 : c->tune ? TUNED_COMPILED : 1;
}

static cudnn_rules rules_of(const cuda_convolutions *c, const cuda_convolution_desc *desc)
{
    return (cudnn_rules){.device = c->device,
                         .tensor_cores = desc->type != DTYPE_F32 || c->tf32,
                         .only_tensor_cores = desc->only_tensor_cores,
                         .unnoted = desc->statistics,
                         .deterministic = c->deterministic,
                         .compiled = compiled_plans(c, desc),
                         .workspace_limit = workspace_limit};
}

static int execute(const cuda_convolution *v, const cudnn_plan *plan, const cuda_convolution_args *args)
{
    const cuda_libraries *api = v->owner->api;
    int64_t uid[6] = {UID_X, UID_W, UID_Y}, count = 3;
    const void *pointer[6] = {args->x, args->w, args->y};
    void *workspace = args->workspace;
    if (v->desc.bias) {
        uid[count] = UID_BIAS;
        pointer[count++] = args->bias;
    }
    if (v->desc.statistics) {
        uid[count] = UID_SUM;
        pointer[count++] = args->sum;
        uid[count] = UID_SQUARE_SUM;
        pointer[count++] = args->square_sum;
    }
    cudnn_scope s;
    cudnn_scope_init(&s, api);
    cudnnBackendDescriptor_t pack = cudnn_new(&s, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    cudnn_set_ints(&s, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, count, uid);
    cudnn_set(&s, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointer);
    cudnn_set(&s, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    cudnn_finalize(&s, pack, "pointers of a cuDNN plan");
    int code = cudnn_scope_status(&s);
    if (code == 0)
        code = cudnn_check(api, api->cudnnBackendExecute(v->owner->handle, plan->descriptor, pack), "convolution");
    cudnn_scope_free(&s);
    return code;
}

/* Memory of one run, for timing; freed with its `x`. */
static bool timing_memory(const cuda_convolution *v, size_t workspace, cuda_convolution_args *args)
{
    const cuda_convolution_desc *d = &v->desc;
    size_t element = dtype_bytes(d->type), channels = (size_t)d->out_channels, vector = channels * sizeof(float);
    size_t x = (size_t)d->batch * (size_t)d->height * (size_t)d->width * (size_t)d->channels * element;
    size_t w = channels * (size_t)(d->kernel * d->kernel) * (size_t)(d->channels / d->groups) * element;
    size_t y = (size_t)d->batch * (size_t)d->out_height * (size_t)d->out_width * channels * element;
    void *piece[7];
    if (!cuda_timing_memory(v->owner->stream, 7, (const size_t[7]){x, w, y, vector, vector, vector, workspace}, piece))
        return false;
    *args = (cuda_convolution_args){.x = piece[0],
                                    .w = piece[1],
                                    .y = piece[2],
                                    .bias = piece[3],
                                    .sum = piece[4],
                                    .square_sum = piece[5],
                                    .workspace = piece[6]};
    return true;
}

typedef struct {
    const cuda_convolution *convolution;
    const cudnn_plan *plan;
    const cuda_convolution_args *args;
} timed_plan;

static int run_plan(const void *what)
{
    const timed_plan *t = what;
    return execute(t->convolution, t->plan, t->args);
}

/* The fastest plan, or without tuning the first that works: what the heuristics promise may fail. -1 when none works.
 */
static int try_plans(const cuda_convolution *v, const cudnn_plan *plans, int count, const cuda_convolution_args *args)
{
    cudaStream_t stream = v->owner->stream;
    float best_time = INFINITY;
    int best = -1;
    for (int i = 0; i < count; i++) {
        const timed_plan timed = {v, &plans[i], args};
        if (!v->owner->tune && cuda_work_works(stream, run_plan, &timed))
            return i;
        float time = v->owner->tune ? cuda_time_work(v->owner->timer, run_plan, &timed, best_time) : INFINITY;
        if (time < best_time) {
            best = i;
            best_time = time;
        }
    }
    return best;
}

/* try_plans, and once more with plans made from their text where none works. */
static int try_all_ways(const cuda_convolution *v, cudnn_scope *s, cudnn_plan *plans, int count,
                        const cuda_convolution_args *args)
{
    const cudnn_rules rules = rules_of(v->owner, &v->desc);
    int best = try_plans(v, plans, count, args), remade = 0;
    for (int i = 0; i < count && best < 0; i++)
        remade += cudnn_plan_remake(s, &rules, &plans[i]) == 0;
    return remade > 0 ? try_plans(v, plans, count, args) : best;
}

/* The first one where nothing can be run. `s` owns the plans. */
static int choose_among(cuda_convolution *v, cudnn_scope *s, cudnn_plan *plans, int count, int *best)
{
    cuda_convolution_args args;
    size_t workspace = 0;
    *best = 0;
    for (int i = 0; i < count; i++)
        workspace = plans[i].workspace > workspace ? plans[i].workspace : workspace;
    if (!v->owner->handle || !timing_memory(v, workspace, &args)) {
        v->tried = !v->owner->handle;
        return 0;
    }
    v->tried = true;
    *best = try_all_ways(v, s, plans, count, &args);
    cudaFree(args.x);
    CHECK(*best >= 0, ERROR_KERNEL, "none of %d plans of cuDNN works on this GPU", count);
    return 0;
}

static bool load_plan(cuda_convolution *v, const char *key)
{
    size_t bytes;
    const cudnn_rules rules = rules_of(v->owner, &v->desc);
    char *text = v->owner->cache ? plan_cache_get(v->owner->cache, key, &bytes) : NULL;
    bool loaded = text && cudnn_plan_load(&v->scope, &rules, text, bytes, &v->plan) == 0;
    free(text);
    return loaded;
}

/* A plan that cannot be kept is chosen again the next time. */
static void save_plan(cuda_convolution *v, const char *key)
{
    char *text = NULL;
    size_t bytes;
    if (v->owner->cache && cudnn_plan_save(&v->scope, &v->plan, &text, &bytes) == 0)
        plan_cache_put(v->owner->cache, key, text, bytes);
    free(text);
}

/* What other plans need is dropped with their scope. */
static int choose_plan(cuda_convolution *v)
{
    cudnn_plan plans[MAX_PLANS];
    cudnn_scope others;
    const cudnn_rules rules = rules_of(v->owner, &v->desc);
    int best = 0;
    cudnnBackendDescriptor_t graph = cudnn_convolution_graph(&v->scope, &v->desc);
    TRY(cudnn_scope_status(&v->scope));
    cudnn_scope_init(&others, v->owner->api);
    int count = cudnn_plan_find(&others, graph, &rules, v->owner->tune ? MAX_PLANS : UNTUNED_PLANS, plans);
    int code = count < 0 ? count : choose_among(v, &others, plans, count, &best);
    if (code == 0) {
        v->plan = plans[best];
        cudnn_scope_move(&others, &v->scope, v->plan.config);
        cudnn_scope_move(&others, &v->scope, v->plan.descriptor);
        code = cudnn_scope_status(&v->scope);
    }
    cudnn_scope_free(&others);
    return code;
}

static int prepare(cuda_convolution *v)
{
    char key[KEY_BYTES];
    TRY(key_of(v->owner, &v->desc, key));
    v->from_cache = load_plan(v, key);
    if (v->from_cache)
        return 0;
    int code = choose_plan(v);
    if (code < 0)
        return error_prefix(code, "%s", key);
    if (v->tried)
        save_plan(v, key);
    return 0;
}

int cuda_convolution_prepare(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_convolution **out,
                             size_t *workspace)
{
    cuda_convolution *v = calloc(1, sizeof *v);
    CHECK(v, ERROR_MEMORY, "no memory for a convolution");
    v->owner = self;
    v->desc = *desc;
    cudnn_scope_init(&v->scope, self->api);
    int code = prepare(v);
    if (code < 0) {
        cuda_convolution_release(v);
        return code;
    }
    *workspace = v->plan.workspace;
    *out = v;
    return 0;
}

int cuda_convolution_run(const cuda_convolution *v, const cuda_convolution_args *args)
{
    CHECK(v->owner->handle, ERROR_KERNEL, "a convolution was prepared for a GPU that is not there");
    return execute(v, &v->plan, args);
}

void cuda_convolution_release(cuda_convolution *v)
{
    if (!v)
        return;
    cudnn_scope_free(&v->scope);
    free(v);
}

cuda_convolution_choice cuda_convolution_chosen(const cuda_convolution *v)
{
    return (cuda_convolution_choice){v->plan.workspace, v->plan.tensor_cores, v->plan.run_time_compiled, v->from_cache};
}

/* ---- with or without the sums ---- */

static const char fused_text[] = "fused", apart_text[] = "apart";

static int way_key(const cuda_convolutions *self, const cuda_convolution_desc *desc, char key[KEY_BYTES])
{
    char of_plan[KEY_BYTES];
    TRY(key_of(self, desc, of_plan));
    int length = snprintf(key, KEY_BYTES, "way of %s", of_plan);
    CHECK(length < KEY_BYTES, ERROR_INTERNAL, "the key of a convolution is too long");
    return 0;
}

cuda_sums_way cuda_sums_way_known(cuda_convolutions *self, const cuda_convolution_desc *desc)
{
    char key[KEY_BYTES];
    size_t bytes = 0;
    if (!self->tune)
        return CUDA_SUMS_APART;
    char *text = self->cache && way_key(self, desc, key) == 0 ? plan_cache_get(self->cache, key, &bytes) : NULL;
    bool fused = text && bytes == strlen(fused_text) && memcmp(text, fused_text, bytes) == 0;
    bool apart = text && bytes == strlen(apart_text) && memcmp(text, apart_text, bytes) == 0;
    free(text);
    return fused ? CUDA_SUMS_FUSED : apart ? CUDA_SUMS_APART : CUDA_SUMS_UNKNOWN;
}

void cuda_sums_way_keep(cuda_convolutions *self, const cuda_convolution_desc *desc, cuda_sums_way way)
{
    char key[KEY_BYTES];
    const char *text = way == CUDA_SUMS_FUSED ? fused_text : apart_text;
    if (self->cache && way_key(self, desc, key) == 0)
        plan_cache_put(self->cache, key, text, strlen(text));
}
