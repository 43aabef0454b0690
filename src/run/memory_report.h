/* What a runtime's memory is for, in words. */
#ifndef TESKD_RUN_MEMORY_REPORT_H
#define TESKD_RUN_MEMORY_REPORT_H

#include "run/program.h"

/* One line of what runtime_bind will take, and of what the device has left where it can tell. */
void memory_plan_text(const runtime *r, char *text, size_t bytes);

/* Bytes of what a checkpoint holds. */
size_t memory_saved_bytes(const runtime *r);

/* ERROR_MEMORY for an allocation of `wanted` bytes that failed: the five largest values, the largest batch that fits.
 */
int memory_explain(const runtime *r, size_t wanted);

#endif
