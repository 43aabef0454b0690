/* The GPUs of this machine. Usable on machines without a GPU or a driver: there are none then, and a reason. */
#ifndef TESKD_KERNELS_CUDA_DEVICES_H
#define TESKD_KERNELS_CUDA_DEVICES_H

#include <stddef.h>

/* Number of usable GPUs; 0 with the reason in error_message(). */
int cuda_device_count(void);

/* One line: name, compute capability, multiprocessors, memory. ERROR_KERNEL when the device cannot be asked. */
int cuda_device_describe(int device, char *text, size_t bytes);

/* "CUDA runtime 13.0, driver 13.0"; the driver is "none" where there is none. */
void cuda_versions(char *text, size_t bytes);

#endif
