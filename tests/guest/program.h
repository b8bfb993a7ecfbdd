/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the guest's test programs share. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* splitmix64 of Steele, Lea and Flood: seeded, so that a run can be repeated. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Seconds since some start. */
static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Ends the program: it was asked for help, or has an option that is none. */
static inline _Noreturn void usage(int option, const char *text)
{
	fprintf(option == 'h' ? stdout : stderr, "usage: %s %s\n",
		program_invocation_short_name, text);
	exit(option == 'h' ? 0 : 2);
}

/* Ends the program, which cannot go on, unless it is so. */
static inline void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what,
			strerror(errno));
		exit(2);
	}
}

/* The value of an option; ends the program if it is not a number of at least LEAST. */
static inline double number_of(const char *option, const char *text, double least)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || end == text || !(value >= least)) {
		fprintf(stderr, "%s: --%s %s: not a number of at least %g\n",
			program_invocation_short_name, option, text, least);
		exit(2);
	}
	return value;
}

#endif
