/*
 * How much memory we may use for key derivations.
 */
#ifndef QS_BASE_MEMORY_H
#define QS_BASE_MEMORY_H

#include <stdint.h>

/* Bytes: half of the smaller of physical memory and what our cgroup may use. */
uint64_t qs_memory_default(void);

/*
 * Bytes that our cgroup (version 1 or 2) and those above it may use; 0: no limit.
 * ROOT stands in front of /proc and /sys: "", or a recorded tree.
 */
uint64_t qs_memory_cgroup(const char *root);

#endif
