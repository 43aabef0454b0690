/* What batch normalisation and its combination with the upsample share: tables by channel and sums by thread, in the
 * workspace that bn_prepare laid out. Private to kernels/cpu/. */
#ifndef TESKD_KERNELS_CPU_BATCH_NORM_H
#define TESKD_KERNELS_CPU_BATCH_NORM_H

#include "cpu.h"

/* The offsets of a kernel that bn_prepare sets. */
enum { BN_SLOT_TABLES, BN_SLOT_SUMS, BN_SLOTS };

/* The tables of a launch, one float per channel of in[0] each; bn_tables says what they mean. */
typedef struct {
    float *scale, *shift, *mean, *from_g, *from_x, *constant;
} bn_table_memory;

bn_table_memory bn_tables_at(const kernel *k, const kernel_args *args);
bn_tables bn_tables_for_loops(const bn_table_memory *m);

/* Fills scale, shift and mean from sums, gamma and beta at in[1..3]. */
void bn_batch_tables(const kernel *k, const kernel_args *args, const bn_table_memory *m);

/* Fills scale and shift from mean, variance, gamma and beta at in[1..4]. */
void bn_inference_tables(const kernel *k, const kernel_args *args, const bn_table_memory *m);

/* 1/std of channel c by the sums [2, channels]. */
double bn_batch_inverse_std(const double *sums, int64_t channels, int64_t c, const op_attr *attr);

/* Sums [2, channels] of one thread, with 3 rows of float32 scratch behind them; `workspace` lies at BN_SLOT_SUMS. */
double *bn_partial_sums(void *workspace, int thread, int64_t channels);

/* The first `count` sums of all threads, in the order of the threads: the same bits every time. */
void bn_combine(void *workspace, int threads, int64_t channels, int64_t count, double *sums);

#endif
