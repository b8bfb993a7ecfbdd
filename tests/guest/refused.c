// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * refused MAPPED DISK - asks for blocks to be zeroed in part, which is refused
 *
 * Linux zeroes the part in the page that its page cache has of the block, without
 * making it dirty, and asks the device then. That is read-only here and refuses. So
 * the page is clean and not what its block holds, and what is read after its eviction
 * must be what is on the disk: DISK, which is read past its page cache.
 *
 * The last line it prints is "refused: left=N wrong=N", left being pages that were
 * evicted with other contents than their blocks. Exit status: 0 if none was wrong, 1 if
 * one was, 2 if it could not run.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "program.h"

#define PAGE	4096
/* The part that is zeroed, in sectors of 512 bytes. */
#define PART	1024
#define LENGTH	2048
/* So many pages are enough, and so far it looks for them. */
#define ENOUGH	512
#define END	(64L << 20)

static int device, disk;
static uint8_t *page, *other;
static off_t places[ENOUGH];

static void read_only(int value)
{
	must(!ioctl(device, BLKROSET, &value), "set read-only or not");
}

/* Whether the page of the page cache is now another than its block. */
static int left_other(off_t at)
{
	must(pread(device, page, PAGE, at) == PAGE, "read the device");
	must(fallocate(device, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at + PART, LENGTH),
	     "zero a device that is read-only: it was not refused");
	must(pread(device, other, PAGE, at) == PAGE, "read the device");
	return memcmp(page, other, PAGE);
}

int main(int argc, char **argv)
{
	int left = 0, wrong = 0;
	off_t size;

	if (argc != 3) {
		fprintf(stderr, "usage: refused MAPPED DISK\n");
		return 2;
	}
	device = open(argv[1], O_RDWR);
	disk = open(argv[2], O_RDONLY | O_DIRECT);
	page = aligned_alloc(PAGE, PAGE);
	other = aligned_alloc(PAGE, PAGE);
	must(device >= 0 && disk >= 0 && page && other, "open");
	size = lseek(device, 0, SEEK_END);

	read_only(1);
	for (off_t at = 0; at + PAGE <= size && at < END && left < ENOUGH; at += PAGE)
		if (left_other(at))
			places[left++] = at;
	read_only(0);
	if (!left) {
		fprintf(stderr, "refused: no page was left other than its block\n");
		return 2;
	}

	must(!posix_fadvise(device, 0, 0, POSIX_FADV_DONTNEED), "evict");
	for (int i = 0; i < left; i++) {
		must(pread(device, page, PAGE, places[i]) == PAGE, "read the device");
		must(pread(disk, other, PAGE, places[i]) == PAGE, "read the disk");
		if (memcmp(page, other, PAGE) && !wrong++)
			fprintf(stderr, "refused: what is read at %lld is not on the disk\n",
				(long long)places[i]);
	}
	printf("refused: left=%d wrong=%d\n", left, wrong);
	return wrong != 0;
}
