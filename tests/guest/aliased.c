// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * aliased - reads the block of a file through its device, while the file is written
 *
 * The file is written directly, so the page that the device's own page cache has of the
 * block may be of before. That page is evicted and read again without end, by another
 * thread, until the write is over. What the file has after that must be what was
 * written, whatever a cache below has kept of the device's page.
 *
 * The last line it prints is "aliased: rounds=N wrong=N". Exit status: 0 if none was wrong,
 * 1 if one was, 2 if it could not run.
 */
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "program.h"

#define PAGE	4096

static int device;
static off_t place;
static atomic_int stop;

/* Where on the device the first page of a file is. */
static off_t place_of(int file)
{
	union {
		struct fiemap map;
		uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} u = { .map = { .fm_length = PAGE, .fm_extent_count = 1 } };

	must(!ioctl(file, FS_IOC_FIEMAP, &u.map) && u.map.fm_mapped_extents == 1, "fiemap");
	return u.map.fm_extents[0].fe_physical;
}

static void evict(int fd, off_t offset)
{
	must(!posix_fadvise(fd, offset, PAGE, POSIX_FADV_DONTNEED), "evict");
}

static void *keep_reading(void *page)
{
	while (!atomic_load(&stop)) {
		must(pread(device, page, PAGE, place) == PAGE, "read the device");
		evict(device, place);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint8_t *page = aligned_alloc(PAGE, PAGE), *other = aligned_alloc(PAGE, PAGE);
	int file, direct, rounds = 0, wrong = 0;
	pthread_t reader;
	double end;

	if (argc != 4) {
		fprintf(stderr, "usage: aliased FILE DEVICE SECONDS\n");
		return 2;
	}
	end = now() + number_of("seconds", argv[3], 0);
	file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	direct = open(argv[1], O_RDWR | O_DIRECT);
	device = open(argv[2], O_RDONLY);
	must(file >= 0 && direct >= 0 && device >= 0, "open");
	memset(page, 0, PAGE);
	must(pwrite(direct, page, PAGE, 0) == PAGE && !fsync(direct), "write");
	place = place_of(file);

	for (; now() < end; rounds++) {
		memset(page, rounds + 1, PAGE);
		atomic_store(&stop, 0);
		must(!pthread_create(&reader, NULL, keep_reading, other), "start a thread");
		must(pwrite(direct, page, PAGE, 0) == PAGE, "write");
		atomic_store(&stop, 1);
		pthread_join(reader, NULL);
		must(pread(file, other, PAGE, 0) == PAGE, "read");
		if (memcmp(page, other, PAGE) && !wrong++)
			fprintf(stderr, "aliased: round %d: the file has %02x, not %02x\n",
				rounds, other[0], page[0]);
		evict(file, 0);
	}
	printf("aliased: rounds=%d wrong=%d\n", rounds, wrong);
	return wrong != 0;
}
