/* The GPUs of this machine and NVIDIA's libraries. Usable on machines without any of them: there are none then, and a
 * reason. */
#ifndef TESKD_KERNELS_CUDA_DEVICES_H
#define TESKD_KERNELS_CUDA_DEVICES_H

#include <stddef.h>

/* Number of GPUs. 0 when there is none, or no driver, and ERROR_KERNEL when what is there cannot be used: the reason is
 * in error_message(). */
int cuda_device_count(void);

/* One line: name, compute capability, multiprocessors, memory. ERROR_KERNEL when the device cannot be asked. */
int cuda_device_describe(int device, char *text, size_t bytes);

/* What can be opened of NVIDIA's libraries, and for each that cannot be how to get it. */
typedef struct {
    char versions[160]; /* "cuDNN 9.19.0, cuBLASLt none, NCCL 2.28.9, NVRTC 13.0.0" */
    int n_problems;
    char problem[4][512];
} cuda_libraries_found;
int cuda_libraries_find(cuda_libraries_found *found);

/* "CUDA runtime 13.0, driver 13.0"; the driver is "none" where there is none. */
void cuda_versions(char *text, size_t bytes);

#endif
