/* Owns the calls of NVML. Invariant: the library is initialised within nvml_read alone. The declarations are those of
 * NVML's documented interface (docs.nvidia.com/deploy/nvml-api), as far as they are used. One thread at a time. */
#include "tools/preflight/nvml.h"
#include "base/error.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* nvmlReturn_t, nvmlClockType_t, nvmlTemperatureSensors_t, nvmlMemoryErrorType_t and nvmlEccCounterType_t are enums. */
enum {
    NVML_SUCCESS = 0,
    NVML_CLOCK_SM = 1,
    NVML_CLOCK_MEM = 2,
    NVML_TEMPERATURE_GPU = 0,
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1,
    NVML_VOLATILE_ECC = 0,
    NVML_FEATURE_ENABLED = 1
};

/* nvmlClocksThrottleReason..., bits of what nvmlDeviceGetCurrentClocksThrottleReasons gives. */
enum {
    THROTTLE_POWER_CAP = 0x4,
    THROTTLE_HARDWARE = 0x8,
    THROTTLE_SOFTWARE_HEAT = 0x20,
    THROTTLE_HARDWARE_HEAT = 0x40,
    THROTTLE_POWER_BRAKE = 0x80
};

typedef struct nvmlDevice_st *device;
typedef struct {
    unsigned long long total, free, used;
} memory_info; /* nvmlMemory_t */

typedef struct {
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver)(char *version, unsigned bytes);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, device *gpu);
    int (*name)(device gpu, char *name, unsigned bytes);
    int (*memory)(device gpu, memory_info *memory);
    int (*clock)(device gpu, int type, unsigned *mhz);
    int (*highest_clock)(device gpu, int type, unsigned *mhz);
    int (*temperature)(device gpu, int sensor, unsigned *degrees);
    int (*ecc)(device gpu, int *now, int *later);
    int (*errors)(device gpu, int type, int counter, unsigned long long *count);
    int (*throttle)(device gpu, unsigned long long *reasons);
} nvml;

static const struct {
    const char *name;
    size_t at;
} functions[] = {
    {"nvmlInit_v2", offsetof(nvml, init)},
    {"nvmlShutdown", offsetof(nvml, shutdown)},
    {"nvmlSystemGetDriverVersion", offsetof(nvml, driver)},
    {"nvmlDeviceGetCount_v2", offsetof(nvml, count)},
    {"nvmlDeviceGetHandleByIndex_v2", offsetof(nvml, handle)},
    {"nvmlDeviceGetName", offsetof(nvml, name)},
    {"nvmlDeviceGetMemoryInfo", offsetof(nvml, memory)},
    {"nvmlDeviceGetClockInfo", offsetof(nvml, clock)},
    {"nvmlDeviceGetMaxClockInfo", offsetof(nvml, highest_clock)},
    {"nvmlDeviceGetTemperature", offsetof(nvml, temperature)},
    {"nvmlDeviceGetEccMode", offsetof(nvml, ecc)},
    {"nvmlDeviceGetTotalEccErrors", offsetof(nvml, errors)},
    {"nvmlDeviceGetCurrentClocksThrottleReasons", offsetof(nvml, throttle)},
};

static int find_functions(nvml *n, void *library)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *symbol = dlsym(library, functions[i].name);
        CHECK(symbol, ERROR_KERNEL, "libnvidia-ml.so.1 has no %s", functions[i].name);
        memcpy((char *)n + functions[i].at, &symbol, sizeof symbol);
    }
    return 0;
}

/* A question that this kind of GPU does not answer leaves its member 0. */
static void read_gpu(const nvml *n, device gpu, nvml_gpu *out)
{
    memory_info memory = {0};
    int ecc = 0, later = 0;
    unsigned long long reasons = 0;
    *out = (nvml_gpu){0};
    n->name(gpu, out->name, sizeof out->name);
    n->memory(gpu, &memory);
    n->clock(gpu, NVML_CLOCK_SM, &out->clock);
    n->clock(gpu, NVML_CLOCK_MEM, &out->memory_clock);
    n->highest_clock(gpu, NVML_CLOCK_SM, &out->highest_clock);
    n->temperature(gpu, NVML_TEMPERATURE_GPU, &out->temperature);
    n->ecc(gpu, &ecc, &later);
    n->errors(gpu, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, &out->memory_errors);
    n->throttle(gpu, &reasons);
    out->gib = (double)memory.total / 0x1p30;
    out->has_ecc = ecc == NVML_FEATURE_ENABLED;
    out->is_hot = reasons & (THROTTLE_SOFTWARE_HEAT | THROTTLE_HARDWARE_HEAT);
    out->is_slowed = reasons & (THROTTLE_HARDWARE | THROTTLE_POWER_BRAKE);
    out->is_capped = reasons & THROTTLE_POWER_CAP;
}

static int read_all(const nvml *n, nvml_gpu *gpus, char about[NVML_NAME_BYTES])
{
    unsigned count = 0;
    char version[NVML_NAME_BYTES - 16] = "unknown";
    CHECK(n->count(&count) == NVML_SUCCESS, ERROR_KERNEL, "NVML does not count the GPUs");
    if (count > NVML_MOST_GPUS)
        count = NVML_MOST_GPUS;
    n->driver(version, sizeof version);
    snprintf(about, NVML_NAME_BYTES, "driver %s", version);
    for (unsigned i = 0; i < count; i++) {
        device gpu;
        const int code = n->handle(i, &gpu);
        CHECK(code == NVML_SUCCESS, ERROR_KERNEL, "GPU %u does not answer (NVML's error %d): it may have to be reset",
              i, code);
        read_gpu(n, gpu, &gpus[i]);
    }
    return (int)count;
}

int nvml_read(nvml_gpu gpus[NVML_MOST_GPUS], char about[NVML_NAME_BYTES])
{
    nvml n;
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    snprintf(about, NVML_NAME_BYTES, "no NVML (libnvidia-ml.so.1)");
    if (!library)
        return 0;
    int status = find_functions(&n, library);
    if (status == 0 && n.init() == NVML_SUCCESS) {
        status = read_all(&n, gpus, about);
        n.shutdown();
    } else if (status == 0) {
        snprintf(about, NVML_NAME_BYTES, "NVML does not reach the driver");
    }
    dlclose(library);
    return status;
}
