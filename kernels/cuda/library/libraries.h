/* NVIDIA's libraries, opened at run time, so that one binary runs with and without them.
 *
 * libraries.def is the table. Opening never fails for a missing library: who needs one asks cuda_library_check, whose
 * message names the file, the version that is wanted and how to get it. The functions of a library that is not there
 * are NULL, and so are optional ones that an older version lacks.
 */
#ifndef TESKD_KERNELS_CUDA_LIBRARIES_H
#define TESKD_KERNELS_CUDA_LIBRARIES_H

#include <cublasLt.h>
#include <cudnn_graph.h>
#include <nvrtc.h>
#include <stddef.h>

#ifdef TESKD_HAVE_NCCL
#include <nccl.h>
#ifndef NCCL_WIN_COLL_SYMMETRIC /* built with the header of a version before 2.27 */
#define NCCL_WIN_COLL_SYMMETRIC 1
typedef struct ncclWindow_vidmem *ncclWindow_t;
ncclResult_t ncclMemAlloc(void **memory, size_t bytes);
ncclResult_t ncclMemFree(void *memory);
ncclResult_t ncclCommWindowRegister(ncclComm_t communicator, void *memory, size_t bytes, ncclWindow_t *window,
                                    int flags);
ncclResult_t ncclCommWindowDeregister(ncclComm_t communicator, ncclWindow_t window);
#endif
#endif

typedef enum {
#define LIBRARY(id, ...) id,
#include "libraries.def"
    CUDA_LIBRARY_COUNT
} cuda_library;

typedef struct cuda_libraries {
    void *handle[CUDA_LIBRARY_COUNT];
    int version[CUDA_LIBRARY_COUNT]; /* major * 10000 + minor * 100 + patch; 0 where it is unknown */
    char problem[CUDA_LIBRARY_COUNT][512];
#define FUNCTION(library, name) __typeof__(name) *name;
#define OPTIONAL FUNCTION
#include "libraries.def"
} cuda_libraries;

/* Opens what there is, of each library the first that is new enough: by file name (LD_LIBRARY_PATH, the system's
 * cache), in CUDA_HOME and /usr/local/cuda, and in an active environment of Python or Conda. Where TESKD_CUDA_LIBRARIES
 * is set, in its folders (by colons) alone. ERROR_MEMORY only. */
int cuda_libraries_open(cuda_libraries **out);

/* The libraries stay in memory to the end of the process: they have threads and exit handlers of their own. */
void cuda_libraries_close(cuda_libraries *libraries);

/* 0, or ERROR_KERNEL with what is missing and how to get it. */
int cuda_library_check(const cuda_libraries *libraries, cuda_library which);

/* "9.19.0", or "none". */
void cuda_library_version(const cuda_libraries *libraries, cuda_library which, char text[32]);

/* "cuDNN 9.19.0, cuBLASLt 13.0.2, NCCL none, NVRTC 13.0.0". */
void cuda_libraries_versions(const cuda_libraries *libraries, char *text, size_t bytes);

#endif
