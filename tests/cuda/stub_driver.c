/* A driver that loads kernels and has no device: enough for cuDNN to plan as it does beside a real one, with engines
 * that are compiled at run time. Built as libcuda.so.1. */
#include <stddef.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100, SOME_VERSION = 13000 };

static char something; /* what every handle points to */

#define ANSWER(name, answer)                                                                                           \
    int name(void *out);                                                                                               \
    int name(void *out)                                                                                                \
    {                                                                                                                  \
        return answer;                                                                                                 \
    }
#define LOAD(name) ANSWER(name, (out ? (void)(*(void **)out = &something) : (void)0, SUCCESS))

#define LOADS                                                                                                          \
    LOAD(cuFuncGetAttribute)                                                                                           \
    LOAD(cuFuncSetAttribute)                                                                                           \
    LOAD(cuKernelGetAttribute)                                                                                         \
    LOAD(cuKernelGetFunction)                                                                                          \
    LOAD(cuKernelSetAttribute)                                                                                         \
    LOAD(cuLibraryGetGlobal)                                                                                           \
    LOAD(cuLibraryGetKernel)                                                                                           \
    LOAD(cuLibraryLoadData)                                                                                            \
    LOAD(cuLibraryLoadFromFile)                                                                                        \
    LOAD(cuModuleGetFunction)                                                                                          \
    LOAD(cuModuleGetGlobal_v2)                                                                                         \
    LOAD(cuModuleLoadData)                                                                                             \
    LOAD(cuModuleLoadDataEx)

/* What a GPU is needed for. */
#define REFUSALS                                                                                                       \
    REFUSE(cuCtxGetCurrent)                                                                                            \
    REFUSE(cuCtxGetLimit)                                                                                              \
    REFUSE(cuCtxPopCurrent)                                                                                            \
    REFUSE(cuCtxPushCurrent)                                                                                           \
    REFUSE(cuDeviceGet)                                                                                                \
    REFUSE(cuDeviceGetCount)                                                                                           \
    REFUSE(cuGetErrorName)                                                                                             \
    REFUSE(cuGetErrorString)                                                                                           \
    REFUSE(cuInit)                                                                                                     \
    REFUSE(cuLaunchCooperativeKernel)                                                                                  \
    REFUSE(cuLaunchKernel)                                                                                             \
    REFUSE(cuLaunchKernelEx)                                                                                           \
    REFUSE(cuLinkAddData)                                                                                              \
    REFUSE(cuLinkComplete)                                                                                             \
    REFUSE(cuLinkCreate)                                                                                               \
    REFUSE(cuLinkDestroy)                                                                                              \
    REFUSE(cuOccupancyMaxPotentialClusterSize)                                                                         \
    REFUSE(cuStreamGetCtx)                                                                                             \
    REFUSE(stub_unknown)

#define REFUSE(name) ANSWER(name, ((void)out, NO_DEVICE))

LOADS
REFUSALS
ANSWER(cuLibraryUnload, ((void)out, SUCCESS))
ANSWER(cuModuleUnload, ((void)out, SUCCESS))
ANSWER(cuDriverGetVersion, (*(int *)out = SOME_VERSION, SUCCESS))

typedef int answer(void *out);

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status);
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status)
{
#undef LOAD
#define LOAD(name) {#name, name},
    static const struct {
        const char *name;
        answer *function;
    } answers[] = {LOADS{"cuInit", cuInit},
                   {"cuLibraryUnload", cuLibraryUnload},
                   {"cuModuleUnload", cuModuleUnload},
                   {"cuDriverGetVersion", cuDriverGetVersion}};
    answer *found = stub_unknown;
    (void)version, (void)flags;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (strcmp(answers[i].name, name) == 0)
            found = answers[i].function;
    memcpy(function, &found, sizeof found);
    if (status)
        *status = 0;
    return SUCCESS;
}
