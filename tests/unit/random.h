/*
 * Random choices that are the same in every run. Include after cmocka.h.
 */
#ifndef QS_TEST_RANDOM_H
#define QS_TEST_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

static uint32_t random_state = 2463534242U;

/* 0 to BELOW - 1, by xorshift32. */
static inline unsigned pick(unsigned below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state % below;
}

static inline const char *one_of(const char *const *choices, size_t count)
{
	return choices[pick((unsigned)count)];
}
#define ONE_OF(array) one_of(array, QS_ARRAY_SIZE(array))

#endif
