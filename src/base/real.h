/* The two real number types that files and batches come in. */
#ifndef TESKD_BASE_REAL_H
#define TESKD_BASE_REAL_H

#include <stddef.h>

typedef enum { REAL_FLOAT32, REAL_FLOAT64 } real_type;

static inline size_t real_bytes(real_type type)
{
    return type == REAL_FLOAT64 ? sizeof(double) : sizeof(float);
}

static inline const char *real_name(real_type type)
{
    return type == REAL_FLOAT64 ? "float64" : "float32";
}

#endif
