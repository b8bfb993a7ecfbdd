// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * swaphog - uses more memory than there is and checks every byte of it
 *
 * Each process fills its share of anonymous memory with pages that can be made
 * again from a seed, the page's number and its version; then it checks pages in
 * random order, giving some a new version, until the time is up or SIGUSR1 comes;
 * then it checks all of them once more. With --huge it asks for huge pages.
 *
 * What it has besides, as its stack, is not swapped. The kernel looks at some of that
 * when a process ends, so one that was killed would not end while a page of it is on a
 * device that is away.
 *
 * The last line it prints is "swaphog: pages=N verified=N wrong=N filling=S
 * in_time=N": pages of memory, pages checked, pages found different, seconds until
 * all memory was written, pages checked until the time was up. Exit status: 0 if none was
 * wrong, 1 if one was, 2 if it could not run.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define PAGE	4096
#define WORDS	(PAGE / sizeof(uint64_t))
/* One check in so many gives the page a new version. */
#define REWRITE	4
#define MAX_PROCS	64

static volatile sig_atomic_t told_to_end;

static void on_end(int signal)
{
	(void)signal;
	told_to_end = 1;
}

struct totals {
	uint64_t pages;
	uint64_t verified;
	uint64_t wrong;
	uint64_t in_time;
	double filling;
};

struct hog {
	uint64_t seed;
	uint64_t (*memory)[WORDS];
	uint32_t *versions;
	size_t pages;
	bool huge;
	struct totals *totals;
};

/* One page of eight is zero, two are one word repeated, two noise, three text. */
static void make_page(uint64_t seed, size_t number, uint32_t version,
		      uint64_t page[WORDS])
{
	static const char words[16][8] = {
		"swap    ", "page    ", "guest   ", "host    ",
		"memory  ", "kernel  ", "device  ", "queue   ",
		"request ", "answer  ", "cache   ", "object  ",
		"index   ", "pool    ", "store   ", "\n\n\n\n    ",
	};
	uint64_t state = seed ^ (number * 0x100000001b3) ^
			 ((uint64_t)version << 40);
	unsigned int kind = next_random(&state) % 8;
	uint64_t noise = next_random(&state);

	for (size_t i = 0; i < WORDS; i++) {
		if (kind == 0) {
			page[i] = 0;
		} else if (kind <= 2) {
			page[i] = noise;
		} else if (kind <= 4) {
			page[i] = next_random(&state);
		} else if (i % 16 == 0) {
			page[i] = noise + i;
		} else {
			noise = noise * 6364136223846793005 + 1442695040888963407;
			memcpy(&page[i], words[noise >> 60], sizeof(page[i]));
		}
	}
}

static void check_page(struct hog *hog, size_t number)
{
	uint64_t expected[WORDS];

	make_page(hog->seed, number, hog->versions[number], expected);
	hog->totals->verified++;
	if (!memcmp(expected, hog->memory[number], PAGE))
		return;
	if (hog->totals->wrong++ < 5) {
		size_t i = 0;

		while (expected[i] == hog->memory[number][i])
			i++;
		fprintf(stderr,
			"swaphog: page %zu version %u: word %zu is %016llx, not %016llx\n",
			number, hog->versions[number], i,
			(unsigned long long)hog->memory[number][i],
			(unsigned long long)expected[i]);
	}
}

static void write_page(struct hog *hog, size_t number)
{
	make_page(hog->seed, number, hog->versions[number],
		  hog->memory[number]);
}

static void *map(size_t bytes, int flags)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	if (memory == MAP_FAILED) {
		fprintf(stderr, "swaphog: cannot map %zu bytes: %s\n", bytes,
			strerror(errno));
		exit(2);
	}
	return memory;
}

static void run(struct hog *hog, double seconds)
{
	uint64_t random = hog->seed;
	double start = now(), end = start + seconds;

	hog->memory = map(hog->pages * PAGE, MAP_PRIVATE);
	hog->versions = map(hog->pages * sizeof(*hog->versions), MAP_PRIVATE);
	madvise(hog->memory, hog->pages * PAGE,
		hog->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (size_t i = 0; i < hog->pages; i++)
		write_page(hog, i);
	hog->totals->pages = hog->pages;
	hog->totals->filling = now() - start;

	while (now() < end && !told_to_end) {
		size_t number = next_random(&random) % hog->pages;

		check_page(hog, number);
		if (next_random(&random) % REWRITE == 0) {
			hog->versions[number]++;
			write_page(hog, number);
		}
	}
	hog->totals->in_time = hog->totals->verified;
	for (size_t i = 0; i < hog->pages; i++)
		check_page(hog, i);
}

static void stay_in_memory(void)
{
	if (mlockall(MCL_CURRENT)) {
		perror("swaphog: mlockall");
		exit(2);
	}
}

#define USAGE "[--mib ALL-TOGETHER] [--seconds N] [--procs N] [--seed N] [--huge]"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "seconds", required_argument, NULL, 't' },
		{ "procs", required_argument, NULL, 'p' },
		{ "seed", required_argument, NULL, 's' },
		{ "huge", no_argument, NULL, 'H' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	double mib = 64, seconds = 10, procs = 1, seed = 1;
	struct totals *totals, sum = { 0 };
	int option, index, failed = 0;
	bool huge = false;

	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		switch (option) {
		case 'm':
			mib = number_of("mib", optarg, 1);
			break;
		case 't':
			seconds = number_of("seconds", optarg, 0);
			break;
		case 'p':
			procs = number_of("procs", optarg, 1);
			break;
		case 's':
			seed = number_of("seed", optarg, 0);
			break;
		case 'H':
			huge = true;
			break;
		default:
			usage(option, USAGE);
		}
	}
	if (optind != argc || procs > MAX_PROCS)
		usage(0, USAGE);

	/* The parent's wait() goes on. */
	signal(SIGUSR1, on_end);
	totals = map(MAX_PROCS * sizeof(*totals), MAP_SHARED);
	stay_in_memory();
	for (int i = 0; i < (int)procs; i++) {
		pid_t child = fork();

		if (child < 0) {
			perror("swaphog: fork");
			return 2;
		}
		if (child == 0) {
			struct hog hog = {
				.seed = ((uint64_t)seed << 8) + i,
				.pages = mib * 1048576 / PAGE / (int)procs,
				.huge = huge,
				.totals = &totals[i],
			};

			/* The lock is not inherited. */
			stay_in_memory();
			run(&hog, seconds);
			_exit(0);
		}
	}
	for (int i = 0; i < (int)procs; i++) {
		int status;

		if (wait(&status) < 0 || status) {
			fprintf(stderr, "swaphog: a process ended with wait status %#x\n",
				status);
			failed = 2;
		}
	}
	for (int i = 0; i < (int)procs; i++) {
		sum.pages += totals[i].pages;
		sum.verified += totals[i].verified;
		sum.wrong += totals[i].wrong;
		sum.in_time += totals[i].in_time;
		if (totals[i].filling > sum.filling)
			sum.filling = totals[i].filling;
	}
	printf("swaphog: pages=%llu verified=%llu wrong=%llu filling=%.2f in_time=%llu\n",
	       (unsigned long long)sum.pages, (unsigned long long)sum.verified,
	       (unsigned long long)sum.wrong, sum.filling,
	       (unsigned long long)sum.in_time);
	return sum.wrong ? 1 : failed;
}
