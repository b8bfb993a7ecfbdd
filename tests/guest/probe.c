// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * probe - says how long a page takes to come back, all the time
 *
 * One page at a time is read from a file after it was dropped from the page cache,
 * or paged out of anonymous memory, or touched there again; what came back is
 * compared. After each there is a short pause.
 *
 * For each second in which an operation ended it prints "stall_us=N": the longest of
 * these took so many microseconds, by the guest's monotonic clock, from the call (or the
 * touch) to its return. One that takes several seconds is told once, at its end.
 *
 * It ends when the file of --until is there. The last line is "probe: verified=N
 * wrong=N": pages compared, pages found different. Exit status: 0 if none was wrong,
 * 1 if one was, 2 if it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

#define PAGE	4096
#define WORDS	(PAGE / sizeof(uint64_t))
#define PAGES	256

struct probe {
	const char *path;
	int file;
	uint64_t (*memory)[WORDS];
	/* Of each page in memory; 0 in the file. */
	uint64_t versions[PAGES];
	uint64_t random;
	uint64_t verified;
	uint64_t wrong;
	double second;		/* when this one began */
	double longest;		/* operation of this second */
};

static void give_up(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* Half of it noise, so that it is stored and compressed. */
static void make_page(uint64_t number, uint64_t version, uint64_t page[WORDS])
{
	uint64_t state = number << 32 ^ version;

	for (size_t i = 0; i < WORDS; i++)
		page[i] = i % 2 ? number : next_random(&state);
}

static void check(struct probe *p, const char *where, uint64_t number,
		  uint64_t version, const uint64_t page[WORDS])
{
	uint64_t expected[WORDS];

	make_page(number, version, expected);
	p->verified++;
	if (!memcmp(expected, page, PAGE))
		return;
	if (p->wrong++ < 5)
		fprintf(stderr, "probe: page %llu version %llu %s is wrong\n",
			(unsigned long long)number,
			(unsigned long long)version, where);
}

/* An operation that began at START has ended. */
static void ended(struct probe *p, double start)
{
	double end = now();

	if (p->longest < end - start)
		p->longest = end - start;
	if (end - p->second < 1)
		return;
	printf("stall_us=%.0f\n", p->longest * 1e6);
	p->second = end;
	p->longest = 0;
}

static void read_page(struct probe *p)
{
	uint64_t number = next_random(&p->random) % PAGES;
	uint64_t page[WORDS];
	double start;

	posix_fadvise(p->file, 0, 0, POSIX_FADV_DONTNEED);
	start = now();
	if (pread(p->file, page, PAGE, number * PAGE) != PAGE)
		give_up("read");
	ended(p, start);
	check(p, "of the file", number, 0, page);
}

/* A page gets a new version and leaves. */
static void page_out(struct probe *p, uint64_t number)
{
	double start;

	make_page(number, ++p->versions[number], p->memory[number]);
	start = now();
	if (madvise(p->memory[number], PAGE, MADV_PAGEOUT))
		give_up("page out");
	ended(p, start);
}

static void touch(struct probe *p, uint64_t number)
{
	double start = now();

	(void)*(volatile uint64_t *)p->memory[number];
	ended(p, start);
	check(p, "of memory", number, p->versions[number], p->memory[number]);
}

static void rest(void)
{
	const struct timespec pause = { .tv_nsec = 4000000 };

	nanosleep(&pause, NULL);
}

static void prepare(struct probe *p)
{
	uint64_t page[WORDS];

	p->memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED)
		give_up("memory");
	madvise(p->memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	p->file = open(p->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (p->file < 0)
		give_up(p->path);
	for (uint64_t number = 0; number < PAGES; number++) {
		make_page(number, 0, page);
		if (write(p->file, page, PAGE) != PAGE)
			give_up("write");
	}
	if (fsync(p->file))
		give_up("fsync");
	/* One page at a time is what is measured. */
	posix_fadvise(p->file, 0, 0, POSIX_FADV_RANDOM);
}

#define USAGE "--file PATH --until PATH"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "file", required_argument, NULL, 'f' },
		{ "until", required_argument, NULL, 'u' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct probe p = { .random = 1 };
	const char *until = NULL;
	int option, index;

	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		switch (option) {
		case 'f':
			p.path = optarg;
			break;
		case 'u':
			until = optarg;
			break;
		default:
			usage(option, USAGE);
		}
	}
	if (optind != argc || !p.path || !until)
		usage(0, USAGE);

	/* What it has besides is not what is measured. */
	if (mlockall(MCL_CURRENT))
		give_up("mlockall");
	prepare(&p);
	setvbuf(stdout, NULL, _IOLBF, 0);
	p.second = now();
	while (access(until, F_OK)) {
		for (uint64_t number = 0; number < PAGES; number++) {
			page_out(&p, number);
			rest();
		}
		for (uint64_t number = 0; number < PAGES; number++) {
			touch(&p, number);
			rest();
			read_page(&p);
			rest();
		}
	}
	printf("probe: verified=%llu wrong=%llu\n",
	       (unsigned long long)p.verified, (unsigned long long)p.wrong);
	return p.wrong ? 1 : 0;
}
