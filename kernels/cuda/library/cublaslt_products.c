/* Owns the matrix products of cuBLASLt. It is column-major: a row-major matrix is its own transpose there. So c^T =
 * op(b)^T op(a)^T is computed, with our b as its A and our a as its B. Sums are float32, also those of split products,
 * and in a fixed order: the same bits every time. One thread at a time. */
#include "cublaslt_products.h"
#include "base/error.h"
#include "graph/node.h"
#include "plan_cache.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ALGORITHMS = 8, KEY_BYTES = 256 };

static const size_t workspace_limit = (size_t)32 << 20;

struct cuda_products {
    const cuda_libraries *api;
    cublasLtHandle_t handle;
    cudaStream_t stream;
    cuda_timer *timer;
    bool tf32, tune;
    plan_cache *cache; /* NULL for none */
};

struct cuda_product {
    const cuda_products *owner;
    cuda_product_desc desc;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t first, second, result;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
};

static int check(const cuda_libraries *api, cublasStatus_t status, const char *what)
{
    CHECK(status == CUBLAS_STATUS_SUCCESS, ERROR_KERNEL, "%s: %s", what, api->cublasLtGetStatusString(status));
    return 0;
}

/* An algorithm is bytes that mean something to the same version of cuBLASLt on the same kind of GPU. */
static void open_cache(cuda_products *self, const cuda_products_options *options)
{
    char name[192];
    snprintf(name, sizeof name, "cublaslt-%d-cuda%d-%s", self->api->version[CUDA_CUBLASLT], CUDART_VERSION / 1000,
             options->model);
    if (options->cache && options->tune && plan_cache_open(&self->cache, options->cache, name) < 0)
        plan_cache_open_memory(&self->cache); /* layers are alike */
}

int cuda_products_open(cuda_products **out, const cuda_libraries *libraries, const cuda_products_options *options)
{
    TRY(cuda_library_check(libraries, CUDA_CUBLASLT));
    cuda_products *self = calloc(1, sizeof *self);
    CHECK(self, ERROR_MEMORY, "no memory for the matrix products");
    self->api = libraries;
    self->stream = options->stream;
    self->timer = options->timer;
    self->tf32 = options->tf32;
    self->tune = options->tune;
    int code = check(libraries, libraries->cublasLtCreate(&self->handle), "cuBLASLt");
    if (code < 0) {
        free(self);
        return code;
    }
    open_cache(self, options);
    *out = self;
    return 0;
}

void cuda_products_close(cuda_products *self)
{
    if (!self)
        return;
    plan_cache_close(self->cache);
    self->api->cublasLtDestroy(self->handle);
    free(self);
}

static cudaDataType_t data_type(uint8_t type)
{
    return type == DTYPE_F16 ? CUDA_R_16F : type == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static int set(const cuda_product *p, cublasLtMatmulDescAttributes_t name, const void *value, size_t bytes)
{
    return check(p->owner->api, p->owner->api->cublasLtMatmulDescSetAttribute(p->operation, name, value, bytes),
                 "attribute of a product");
}

static int describe_extra(const cuda_product *p, const cuda_product_desc *d)
{
    static const cublasLtEpilogue_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                                   CUBLASLT_EPILOGUE_RELU_BIAS, CUBLASLT_EPILOGUE_BGRADB};
    const cublasLtEpilogue_t epilogue = epilogues[d->extra];
    const int32_t type = d->extra == CUDA_PRODUCT_ROW_SUMS ? CUDA_R_32F : (int32_t)data_type(d->result);
    if (d->extra == CUDA_PRODUCT_PLAIN)
        return 0;
    TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    return set(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type);
}

