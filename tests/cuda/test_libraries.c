/* What is said when NVIDIA's libraries are missing or do not fit. TESKD_CUDA_LIBRARIES stands for machines that have
 * nothing but what its folder has. One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "kernels/cuda/library/cublaslt_products.h"
#include "kernels/cuda/library/cudnn_convolutions.h"
#include "kernels/cuda/library/libraries.h"

#include <stdlib.h>
#include <string.h>

static cuda_libraries *open_in(const char *folder)
{
    cuda_libraries *l = NULL;
    assert_int_equal(setenv("TESKD_CUDA_LIBRARIES", folder, 1), 0);
    assert_int_equal(cuda_libraries_open(&l), 0);
    unsetenv("TESKD_CUDA_LIBRARIES");
    return l;
}

static void says(const cuda_libraries *l, cuda_library which, const char *const *words)
{
    assert_int_equal(cuda_library_check(l, which), ERROR_KERNEL);
    for (; *words; words++)
        if (!strstr(error_message(), *words))
            fail_msg("\"%s\" does not say \"%s\"", error_message(), *words);
}

static void missing(void **state)
{
    (void)state;
    char text[128];
    cuda_convolutions *convolutions;
    cuda_products *products;
    cuda_libraries *l = open_in("/nonexistent");
    says(l, CUDA_CUDNN,
         (const char *[]){"libcudnn_graph.so.9", "9.8 or newer", "pip install", "apt install libcudnn9", NULL});
    says(l, CUDA_CUBLASLT, (const char *[]){"libcublasLt.so.13", "12.0 or newer", "nvidia-cublas", NULL});
    says(l, CUDA_NCCL, (const char *[]){"libnccl.so.2", "libnccl2", NULL});
    assert_null((void *)(size_t)l->cudnnCreate);
    cuda_libraries_versions(l, text, sizeof text);
    assert_string_equal(text, "cuDNN none, cuBLASLt none, NCCL none, NVRTC none");
    assert_int_equal(cuda_convolutions_open(&convolutions, l, &(cuda_convolutions_options){0}), ERROR_KERNEL);
    assert_non_null(strstr(error_message(), "libcudnn_graph.so.9"));
    assert_int_equal(cuda_products_open(&products, l, &(cuda_products_options){0}), ERROR_KERNEL);
    cuda_libraries_versions(l, text, 10);
    assert_string_equal(text, "cuDNN non");
    cuda_libraries_close(l);
}

static void too_old(void **state)
{
    (void)state;
    cuda_libraries *l = open_in(FAKES "/old");
    says(l, CUDA_CUDNN, (const char *[]){"cuDNN found is 9.0.0", "9.8 or newer", NULL});
    assert_null((void *)(size_t)l->cudnnBackendExecute);
    cuda_libraries_close(l);
}

static void without_functions(void **state)
{
    (void)state;
    cuda_libraries *l = open_in(FAKES "/empty");
    says(l, CUDA_CUDNN, (const char *[]){"has no cudnnGetVersion", "too old", NULL});
    cuda_libraries_close(l);
}

/* One that will not do does not hide another, wherever it comes. */
static void beside_an_old_one(void **state)
{
    static const char *const folders[] = {FAKES "/old:" FAKES "/new", FAKES "/empty:" FAKES "/old:" FAKES "/new",
                                          FAKES "/new:" FAKES "/old"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        cuda_libraries *l = open_in(folders[i]);
        assert_int_equal(cuda_library_check(l, CUDA_CUDNN), 0);
        assert_int_equal(l->version[CUDA_CUDNN], 99900);
        assert_int_equal(l->cudnnGetVersion(), 99900);
        cuda_libraries_close(l);
    }
}

/* As this machine has them: whatever is there is whole. */
static void found(void **state)
{
    (void)state;
    char text[128];
    cuda_libraries *l = NULL;
    assert_int_equal(cuda_libraries_open(&l), 0);
    cuda_libraries_versions(l, text, sizeof text);
    print_message("%s\n", text);
    if (cuda_library_check(l, CUDA_CUDNN) == 0) {
        assert_non_null((void *)(size_t)l->cudnnBackendExecute);
        assert_true(l->version[CUDA_CUDNN] >= 90800);
    }
    cuda_libraries_close(l);
}

int main(void)
{
    /* The machine's own libraries first: one that was opened stays, and is what its bare name then means. */
    const struct CMUnitTest tests[] = {cmocka_unit_test(found), cmocka_unit_test(missing), cmocka_unit_test(too_old),
                                       cmocka_unit_test(without_functions), cmocka_unit_test(beside_an_old_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
