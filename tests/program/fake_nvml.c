/* NVML for hosts without a GPU: two GPUs, the second as FAKE_NVML says: "hot", "broken" (memory errors), "lost" (does
 * not answer) or, without it, as whole as the first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fake_gpu fake_gpu;
typedef struct {
    unsigned long long total, free, used;
} memory_info;

static int is_second(const fake_gpu *gpu, const char *state)
{
    const char *wanted = getenv("FAKE_NVML");
    return (size_t)gpu == 2 && wanted && strcmp(wanted, state) == 0;
}

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlSystemGetDriverVersion(char *version, unsigned bytes);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, fake_gpu **gpu);
int nvmlDeviceGetName(fake_gpu *gpu, char *name, unsigned bytes);
int nvmlDeviceGetMemoryInfo(fake_gpu *gpu, memory_info *memory);
int nvmlDeviceGetClockInfo(fake_gpu *gpu, int type, unsigned *mhz);
int nvmlDeviceGetMaxClockInfo(fake_gpu *gpu, int type, unsigned *mhz);
int nvmlDeviceGetTemperature(fake_gpu *gpu, int sensor, unsigned *degrees);
int nvmlDeviceGetEccMode(fake_gpu *gpu, int *now, int *later);
int nvmlDeviceGetTotalEccErrors(fake_gpu *gpu, int type, int counter, unsigned long long *count);
int nvmlDeviceGetCurrentClocksThrottleReasons(fake_gpu *gpu, unsigned long long *reasons);

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlSystemGetDriverVersion(char *version, unsigned bytes)
{
    snprintf(version, bytes, "570.86");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, fake_gpu **gpu)
{
    *gpu = (fake_gpu *)(size_t)(index + 1);
    return is_second(*gpu, "lost") ? 15 : 0; /* NVML_ERROR_GPU_IS_LOST */
}

int nvmlDeviceGetName(fake_gpu *gpu, char *name, unsigned bytes)
{
    (void)gpu;
    snprintf(name, bytes, "Imagined GPU");
    return 0;
}

int nvmlDeviceGetMemoryInfo(fake_gpu *gpu, memory_info *memory)
{
    (void)gpu;
    memory->total = 80ULL << 30;
    return 0;
}

int nvmlDeviceGetClockInfo(fake_gpu *gpu, int type, unsigned *mhz)
{
    *mhz = type == 2 ? 2600 : is_second(gpu, "hot") ? 900 : 1755;
    return 0;
}

int nvmlDeviceGetMaxClockInfo(fake_gpu *gpu, int type, unsigned *mhz)
{
    (void)gpu, (void)type;
    *mhz = 1980;
    return 0;
}

int nvmlDeviceGetTemperature(fake_gpu *gpu, int sensor, unsigned *degrees)
{
    (void)sensor;
    *degrees = is_second(gpu, "hot") ? 91 : 45;
    return 0;
}

int nvmlDeviceGetEccMode(fake_gpu *gpu, int *now, int *later)
{
    (void)gpu;
    *now = *later = 1;
    return 0;
}

int nvmlDeviceGetTotalEccErrors(fake_gpu *gpu, int type, int counter, unsigned long long *count)
{
    *count = type == 1 && counter == 0 && is_second(gpu, "broken") ? 3 : 0;
    return 0;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(fake_gpu *gpu, unsigned long long *reasons)
{
    *reasons = is_second(gpu, "hot") ? 0x20 : 0x1; /* software thermal slowdown; idle */
    return 0;
}