static int describe_operation(cuda_product *p, const cuda_product_desc *d)
{
    const cuda_products *self = p->owner;
    bool tf32 = self->tf32 && d->type == DTYPE_F32;
    const cublasOperation_t first = d->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = d->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY(check(self->api,
              self->api->cublasLtMatmulDescCreate(&p->operation,
                                                  tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "product"));
    TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    return describe_extra(p, d);
}

/* A row-major matrix of that many rows and columns, as stored. */
static int describe_matrix(const cuda_product *p, cublasLtMatrixLayout_t *out, uint8_t type, int64_t rows,
                           int64_t columns, int64_t ld)
{
    return check(p->owner->api,
                 p->owner->api->cublasLtMatrixLayoutCreate(out, data_type(type), (uint64_t)columns, (uint64_t)rows, ld),
                 "matrix of a product");
}

static int describe(cuda_product *p, const cuda_product_desc *d)
{
    TRY(describe_operation(p, d));
    TRY(describe_matrix(p, &p->first, d->type, d->transpose_b ? d->n : d->k, d->transpose_b ? d->k : d->n, d->ldb));
    TRY(describe_matrix(p, &p->second, d->type, d->transpose_a ? d->k : d->m, d->transpose_a ? d->m : d->k, d->lda));
    return describe_matrix(p, &p->result, d->result, d->m, d->n, d->ldc);
}

/* Partial sums of a product that is split stay float32; adding them in place would round them to c's dtype. */
static int set_preferences(const cuda_libraries *api, cublasLtMatmulPreference_t preference, uint32_t alignment)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasStatus_t status = api->cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_limit, sizeof workspace_limit);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = api->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                           &reductions, sizeof reductions);
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS; i++)
        status = api->cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &alignment, sizeof alignment);
    return check(api, status, "preference of a product");
}

/* Up to `wanted` algorithms, the most promising first; returns how many, at least 1. */
static int ask_heuristic(const cuda_product *p, int wanted, cublasLtMatmulHeuristicResult_t *results)
{
    const cuda_libraries *api = p->owner->api;
    cublasLtMatmulPreference_t preference;
    int returned = 0, found = 0;
    TRY(check(api, api->cublasLtMatmulPreferenceCreate(&preference), "preference of a product"));
    int code = set_preferences(api, preference, p->desc.alignment);
    if (code == 0)
        code = check(api,
                     api->cublasLtMatmulAlgoGetHeuristic(p->owner->handle, p->operation, p->first, p->second, p->result,
                                                         p->result, preference, wanted, results, &returned),
                     "choice of a product's algorithm");
    api->cublasLtMatmulPreferenceDestroy(preference);
    TRY(code);
    for (int i = 0; i < returned; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS)
            results[found++] = results[i];
    CHECK(found > 0, ERROR_KERNEL, "cuBLASLt has no algorithm");
    return found;
}

static void use(cuda_product *p, const cublasLtMatmulHeuristicResult_t *result)
{
    p->algorithm = result->algo;
    p->workspace = result->workspaceSize;
}

/* ---- the fastest ---- */

typedef struct {
    const cuda_product *product;
    void *a, *b, *c, *vector, *workspace;
} timed_product;

static int run_timed(const void *what)
{
    const timed_product *t = what;
    void *vector = t->product->desc.extra == CUDA_PRODUCT_PLAIN ? NULL : t->vector;
    return cuda_product_run(t->product, t->a, t->b, t->c, vector, t->workspace);
}

static bool timing_memory(const cuda_product_desc *d, cudaStream_t stream, size_t workspace, timed_product *out)
{
    size_t a = (size_t)((d->transpose_a ? d->k : d->m) * d->lda) * dtype_bytes(d->type);
    size_t b = (size_t)((d->transpose_b ? d->n : d->k) * d->ldb) * dtype_bytes(d->type);
    size_t c = (size_t)(d->m * d->ldc) * dtype_bytes(d->result), vector = (size_t)(d->m + d->n) * sizeof(float);
    void *piece[5];
    if (!cuda_timing_memory(stream, 5, (const size_t[5]){a, b, c, vector, workspace}, piece))
        return false;
    *out = (timed_product){NULL, piece[0], piece[1], piece[2], piece[3], piece[4]};
    return true;
}

/* Which of the algorithms is the fastest; -1 where that cannot be measured. */
static int fastest(const cuda_product *p, const cublasLtMatmulHeuristicResult_t *results, int count)
{
    size_t workspace = 0;
    int best = -1;
    float best_time = INFINITY;
    timed_product timed;
    for (int i = 0; i < count; i++)
        workspace = results[i].workspaceSize > workspace ? results[i].workspaceSize : workspace;
    if (!timing_memory(&p->desc, p->owner->stream, workspace, &timed))
        return -1;
    for (int i = 0; i < count; i++) {
        cuda_product candidate = *p;
        use(&candidate, &results[i]);
        timed.product = &candidate;
        float time = cuda_time_work(p->owner->timer, run_timed, &timed, best_time);
        if (time < best_time) {
            best = i;
            best_time = time;
        }
    }
    cudaFree(timed.a);
    return best;
}

/* ---- the choice on disk ---- */

static const char *type_name(uint8_t type)
{
    return type == DTYPE_F16 ? "float16" : type == DTYPE_BF16 ? "bfloat16" : "float32";
}

