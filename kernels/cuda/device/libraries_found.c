/* Owns the report of what there is of the libraries. Any thread. */
#include "base/error.h"
#include "cuda_devices.h"
#include "kernels/cuda/library/libraries.h"

#include <stdio.h>

int cuda_libraries_find(cuda_libraries_found *found)
{
    cuda_libraries *libraries;
    *found = (cuda_libraries_found){0};
    TRY(cuda_libraries_open(&libraries));
    cuda_libraries_versions(libraries, found->versions, sizeof found->versions);
    for (int i = 0; i < CUDA_LIBRARY_COUNT; i++)
        if (cuda_library_check(libraries, (cuda_library)i) < 0)
            snprintf(found->problem[found->n_problems++], sizeof found->problem[0], "%s", error_message());
    cuda_libraries_close(libraries);
    return 0;
}
