// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * memories - uses memory of every kind that is swapped, and checks every byte of it
 *
 * Private memory, some of it as huge pages, shared memory, and a file of tmpfs, in equal
 * parts: it is written, paged out, shared with children that write to it, locked, moved,
 * given up, sent through pipes, read and written by system calls; at random, until the
 * time is up. Then all of it is checked.
 *
 * The last line it prints is "memories: steps=N verified=N wrong=N": pages checked, and
 * found different. Exit status: 0 if none was, 1 if one was, 2 if it could not run.
 */
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

#define PAGE		4096
#define WORDS		(PAGE / sizeof(uint64_t))
#define MOST		64
#define MAX_MESSAGES	5

/* A part of memory. A page of version 0 is all zeros. */
struct area {
	const char *kind;
	uint8_t *memory;
	uint32_t *versions;
	/* Of a file, or -1. */
	int fd;
	int shared;
	uint64_t seed;
};

struct run {
	struct area *area;
	size_t first;
	size_t count;
};

static struct area areas[4];
static size_t pages;
static uint64_t state;
static unsigned long verified, wrong;
static int own_memory = -1;

static void make_page(const struct area *a, size_t number, uint64_t version, uint64_t *page)
{
	uint64_t random = a->seed ^ (number << 32) ^ version;

	memset(page, 0, PAGE);
	/* Half of a page can be compressed. */
	for (size_t i = 0; version && i < WORDS; i++)
		page[i] = i % 2 ? version : next_random(&random);
}

static int is_page(const struct area *a, size_t number, uint64_t version, const void *found)
{
	uint64_t page[WORDS];

	make_page(a, number, version, page);
	return !memcmp(page, found, PAGE);
}

static void check_page(const struct area *a, size_t number, const void *found, const char *how)
{
	verified++;
	if (is_page(a, number, a->versions[number], found))
		return;
	if (wrong++ < MAX_MESSAGES)
		fprintf(stderr, "memories: %s: page %zu, version %u, is wrong %s\n",
			a->kind, number, a->versions[number], how);
}

static uint8_t *at(const struct run *r)
{
	return r->area->memory + r->first * PAGE;
}

static void check(const struct run *r, const void *found, const char *how)
{
	for (size_t i = 0; i < r->count; i++)
		check_page(r->area, r->first + i, (const uint8_t *)found + i * PAGE, how);
}

static void write_run(const struct run *r)
{
	for (size_t i = 0; i < r->count; i++)
		make_page(r->area, r->first + i, ++r->area->versions[r->first + i],
			  (uint64_t *)(at(r) + i * PAGE));
}

static void read_run(const struct run *r)
{
	check(r, at(r), "in memory");
}

static void page_out(const struct run *r)
{
	madvise(at(r), r->count * PAGE, MADV_PAGEOUT);
}

/* A child sees what is there, and writes: into its own copy, or into what is shared. */
static void fork_run(const struct run *r)
{
	unsigned long before = wrong;
	int status;
	pid_t child = fork();

	must(child >= 0, "fork");
	if (!child) {
		read_run(r);
		write_run(r);
		page_out(r);
		read_run(r);
		_exit(wrong != before);
	}
	must(waitpid(child, &status, 0) == child, "wait for a child");
	if (status) {
		wrong++;
		fprintf(stderr, "memories: a child ended with %#x\n", status);
	}
	for (size_t i = 0; r->area->shared && i < r->count; i++)
		r->area->versions[r->first + i]++;
	check(r, at(r), "after a child wrote");
}

static void lock_run(const struct run *r)
{
	must(!mlock(at(r), r->count * PAGE), "mlock");
	check(r, at(r), "while it is locked");
	must(!munlock(at(r), r->count * PAGE), "munlock");
}

