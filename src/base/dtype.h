/* The types of numbers in tensors, in memory and in files. */
#ifndef TESKD_BASE_DTYPE_H
#define TESKD_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum { DTYPE_F32, DTYPE_F64, DTYPE_I32, DTYPE_F16, DTYPE_BF16, DTYPE_U8 } dtype;

static inline size_t dtype_bytes(unsigned type)
{
    return type == DTYPE_F64 ? 8 : type == DTYPE_F16 || type == DTYPE_BF16 ? 2 : type == DTYPE_U8 ? 1 : 4;
}

#endif
