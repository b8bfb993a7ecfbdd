// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * clones - looks for the pages that are clean but are not what their block holds
 *
 * A filesystem that cuts a file zeroes the end of a page in memory first, and makes
 * the page dirty only then. If reclaim takes the page in between, its content is
 * not the block's, which may belong to another file as well. Each process makes a
 * file and a clone of it (FICLONE), cuts and punches the file while threads evict
 * and read it, and then reads the clone, which must not have changed.
 *
 * The last line it prints is "clones: rounds=N compared=BYTES wrong=N failed=N":
 * clones checked, clones that had changed, and clones that could not be read, as
 * where a filesystem's own checksums find the damage first. Exit status: 0 if none
 * was wrong or failed, 1 if one was, 2 if it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define PAGE		4096
/* Long enough for large folios. */
#define MAX_PAGES	256
#define MAX_PROCS	64
/* How often a file is cut before its clone is looked at. */
#define CUTS		4
#define MAX_MESSAGES	5

struct totals {
	uint64_t rounds;
	uint64_t compared;
	uint64_t wrong;
	uint64_t failed;
};

struct hammer {
	char path[256];
	char clone[256];
	int fd;
	uint64_t random;
	uint8_t *content;	/* of the clone */
	uint8_t *buffer;
	atomic_size_t size;	/* of the file that is cut */
	atomic_int stop;
	struct totals *totals;
};

static void give_up(struct hammer *h, const char *what)
{
	fprintf(stderr, "clones: %s: %s: %s\n", h->path, what, strerror(errno));
	exit(2);
}

static void *evict(void *argument)
{
	struct hammer *h = argument;

	while (!atomic_load(&h->stop))
		posix_fadvise(h->fd, 0, 0, POSIX_FADV_DONTNEED);
	return NULL;
}

/* Brings pages back around the place of the next cut. */
static void *populate(void *argument)
{
	struct hammer *h = argument;
	uint8_t *buffer = malloc(64 * PAGE);

	while (buffer && !atomic_load(&h->stop)) {
		size_t size = atomic_load(&h->size);
		size_t offset = size > 64 * PAGE ? size - 64 * PAGE : 0;

		if (pread(h->fd, buffer, 64 * PAGE, offset) < 0)
			give_up(h, "read of the file that is cut");
	}
	free(buffer);
	return NULL;
}

static void make_file(struct hammer *h, size_t size)
{
	/* No zeros, for these are what a wrong page has. */
	for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
		uint64_t word = next_random(&h->random) | 0x0101010101010101;

		memcpy(h->content + i, &word, sizeof(word));
	}
	h->fd = open(h->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (h->fd < 0)
		give_up(h, "create");
	if (write(h->fd, h->content, size) != (ssize_t)size)
		give_up(h, "write");
	if (fsync(h->fd))
		give_up(h, "fsync");
}

