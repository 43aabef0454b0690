/* One GPU for each generation that has kernels of its own; figures as their makers publish them. */
#include "devices.h"

#include <stdio.h>

const described_gpu described_gpus[] = {
    {75, "Tesla T4", false, 40, 16, 1024, 65536, 4, 16, 1590, 5001},
    {80, "NVIDIA A100-SXM4-80GB", true, 108, 32, 2048, 166912, 40, 80, 1410, 1593},
    {89, "NVIDIA L40S", true, 142, 24, 1536, 101376, 96, 48, 2520, 9001},
    {90, "NVIDIA H200", true, 132, 32, 2048, 232448, 60, 141, 1980, 3201},
    {100, "NVIDIA B200", true, 148, 32, 2048, 232448, 126, 180, 1965, 3996},
    {120, "NVIDIA GeForce RTX 5090", true, 170, 24, 1536, 101376, 96, 32, 2407, 14001},
};
const int described_gpu_count = sizeof described_gpus / sizeof *described_gpus;

void described_gpu_json(const described_gpu *g, char json[GPU_JSON_BYTES])
{
    snprintf(json, GPU_JSON_BYTES,
             "{\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,\"maxGridSize\":[2147483647,65535,65535],"
             "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,"
             "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
             "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":%d,"
             "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"pciDeviceId\":0,\"isTccDriver\":0,"
             "\"supportCoopLaunch\":1,\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,\"l2CacheSize\":%d,"
             "\"totalGlobalMem\":%lld,\"deviceName\":\"%s\"}",
             g->sm * 10, g->multiprocessors, g->shared_bytes, g->blocks, g->threads, g->clock_mhz * 1000,
             g->memory_clock_mhz * 1000, g->l2_mib << 20, (long long)g->memory_gib << 30, g->name);
}
