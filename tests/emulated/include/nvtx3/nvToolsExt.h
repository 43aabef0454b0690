/* The ranges that profilers show; emulated.h says what became of them. */
#ifndef TESKD_TESTS_EMULATED_NVTX_H
#define TESKD_TESTS_EMULATED_NVTX_H

#ifdef __cplusplus
extern "C" {
#endif

int nvtxRangePushA(const char *message);
int nvtxRangePop(void);

#ifdef __cplusplus
}
#endif
#endif