static void clone_file(struct hammer *h)
{
	int fd = open(h->clone, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		give_up(h, "create the clone");
	if (ioctl(fd, FICLONE, h->fd))
		give_up(h, "FICLONE");
	close(fd);
}

static void cut_file(struct hammer *h, size_t size)
{
	pthread_t threads[2];

	atomic_store(&h->stop, 0);
	atomic_store(&h->size, size);
	if (pthread_create(&threads[0], NULL, evict, h) ||
	    pthread_create(&threads[1], NULL, populate, h))
		give_up(h, "start a thread");
	for (int cut = 0; cut < CUTS && size > 1; cut++) {
		size_t end = size - 1 - next_random(&h->random) % (size / 4 + 1);

		/* In whole pages most of them, so that readahead fills large folios. */
		if (pread(h->fd, h->buffer, size, 0) < 0)
			give_up(h, "read");
		if (next_random(&h->random) % 4 == 0) {
			if (fallocate(h->fd,
				      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      end / 2, size / 4 + 1))
				give_up(h, "punch");
		}
		if (ftruncate(h->fd, end))
			give_up(h, "truncate");
		size = end;
		atomic_store(&h->size, size);
	}
	atomic_store(&h->stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	posix_fadvise(h->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void check_clone(struct hammer *h, size_t size)
{
	int fd = open(h->clone, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		give_up(h, "open the clone");
	got = pread(fd, h->buffer, size, 0);
	close(fd);
	h->totals->rounds++;
	if (got < 0) {
		fprintf(stderr, "clones: %s: %s\n", h->clone, strerror(errno));
		h->totals->failed++;
		return;
	}
	h->totals->compared += got;
	if ((size_t)got == size && !memcmp(h->buffer, h->content, size))
		return;
	if (h->totals->wrong++ < MAX_MESSAGES) {
		ssize_t first = 0, differ = 0;

		for (ssize_t i = got - 1; i >= 0; i--) {
			if (h->buffer[i] != h->content[i]) {
				first = i;
				differ++;
			}
		}
		fprintf(stderr,
			"clones: %s: round %llu: %zd of %zu bytes read; byte %zd is %02x, not %02x; %zd bytes differ\n",
			h->clone, (unsigned long long)h->totals->rounds, got,
			size, first, h->buffer[first], h->content[first],
			differ);
	}
}

static void work(struct hammer *h, double seconds)
{
	double end = now() + seconds;

	h->content = malloc(MAX_PAGES * PAGE);
	h->buffer = malloc(MAX_PAGES * PAGE);
	if (!h->content || !h->buffer)
		give_up(h, "memory");
	while (now() < end) {
		size_t size = PAGE * (16 + next_random(&h->random) %
				      (MAX_PAGES - 15));

		make_file(h, size);
		clone_file(h);
		cut_file(h, size);
		check_clone(h, size);
		close(h->fd);
		unlink(h->path);
		unlink(h->clone);
	}
}

#define USAGE "[--dir DIR] [--procs N] [--seconds N] [--seed N]"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "procs", required_argument, NULL, 'p' },
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	double procs = 2, seconds = 10, seed = 1;
	struct totals *totals, sum = { 0 };
	const char *dir = ".";
	int option, index, failed = 0;

	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		switch (option) {
		case 'd':
			dir = optarg;
			break;
		case 'p':
			procs = number_of("procs", optarg, 1);
			break;
		case 't':
			seconds = number_of("seconds", optarg, 0);
			break;
		case 's':
			seed = number_of("seed", optarg, 0);
			break;
		default:
			usage(option, USAGE);
		}
	}
	if (optind != argc || procs > MAX_PROCS)
		usage(0, USAGE);

	totals = mmap(NULL, MAX_PROCS * sizeof(*totals), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (totals == MAP_FAILED) {
		perror("clones: mmap");
		return 2;
	}
	for (int i = 0; i < (int)procs; i++) {
		pid_t child = fork();

		if (child < 0) {
			perror("clones: fork");
			return 2;
		}
		if (child == 0) {
			struct hammer h = {
				.random = ((uint64_t)seed << 8) + i,
				.totals = &totals[i],
			};

			snprintf(h.path, sizeof(h.path), "%s/clones.%d", dir, i);
			snprintf(h.clone, sizeof(h.clone), "%s/clones.%d.clone",
				 dir, i);
			work(&h, seconds);
			_exit(0);
		}
	}
	for (int i = 0; i < (int)procs; i++) {
		int status;

		if (wait(&status) < 0 || status) {
			fprintf(stderr, "clones: a process ended with wait status %#x\n",
				status);
			failed = 2;
		}
	}
	for (int i = 0; i < (int)procs; i++) {
		sum.rounds += totals[i].rounds;
		sum.compared += totals[i].compared;
		sum.wrong += totals[i].wrong;
		sum.failed += totals[i].failed;
	}
	printf("clones: rounds=%llu compared=%llu wrong=%llu failed=%llu\n",
	       (unsigned long long)sum.rounds, (unsigned long long)sum.compared,
	       (unsigned long long)sum.wrong, (unsigned long long)sum.failed);
	return sum.wrong || sum.failed ? 1 : failed;
}
