/* Stands in for NVIDIA's driver: as many A10s as FAKE_GPUS says, and an error when that is no number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned int index; } device;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory;

static device devices[64];

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code ? "fault" : "success"; }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    const char *told = getenv("FAKE_GPUS");
    if (!told || *told < '0' || *told > '9') return 18; /* driver and library differ */
    *count = (unsigned int)atoi(told);
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device **found) {
    devices[index].index = index;
    *found = &devices[index];
    return 0;
}

int nvmlDeviceGetName(device *of, char *name, unsigned int length) {
    (void)of;
    snprintf(name, length, "NVIDIA A10");
    return 0;
}

int nvmlDeviceGetUUID(device *of, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%08x-1111-2222-3333-444444444444", of->index);
    return 0;
}

int nvmlDeviceGetMemoryInfo_v2(device *of, memory *info) {
    (void)of;
    info->total = 23028ULL << 20;
    info->reserved = info->used = 0;
    info->free = info->total;
    return 0;
}
