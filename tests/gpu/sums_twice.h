/* Convolutions with statistics on a GPU, whether or not they are what the backend chooses there. */
#ifndef TESKD_TESTS_GPU_SUMS_TWICE_H
#define TESKD_TESTS_GPU_SUMS_TWICE_H

#include "kernels/backend.h"

/* Runs a group of tests on an open CUDA backend with activations of 16 bits; returns how many failed. */
int check_sums_twice(backend *device, uint8_t type);

#endif