static void move(const struct run *r)
{
	struct area *a = r->area;
	uint8_t *place;

	if (a->shared)
		return;
	place = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(place != MAP_FAILED, "find a place");
	place = mremap(a->memory, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	must(place != MAP_FAILED, "mremap");
	a->memory = place;
	check(r, at(r), "after it was moved");
}

static void give_up(const struct run *r)
{
	int how = r->area->shared ? MADV_REMOVE : MADV_DONTNEED;

	must(!madvise(at(r), r->count * PAGE, how), "give memory up");
	memset(r->area->versions + r->first, 0, r->count * sizeof(*r->area->versions));
	check(r, at(r), "after it was given up");
}

/* The kernel may take a page, or not, until it is written to. */
static void offer(const struct run *r)
{
	static volatile uint8_t nothing;

	if (r->area->shared)
		return;
	must(!madvise(at(r), r->count * PAGE, MADV_FREE), "offer memory");
	page_out(r);
	for (size_t i = 0; i < r->count; i++) {
		size_t number = r->first + i;
		uint8_t *page = at(r) + i * PAGE;

		__atomic_fetch_or(page, nothing, __ATOMIC_SEQ_CST);
		if (is_page(r->area, number, 0, page))
			r->area->versions[number] = 0;
		check_page(r->area, number, page, "after it was offered");
	}
}

static void pipe_run(const struct run *r)
{
	struct iovec all = { .iov_base = at(r), .iov_len = PAGE };
	uint64_t page[WORDS];
	int ends[2];

	must(!pipe(ends), "pipe");
	must(vmsplice(ends[1], &all, 1, 0) == PAGE, "vmsplice");
	must(read(ends[0], page, PAGE) == PAGE, "read a pipe");
	check_page(r->area, r->first, page, "out of a pipe");
	close(ends[0]);
	close(ends[1]);
}

/* As a debugger reads it, and through the file. */
static void read_by_call(const struct run *r)
{
	static uint8_t buffer[MOST * PAGE];
	const ssize_t bytes = r->count * PAGE;

	if (r->area->fd >= 0)
		must(pread(r->area->fd, buffer, bytes, r->first * PAGE) == bytes, "read the file");
	else
		must(pread(own_memory, buffer, bytes, (off_t)(uintptr_t)at(r)) == bytes,
		     "read /proc/self/mem");
	check(r, buffer, "in a call");
}

static void write_by_call(const struct run *r)
{
	const int file = r->area->fd >= 0;
	uint64_t page[WORDS];

	for (size_t i = 0; i < r->count; i++) {
		size_t number = r->first + i;
		off_t to = file ? number * PAGE : (uintptr_t)at(r) + i * PAGE;

		make_page(r->area, number, ++r->area->versions[number], page);
		must(pwrite(file ? r->area->fd : own_memory, page, PAGE, to) == PAGE,
		     "write by a call");
	}
}

static void (*const steps[])(const struct run *r) = {
	write_run, write_run, read_run, page_out, page_out, fork_run, lock_run, move,
	give_up, offer, pipe_run, read_by_call, write_by_call,
};

static void make_area(struct area *a, const char *kind, int flags, int fd)
{
	static uint64_t seed;

	a->kind = kind;
	a->fd = fd;
	a->shared = flags & MAP_SHARED;
	a->seed = next_random(&seed);
	a->memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	/* What is known of it is not swapped, so that only pages of areas are. */
	a->versions = mmap(NULL, pages * sizeof(*a->versions), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	must(a->memory != MAP_FAILED && a->versions != MAP_FAILED, "map");
}

#define USAGE "[--mib ALL-TOGETHER] [--seconds N] [--seed N] --file FILE-OF-TMPFS"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "file", required_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const size_t nr_areas = sizeof(areas) / sizeof(*areas);
	double mib = 64, seconds = 10, end;
	const char *file = NULL;
	unsigned long done = 0;
	struct run run;
	int option, fd;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'm':
			mib = number_of("mib", optarg, 2);
			break;
		case 't':
			seconds = number_of("seconds", optarg, 0);
			break;
		case 's':
			state = number_of("seed", optarg, 0);
			break;
		case 'f':
			file = optarg;
			break;
		default:
			usage(option, USAGE);
		}
	}
	if (optind != argc || !file)
		usage(0, USAGE);

	pages = mib * 1048576 / PAGE / nr_areas;
	must(pages > MOST, "have some pages");
	fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && !ftruncate(fd, pages * PAGE), file);
	own_memory = open("/proc/self/mem", O_RDWR);
	must(own_memory >= 0, "/proc/self/mem");
	make_area(&areas[0], "private", MAP_PRIVATE | MAP_ANONYMOUS, -1);
	make_area(&areas[1], "huge", MAP_PRIVATE | MAP_ANONYMOUS, -1);
	make_area(&areas[2], "shared", MAP_SHARED | MAP_ANONYMOUS, -1);
	make_area(&areas[3], "tmpfs", MAP_SHARED, fd);
	madvise(areas[1].memory, pages * PAGE, MADV_HUGEPAGE);

	for (size_t i = 0; i < nr_areas; i++) {
		run = (struct run){ .area = &areas[i], .count = pages };
		write_run(&run);
	}
	for (end = now() + seconds; now() < end; done++) {
		run.area = &areas[next_random(&state) % nr_areas];
		run.count = 1 + next_random(&state) % MOST;
		run.first = next_random(&state) % (pages - run.count);
		steps[next_random(&state) % (sizeof(steps) / sizeof(*steps))](&run);
	}
	for (size_t i = 0; i < nr_areas; i++) {
		run = (struct run){ .area = &areas[i], .count = pages };
		read_run(&run);
	}
	printf("memories: steps=%lu verified=%lu wrong=%lu\n", done, verified, wrong);
	return wrong != 0;
}
