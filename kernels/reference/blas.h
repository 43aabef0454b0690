/* OpenBLAS, loaded at run time: one function of it is used, and its kernels are chosen before it loads. */
#ifndef TESKD_KERNELS_REFERENCE_BLAS_H
#define TESKD_KERNELS_REFERENCE_BLAS_H

#include <stdbool.h>

/* cblas_dgemm as its manual declares it, with the enumerations as int. */
typedef void blas_dgemm_function(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                                 const double *a, int lda, const double *b, int ldb, double beta, double *c, int ldc);

typedef struct {
    void *library;
    blas_dgemm_function *dgemm;
    char description[128]; /* version, the kernels it took, threads */
} blas;

/* Loads OpenBLAS with kernels that fit this processor, unless OPENBLAS_CORETYPE is set: then with the user's.
 * When something else has loaded the library already, its kernels are chosen and stay; the description is the
 * library's own word on it. ERROR_KERNEL when it is not installed. */
int blas_open(blas *self, int threads);
void blas_close(blas *self);

/* A row-major matrix: element (i, j) is at value[i * stride + j], or at value[j * stride + i] if transposed. */
typedef struct {
    const double *value;
    int stride;
    bool transposed;
} blas_matrix;

/* c[m, n] = a[m, k] b[k, n] + beta c, row-major; with beta 0 the old c is not read. */
void blas_multiply(const blas *self, int m, int n, int k, blas_matrix a, blas_matrix b, double beta, double *c,
                   int stride);

#endif
