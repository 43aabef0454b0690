/* What the tests of sums between emulated GPUs share: one communicator, the fake library and a stream a program.
 * Failures end the running test. */
#ifndef TESKD_TESTS_DIST_NCCL_FIXTURE_H
#define TESKD_TESTS_DIST_NCCL_FIXTURE_H

#include "dist/nccl_reduction.h"
#include "emulated.h"
#include "kernels/cuda/library/libraries.h"

extern comm *ranks;
extern cuda_libraries *libraries;
extern cudaStream_t compute; /* deferred */

/* Device memory that a test has to leave behind. */
extern size_t left_behind;

/* For cmocka_run_group_tests. */
int fixture_open(void **state);
int fixture_close(void **state);

void ok(int code);

/* The failure's code, and words that its message has; the list ends with NULL. */
void says(int code, int expected, const char *const *words);

int rank_count(void);
bool is_last_rank(void);

/* With NCCL behaving as FAKE_NCCL says (fake_nccl.c). */
int try_open(reduction **out, const char *behaviour, double deadline);
reduction *open_sums(const char *behaviour, double deadline);

enum { HISTORY_BYTES = 64 };

/* What NCCL was asked for since the last look: see fake_nccl.c. */
void look_at_history(char text[HISTORY_BYTES]);
void assert_history(const char *expected);

#endif
