/* Owns the convolutions of cuDNN: the plan chosen for each shape, and its runs.
 * Invariant: a plan obeys the options that the convolutions were opened with, wherever it came from. One thread at a
 * time. */
#include "convolution.h"
#include "base/error.h"
#include "cudnn_convolution.h"
#include "cudnn_plan.h"
#include "graph/node.h"
#include "plan_cache.h"
#include "timing.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TUNED = 6, MAX_TUNED_COMPILED = 2, KEY_BYTES = 256 };

static const size_t workspace_limit = (size_t)1 << 30;

struct cuda_convolutions {
    const cuda_libraries *api;
    cudaStream_t stream;
    bool tf32, deterministic, tune;
    cudnnHandle_t handle; /* NULL without a GPU */
    cudnn_scope scope;    /* of the device description */
    cudnnBackendDescriptor_t device;
    plan_cache *cache; /* NULL for none */
};

struct cuda_convolution {
    const cuda_convolutions *owner;
    cuda_convolution_desc desc;
    cudnn_scope scope; /* what the plan refers to */
    cudnn_plan plan;
    bool from_cache;
};

/* The device's name and kind as a name for its folder of plans. Of cuDNN's JSON only these are read: the rest differs
 * between GPUs of one model. */
static void name_cache(const cuda_convolutions *c, const char *json, char *name, size_t bytes)
{
    int sm = 0, multiprocessors = 0, version = c->api->version[CUDA_CUDNN];
    char device[64] = "gpu";
    const char *found;
    if ((found = strstr(json, "\"deviceVer\":")))
        sscanf(found, "\"deviceVer\":%d", &sm);
    if ((found = strstr(json, "\"multiProcessorCount\":")))
        sscanf(found, "\"multiProcessorCount\":%d", &multiprocessors);
    if ((found = strstr(json, "\"deviceName\":")))
        sscanf(found, "\"deviceName\":\"%63[^\"]", device);
    snprintf(name, bytes, "cudnn-%d.%d.%d-sm%d-%s-%d", version / 10000, version % 10000 / 100, version % 100, sm / 10,
             device, multiprocessors);
}

static int open_cache(cuda_convolutions *c, const char *folder)
{
    char json[4096], name[160];
    int64_t length = 0;
    TRY(cudnn_check(c->api,
                    c->api->cudnnBackendGetAttribute(c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, sizeof json - 1, &length, json),
                    "description of the GPU"));
    json[length < (int64_t)sizeof json ? length : 0] = '\0';
    name_cache(c, json, name, sizeof name);
    return plan_cache_open(&c->cache, folder, name);
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
    c->tf32 = options->tf32;
    c->deterministic = options->deterministic;
    c->tune = options->tune && !options->deterministic && !options->device;
    cudnn_scope_init(&c->scope, libraries);
    int code = describe_device(c, options->device);
    if (code < 0) {
        cuda_convolutions_close(c);
        return code;
    }
    if (options->cache && open_cache(c, options->cache) < 0)
        c->cache = NULL; /* as where nothing is cached yet */
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

static cudnn_rules rules_of(const cuda_convolutions *c, const cuda_convolution_desc *desc)
{
    return (cudnn_rules){.device = c->device,
                         .tensor_cores = desc->type != DTYPE_F32 || c->tf32,
                         .only_tensor_cores = desc->only_tensor_cores,
                         .deterministic = c->deterministic,
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

/* Memory of one run, for timing; contents are zero. Freed with its `x`. */
static bool timing_memory(const cuda_convolution_desc *d, size_t workspace, cuda_convolution_args *args)
{
    size_t x = (size_t)d->batch * (size_t)d->height * (size_t)d->width * (size_t)d->channels * sizeof(float);
    size_t w = (size_t)d->out_channels * (size_t)(d->kernel * d->kernel) * (size_t)d->channels * sizeof(float);
    size_t y =
        (size_t)d->batch * (size_t)d->out_height * (size_t)d->out_width * (size_t)d->out_channels * sizeof(float);
    enum { PARTS = 7 };
    size_t vector = (size_t)d->out_channels * sizeof(float), offset[PARTS], total = 0;
    const size_t part[PARTS] = {x, w, y, vector, vector, vector, workspace};
    char *memory = NULL;
    for (int i = 0; i < PARTS; i++) {
        offset[i] = total;
        total += (part[i] + 255) / 256 * 256;
    }
    if (cudaMalloc((void **)&memory, total) != cudaSuccess)
        return false;
    cudaMemset(memory, 0, total);
    *args = (cuda_convolution_args){.x = memory + offset[0],
                                    .w = memory + offset[1],
                                    .y = memory + offset[2],
                                    .bias = (float *)(void *)(memory + offset[3]),
                                    .sum = (float *)(void *)(memory + offset[4]),
                                    .square_sum = (float *)(void *)(memory + offset[5]),
                                    .workspace = memory + offset[6]};
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

/* The fastest of the plans; the first one where timing cannot be done. */
static int fastest(const cuda_convolution *v, const cudnn_plan *plans, int count)
{
    cuda_convolution_args args = {0};
    size_t workspace = 0;
    int best = 0;
    float best_time = INFINITY;
    for (int i = 0; i < count; i++)
        workspace = plans[i].workspace > workspace ? plans[i].workspace : workspace;
    bool has_memory = timing_memory(&v->desc, workspace, &args);
    for (int i = 0; i < count && has_memory; i++) {
        const timed_plan timed = {v, &plans[i], &args};
        float time = cuda_time_work(v->owner->stream, run_plan, &timed);
        if (time < best_time) {
            best = i;
            best_time = time;
        }
    }
    cudaFree(args.x);
    cudaGetLastError(); /* memory that was not there is no failure of what comes next */
    return best;
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

static int choose_plan(cuda_convolution *v)
{
    cudnn_plan plans[MAX_TUNED];
    const cudnn_rules rules = rules_of(v->owner, &v->desc);
    cudnnBackendDescriptor_t graph = cudnn_convolution_graph(&v->scope, &v->desc);
    TRY(cudnn_scope_status(&v->scope));
    int wanted = !v->owner->tune ? 1 : v->desc.bias ? MAX_TUNED_COMPILED : MAX_TUNED; /* seconds each if compiled */
    int count = cudnn_plan_find(&v->scope, graph, &rules, wanted, plans);
    TRY(count);
    v->plan = plans[count > 1 ? fastest(v, plans, count) : 0];
    return 0;
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
