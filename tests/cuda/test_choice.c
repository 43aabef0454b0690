/* The choice among plans of cuDNN and algorithms of cuBLASLt where there is a GPU: the libraries are told that there is
 * one, what they run is noted, and how long it takes is said here. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "devices.h"
#include "graph/node.h"
#include "kernels/cuda/library/cublaslt_products.h"
#include "kernels/cuda/library/cudnn_convolutions.h"
#include "kernels/cuda/lower/timing.h"
#include "usual_layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALGORITHMS = 5, MOST_RUNS = 64 };

static struct {
    const cuda_libraries *real;
    char json[GPU_JSON_BYTES];
    bool no_memory;
    int asked, runs;            /* measurements; executions */
    int fastest;                /* the measurement that takes the least */
    int failing;                /* executions that fail, from the first on */
    const void *ran[MOST_RUNS]; /* the plan of each execution */
    uint64_t algorithm;         /* the last one that ran */
    bool refused;               /* algorithms from disk */
} gpu;

/* ---- timing.h ---- */

bool cuda_timing_memory(cudaStream_t stream, int pieces, const size_t *bytes, void **piece)
{
    (void)stream, (void)bytes;
    memset(piece, 0, (size_t)pieces * sizeof *piece);
    return !gpu.no_memory;
}

bool cuda_work_works(cudaStream_t stream, timed_work *work, const void *what)
{
    (void)stream;
    return work(what) == 0;
}

float cuda_time_work(cuda_timer *timer, timed_work *work, const void *what, float best)
{
    (void)timer, (void)best;
    bool is_fastest = gpu.asked++ == gpu.fastest;
    return work(what) < 0 ? INFINITY : is_fastest ? 1.0F : 2.0F;
}

/* ---- cuDNN with a handle ---- */

