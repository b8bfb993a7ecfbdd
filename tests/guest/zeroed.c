// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * zeroed - zeroes a part of a page that is not in the page cache, and reads it back
 *
 * The page's copy from before must not come back, wherever it was kept. A filesystem
 * may change the block of such a page without reading all of the page; if the page is
 * held by somebody else when it is evicted, it stays, but without what was read and
 * changed. Here a cpu holds it, in its list of pages that are new: it is made on one
 * cpu, and written and evicted on another.
 *
 * The last line it prints is "zeroed: rounds=N wrong=N". Exit status: 0 if none was
 * wrong, 1 if one was, 2 if it could not run.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

#define PAGE	4096
#define PAGES	64
#define ROUNDS	20
/* The end of a page and the start of the next. */
#define AT	(20 * PAGE + 3000)
#define LENGTH	(PAGE)

static uint8_t content[PAGES * PAGE];

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(!sched_setaffinity(0, sizeof(set), &set), "choose a cpu");
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	must(fd >= 0 && write(fd, "1", 1) == 1, "drop_caches");
	close(fd);
}

static void read_all(int fd)
{
	must(pread(fd, content, sizeof(content), 0) == sizeof(content), "read");
}

static int zero_and_check(const char *path, int mode)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	int wrong = 0;

	must(fd >= 0, path);
	memset(content, 0xaa, sizeof(content));
	must(write(fd, content, sizeof(content)) == sizeof(content), "write");
	must(!fsync(fd), "fsync");
	/* Linux offers only pages that it has read from the disk. */
	drop_caches();
	read_all(fd);
	drop_caches();

	run_on(1);
	must(!fallocate(fd, mode, AT, LENGTH), "fallocate");
	run_on(0);
	must(!fsync(fd), "fsync");
	drop_caches();
	read_all(fd);
	for (int i = 0; i < LENGTH; i++)
		wrong += content[AT + i] != 0;
	if (wrong)
		fprintf(stderr, "zeroed: %s: mode %d: %d of %d bytes are from before\n",
			path, mode, wrong, LENGTH);
	close(fd);
	return wrong != 0;
}

int main(int argc, char **argv)
{
	static const int modes[] = {
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	};
	int wrong = 0;

	if (argc != 2 || *argv[1] == '-')
		usage(argc == 2 && !strcmp(argv[1], "--help") ? 'h' : 0, "FILE");
	for (int round = 0; round < ROUNDS; round++)
		wrong += zero_and_check(argv[1], modes[round % 2]);
	printf("zeroed: rounds=%d wrong=%d\n", ROUNDS, wrong);
	return wrong != 0;
}