static int key_of(const cuda_product *p, char key[KEY_BYTES])
{
    static const char *const extras[] = {"", " bias", " bias-relu", " row-sums"};
    const cuda_product_desc *d = &p->desc;
    int length = snprintf(key, KEY_BYTES, "product %lldx%lldx%lld rows of %lld%s %lld%s %lld %s to %s aligned %u%s%s%s",
                          (long long)d->m, (long long)d->n, (long long)d->k, (long long)d->lda,
                          d->transpose_a ? "t" : "", (long long)d->ldb, d->transpose_b ? "t" : "", (long long)d->ldc,
                          type_name(d->type), type_name(d->result), d->alignment, d->accumulate ? " accumulate" : "",
                          extras[d->extra], p->owner->tf32 ? " tf32" : "");
    CHECK(length < KEY_BYTES, ERROR_INTERNAL, "the key of a product is too long");
    return 0;
}

/* cuBLASLt says whether it still takes it, and the workspace. */
static bool load_choice(cuda_product *p, const char *key)
{
    const cuda_products *self = p->owner;
    size_t bytes = 0;
    cublasLtMatmulHeuristicResult_t result = {0};
    char *kept = self->cache ? plan_cache_get(self->cache, key, &bytes) : NULL;
    bool loaded = kept && bytes == sizeof result.algo;
    if (loaded) {
        cublasLtMatmulAlgo_t algorithm;
        memcpy(&algorithm, kept, sizeof algorithm);
        loaded = self->api->cublasLtMatmulAlgoCheck(self->handle, p->operation, p->first, p->second, p->result,
                                                    p->result, &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
                 result.workspaceSize <= workspace_limit;
        result.algo = algorithm;
    }
    free(kept);
    if (loaded)
        use(p, &result);
    return loaded;
}

static int choose(cuda_product *p)
{
    const cuda_products *self = p->owner;
    cublasLtMatmulHeuristicResult_t results[MAX_ALGORITHMS];
    char key[KEY_BYTES];
    TRY(key_of(p, key));
    if (load_choice(p, key))
        return 0;
    int count = ask_heuristic(p, self->tune ? MAX_ALGORITHMS : 1, results);
    TRY(count);
    int best = self->tune ? fastest(p, results, count) : -1;
    use(p, &results[best < 0 ? 0 : best]);
    if (best >= 0 && self->cache)
        plan_cache_put(self->cache, key, (const char *)&p->algorithm, sizeof p->algorithm);
    return 0;
}

/* ---- products.h ---- */

int cuda_product_prepare(cuda_products *self, const cuda_product_desc *desc, cuda_product **out, size_t *workspace)
{
    cuda_product *p = calloc(1, sizeof *p);
    CHECK(p, ERROR_MEMORY, "no memory for a product");
    p->owner = self;
    p->desc = *desc;
    int code = describe(p, desc);
    if (code == 0)
        code = choose(p);
    if (code < 0) {
        cuda_product_release(p);
        return error_prefix(code, "product of %lld x %lld by %lld x %lld (%s to %s)", (long long)desc->m,
                            (long long)desc->k, (long long)desc->k, (long long)desc->n, type_name(desc->type),
                            type_name(desc->result));
    }
    *workspace = p->workspace;
    *out = p;
    return 0;
}

int cuda_product_run(const cuda_product *p, const void *a, const void *b, void *c, void *vector, void *workspace)
{
    const cuda_products *self = p->owner;
    const float one = 1.0F, beta = p->desc.accumulate ? 1.0F : 0.0F;
    if (p->desc.extra != CUDA_PRODUCT_PLAIN)
        TRY(set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof vector));
    return check(self->api,
                 self->api->cublasLtMatmul(self->handle, p->operation, &one, b, p->first, a, p->second, &beta, c,
                                           p->result, c, p->result, &p->algorithm, workspace, p->workspace,
                                           self->stream),
                 "matrix product");
}

void cuda_product_release(cuda_product *p)
{
    if (!p)
        return;
    const cuda_libraries *api = p->owner->api;
    if (p->operation)
        api->cublasLtMatmulDescDestroy(p->operation);
    if (p->first)
        api->cublasLtMatrixLayoutDestroy(p->first);
    if (p->second)
        api->cublasLtMatrixLayoutDestroy(p->second);
    if (p->result)
        api->cublasLtMatrixLayoutDestroy(p->result);
    free(p);
}