static cudnnStatus_t create(cudnnHandle_t *handle)
{
    *handle = (cudnnHandle_t)&gpu;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t destroy(cudnnHandle_t handle)
{
    (void)handle;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t stream)
{
    (void)handle, (void)stream;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t set_attribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (name == CUDNN_ATTR_DEVICEPROP_HANDLE)
        return gpu.real->cudnnBackendSetAttribute(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                                  (int64_t)strlen(gpu.json), gpu.json);
    return gpu.real->cudnnBackendSetAttribute(d, name, type, count, values);
}

static cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    (void)handle, (void)pack;
    assert_in_range(gpu.runs, 0, MOST_RUNS - 1);
    gpu.ran[gpu.runs++] = plan;
    return gpu.runs <= gpu.failing ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

/* ---- cuBLASLt ---- */

static cublasStatus_t create_lt(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t)&gpu;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy_lt(cublasLtHandle_t handle)
{
    (void)handle;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t heuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                cublasLtMatmulPreference_t preference, int wanted,
                                cublasLtMatmulHeuristicResult_t *results, int *found)
{
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted < ALGORITHMS ? wanted : ALGORITHMS;
    for (int i = 0; i < *found; i++)
        results[i] =
            (cublasLtMatmulHeuristicResult_t){.algo.data = {(uint64_t)i + 100},
                                              .workspaceSize = (size_t)i * 1000,
                                              .state = i == 1 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS};
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_algorithm(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                      cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                      const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result)
{
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d;
    result->workspaceSize = (algorithm->data[0] - 100) * 1000;
    return gpu.refused ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t multiply(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha,
                               const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                               cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                               cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                               const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes,
                               cudaStream_t stream)
{
    (void)handle, (void)operation, (void)alpha, (void)a, (void)a_layout, (void)b, (void)b_layout, (void)beta, (void)c;
    (void)c_layout, (void)d, (void)d_layout, (void)workspace, (void)stream;
    gpu.runs++;
    gpu.algorithm = algorithm->data[0];
    assert_int_equal(bytes, (gpu.algorithm - 100) * 1000);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the tests ---- */

typedef struct {
    cuda_libraries *real, told; /* as they are; told that there is a GPU */
    char folder[64];
} fixture;

static int open_fixture(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (!f || cuda_libraries_open(&f->real) < 0)
        return -1;
    f->told = *f->real;
    f->told.cudnnCreate = create;
    f->told.cudnnDestroy = destroy;
    f->told.cudnnSetStream = set_stream;
    f->told.cudnnBackendSetAttribute = set_attribute;
    f->told.cudnnBackendExecute = execute;
    f->told.cublasLtCreate = create_lt;
    f->told.cublasLtDestroy = destroy_lt;
    f->told.cublasLtMatmulAlgoGetHeuristic = heuristic;
    f->told.cublasLtMatmulAlgoCheck = check_algorithm;
    f->told.cublasLtMatmul = multiply;
    memset(&gpu, 0, sizeof gpu);
    gpu.real = f->real;
    for (int i = 0; i < described_gpu_count; i++)
        if (described_gpus[i].sm == 90)
            described_gpu_json(&described_gpus[i], gpu.json);
    strcpy(f->folder, "/tmp/teskd_choice_XXXXXX");
    *state = f;
    return mkdtemp(f->folder) ? 0 : -1;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", f->folder);
    int code = system(command);
    cuda_libraries_close(f->real);
    free(f);
    return code;
}

static void need(const fixture *f, cuda_library which)
{
    if (cuda_library_check(f->real, which) < 0) {
        print_message("%s\n", error_message());
        skip();
    }
}

static void nothing_ran(void)
{
    gpu.asked = gpu.runs = 0;
}

typedef struct {
    bool tuned, statistics;
    int code;
    bool from_cache;
    const void *ran; /* the plan of a run afterwards */
} convolution_choice;

static void choose_convolution(const fixture *f, convolution_choice *c)
{
    cuda_convolution_desc desc = usual_layer;
    desc.statistics = c->statistics;
    cuda_convolutions *convolutions;
    cuda_convolution *convolution;
    size_t workspace;
    nothing_ran();
    if (cuda_convolutions_open(&convolutions, &f->told,
                               &(cuda_convolutions_options){.tune = c->tuned, .cache = f->folder, .model = "told"}) < 0)
        fail_msg("%s", error_message());
    assert_string_equal(cuda_convolutions_cache_problem(convolutions), "");
    c->code = cuda_convolution_prepare(convolutions, &desc, &convolution, &workspace);
    if (c->code == 0) {
        int before = gpu.runs, failing = gpu.failing;
        gpu.failing = 0;
        c->from_cache = cuda_convolution_chosen(convolution).from_cache;
        assert_int_equal(cuda_convolution_run(convolution, &(cuda_convolution_args){0}), 0);
        c->ran = gpu.ran[before];
        gpu.runs = before;
        gpu.failing = failing;
        cuda_convolution_release(convolution);
    }
    cuda_convolutions_close(convolutions);
}

static void plans_by_time(void **state)
{
    const fixture *f = *state;
    need(f, CUDA_CUDNN);
    for (int statistics = 0; statistics < 2; statistics++) {
        convolution_choice c = {.tuned = true, .statistics = statistics};
        gpu.fastest = 3;
        gpu.no_memory = true; /* nothing is measured, and nothing kept */
        for (int i = 0; i < 2; i++) {
            choose_convolution(f, &c);
            assert_true(c.code == 0 && !c.from_cache && gpu.asked == 0);
        }
        gpu.no_memory = false;
        choose_convolution(f, &c);
        assert_true(c.code == 0 && !c.from_cache && gpu.asked == (statistics ? 10 : 24));
        assert_ptr_equal(c.ran, gpu.ran[3]);
        choose_convolution(f, &c);
        assert_true(c.code == 0 && c.from_cache && gpu.runs == 0);
    }
}

static void plans_that_fail(void **state)
{
    const fixture *f = *state;
    need(f, CUDA_CUDNN);
    convolution_choice tuned = {.tuned = true}, untuned = {.tuned = false};
    gpu.failing = MOST_RUNS;
    choose_convolution(f, &tuned);
    assert_int_equal(tuned.code, ERROR_KERNEL);
    choose_convolution(f, &untuned);
    assert_int_equal(untuned.code, ERROR_KERNEL);
    assert_non_null(strstr(error_message(), "none of 4 plans"));
    gpu.failing = 2; /* the third works, without being timed */
    choose_convolution(f, &untuned);
    assert_true(untuned.code == 0 && gpu.asked == 0 && gpu.runs == 3);
    assert_ptr_equal(untuned.ran, gpu.ran[2]);
    choose_convolution(f, &tuned); /* of those that work, the first of the fastest */
    assert_true(tuned.code == 0 && gpu.asked == 24);
    assert_ptr_equal(tuned.ran, gpu.ran[2]);
}

/* Where none works, each is made again from its text. */
static void plans_from_their_text(void **state)
{
    const fixture *f = *state;
    need(f, CUDA_CUDNN);
    convolution_choice c = {.statistics = true};
    gpu.failing = 4;
    choose_convolution(f, &c);
    assert_true(c.code == 0 && !c.from_cache && gpu.runs == 5);
    assert_ptr_equal(c.ran, gpu.ran[4]);
    for (int i = 0; i < 4; i++)
        assert_ptr_not_equal(c.ran, gpu.ran[i]);
}

/* Layers are alike: each shape is measured once also where nothing can be kept on disk. */
static void without_a_folder(void **state)
{
    const fixture *f = *state;
    cuda_convolutions *convolutions;
    need(f, CUDA_CUDNN);
    const cuda_convolutions_options options = {.tune = true, .cache = "/dev/null", .model = "told"};
    assert_int_equal(cuda_convolutions_open(&convolutions, &f->told, &options), 0);
    assert_non_null(strstr(cuda_convolutions_cache_problem(convolutions), "/dev/null"));
    for (int i = 0; i < 2; i++) {
        cuda_convolution *convolution;
        size_t workspace;
        assert_int_equal(cuda_convolution_prepare(convolutions, &usual_layer, &convolution, &workspace), 0);
        assert_int_equal(cuda_convolution_chosen(convolution).from_cache, i == 1);
        cuda_convolution_release(convolution);
    }
    cuda_convolutions_close(convolutions);
}

/* The algorithm of a product that is prepared and run. */
static uint64_t choose_product(const fixture *f, bool tune, int64_t rows)
{
    const cuda_product_desc desc = {.m = rows,
                                    .n = 64,
                                    .k = 32,
                                    .lda = 32,
                                    .ldb = 64,
                                    .ldc = 64,
                                    .type = DTYPE_F16,
                                    .result = DTYPE_F16,
                                    .alignment = 64};
    cuda_products *products;
    cuda_product *product;
    size_t workspace = 0;
    nothing_ran();
    if (cuda_products_open(&products, &f->told,
                           &(cuda_products_options){.tune = tune, .cache = f->folder, .model = "told"}) < 0 ||
        cuda_product_prepare(products, &desc, &product, &workspace) < 0)
        fail_msg("%s", error_message());
    int before = gpu.runs;
    assert_int_equal(cuda_product_run(product, NULL, NULL, NULL, NULL, NULL), 0);
    gpu.runs = before;
    assert_int_equal(workspace, (gpu.algorithm - 100) * 1000);
    cuda_product_release(product);
    cuda_products_close(products);
    return gpu.algorithm;
}

static void products_by_time(void **state)
{
    const fixture *f = *state;
    need(f, CUDA_CUBLASLT);
    gpu.fastest = 2; /* the second does not do: algorithm 3 */
    assert_int_equal(choose_product(f, false, 16), 100);
    assert_int_equal(gpu.asked, 0);
    gpu.no_memory = true;
    assert_int_equal(choose_product(f, true, 16), 100);
    gpu.no_memory = false;
    assert_int_equal(choose_product(f, true, 16), 103);
    assert_int_equal(gpu.asked, ALGORITHMS - 1);
    assert_int_equal(choose_product(f, true, 16), 103); /* from disk */
    assert_int_equal(gpu.asked, 0);
    assert_int_equal(choose_product(f, false, 16), 100);
    gpu.fastest = 1;
    assert_int_equal(choose_product(f, true, 17), 102);
    gpu.refused = true;
    assert_int_equal(choose_product(f, true, 16), 102);
    assert_int_equal(gpu.asked, ALGORITHMS - 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(plans_by_time), TEST(plans_that_fail), TEST(plans_from_their_text),
                                       TEST(without_a_folder), TEST(products_by_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
