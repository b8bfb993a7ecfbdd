// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * coherence - changes files in every way there is and checks what they hold
 *
 * Each process has a file, and in memory a copy of what it must contain. It
 * chooses operations at random until the time is up: buffered, direct and mapped
 * reads and writes, truncation, punched holes, zeroed and allocated ranges,
 * renaming another file over it, unlinking and creating it anew (which reuses the
 * inode), and pushing it out of the page cache. Each read is compared.
 *
 * With --touchers, other processes read and evict parts of these files meanwhile
 * without looking at what they got: their reads race with the writes, and leave
 * in the page cache what the next read of the file's owner is checked against.
 *
 * With --keep the files stay, and are on the disk.
 *
 * The last line it prints is "coherence: ops=N compared=BYTES wrong=N", wrong
 * being reads that differed. Exit status: 0 if none was wrong, 1 if one was, 2 if
 * it could not run. An operation the filesystem does not support is left out. An
 * fsync that fails because Linux itself let a direct write and the page cache
 * collide, as its log then says, is done again.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define PAGE		4096
#define MAX_IO		(512 * 1024)
#define USUAL_IO	(64 * 1024)
#define MAX_PROCS	64
#define HISTORY		16
#define MAX_MESSAGES	5

struct totals {
	uint64_t ops;
	uint64_t compared;
	uint64_t wrong;
};

/* What was done, for the message about a wrong byte. */
struct step {
	const char *name;
	size_t offset;
	size_t length;
};

struct worker {
	char path[256];
	char other[256];
	size_t max;		/* the file never gets longer */
	size_t size;		/* how long it is */
	uint8_t *shadow;	/* what it contains; zeros beyond size */
	uint8_t *buffer;	/* for one I/O, aligned */
	int fd;
	int direct;		/* -1: not supported */
	uint64_t random;
	struct step step;	/* the operation that runs */
	struct step history[HISTORY];	/* the last one first */
	struct totals *totals;
};

static void give_up(struct worker *w, const char *what)
{
	fprintf(stderr, "coherence: %s: %s: %s\n", w->path, what,
		strerror(errno));
	exit(2);
}

static size_t below(struct worker *w, size_t limit)
{
	return limit ? next_random(&w->random) % limit : 0;
}

/* New content: runs of one byte, so that pages differ in how they compress. */
static void fill(struct worker *w, uint8_t *data, size_t length)
{
	size_t run = 1 + below(w, 512);
	uint8_t byte = 0;

	for (size_t i = 0; i < length; i++) {
		if (i % run == 0)
			byte = next_random(&w->random);
		data[i] = byte;
	}
}

static void note(struct worker *w, size_t offset, size_t length)
{
	w->step.offset = offset;
	w->step.length = length;
}

static void print_history(const struct worker *w)
{
	fprintf(stderr, "  operation %llu; before it:",
		(unsigned long long)w->totals->ops);
	for (int h = 0; h < HISTORY && w->history[h].name; h++)
		fprintf(stderr, " %s@%zu+%zu", w->history[h].name,
			w->history[h].offset, w->history[h].length);
	fputc('\n', stderr);
}

static void compare(struct worker *w, const char *how, const uint8_t *data,
		    size_t offset, size_t length)
{
	const uint8_t *expected = w->shadow + offset;
	size_t first = 0, differ = 0;

	w->totals->compared += length;
	if (!memcmp(data, expected, length))
		return;
	if (w->totals->wrong++ >= MAX_MESSAGES)
		return;
	while (data[first] == expected[first])
		first++;
	for (size_t i = first; i < length; i++)
		differ += data[i] != expected[i];
	fprintf(stderr,
		"coherence: %s: %s of %zu bytes at %zu: byte %zu is %02x, not %02x; %zu bytes differ; the file has %zu\n",
		w->path, how, length, offset, offset + first, data[first],
		expected[first], differ, w->size);
	print_history(w);
}

static void open_file(struct worker *w, int flags)
{
	if (w->fd >= 0)
		close(w->fd);
	if (w->direct >= 0)
		close(w->direct);
	w->fd = open(w->path, O_RDWR | flags, 0600);
	if (w->fd < 0)
		give_up(w, "open");
	w->direct = open(w->path, O_RDWR | O_DIRECT);
}

static void range(struct worker *w, size_t *offset, size_t *length, size_t end)
{
	*offset = below(w, end);
	*length = 1 + below(w, below(w, 8) ? USUAL_IO : MAX_IO);
	if (*length > end - *offset)
		*length = end - *offset;
	note(w, *offset, *length);
}

/* A range of whole pages. */
static void page_range(struct worker *w, size_t *offset, size_t *length)
{
	range(w, offset, length, w->max);
	*offset -= *offset % PAGE;
	*length += PAGE - *length % PAGE;
	if (*length > w->max - *offset)
		*length = w->max - *offset;
	note(w, *offset, *length);
}

static void read_range(struct worker *w)
{
	size_t offset, length;

	range(w, &offset, &length, w->size);
	if (pread(w->fd, w->buffer, length, offset) != (ssize_t)length)
		give_up(w, "read");
	compare(w, "read", w->buffer, offset, length);
}

static void read_all(struct worker *w)
{
	struct stat st;

	if (fstat(w->fd, &st))
		give_up(w, "stat");
	if ((size_t)st.st_size != w->size) {
		fprintf(stderr, "coherence: %s is %lld bytes long, not %zu\n",
			w->path, (long long)st.st_size, w->size);
		print_history(w);
		w->totals->wrong++;
	}
	for (size_t offset = 0; offset < w->size; offset += MAX_IO) {
		size_t length = w->size - offset;

		if (length > MAX_IO)
			length = MAX_IO;
		if (pread(w->fd, w->buffer, length, offset) != (ssize_t)length)
			give_up(w, "read");
		compare(w, "read of all", w->buffer, offset, length);
	}
}

static void write_range(struct worker *w)
{
	size_t offset, length;

	range(w, &offset, &length, w->max);
	fill(w, w->shadow + offset, length);
	if (pwrite(w->fd, w->shadow + offset, length, offset) !=
	    (ssize_t)length)
		give_up(w, "write");
	if (w->size < offset + length)
		w->size = offset + length;
}

/* Whole pages, all of them: no byte of the old copy may survive. */
static void write_pages(struct worker *w)
{
	size_t offset, length;

	page_range(w, &offset, &length);
	fill(w, w->shadow + offset, length);
	if (pwrite(w->fd, w->shadow + offset, length, offset) !=
	    (ssize_t)length)
		give_up(w, "write");
	if (w->size < offset + length)
		w->size = offset + length;
}

static void read_direct(struct worker *w)
{
	size_t offset, length;
	ssize_t got;

	if (w->direct < 0)
		return;
	range(w, &offset, &length, w->size);
	offset -= offset % PAGE;
	length += PAGE - length % PAGE;
	got = pread(w->direct, w->buffer, length, offset);
	if (got < 0)
		give_up(w, "direct read");
	compare(w, "direct read", w->buffer, offset, got);
}

static void write_direct(struct worker *w)
{
	size_t offset, length;

	if (w->direct < 0)
		return;
	page_range(w, &offset, &length);
	fill(w, w->buffer, length);
	if (pwrite(w->direct, w->buffer, length, offset) != (ssize_t)length)
		give_up(w, "direct write");
	memcpy(w->shadow + offset, w->buffer, length);
	if (w->size < offset + length)
		w->size = offset + length;
}

static void use_mapping(struct worker *w, int writing)
{
	size_t offset, length, start;
	uint8_t *mapping;

	if (!w->size)
		return;
	range(w, &offset, &length, w->size);
	start = offset - offset % PAGE;
	mapping = mmap(NULL, offset + length - start, PROT_READ | PROT_WRITE,
		       MAP_SHARED, w->fd, start);
	if (mapping == MAP_FAILED)
		give_up(w, "mmap");
	compare(w, "mapped read", mapping + offset - start, offset, length);
	if (writing) {
		fill(w, w->shadow + offset, length);
		memcpy(mapping + offset - start, w->shadow + offset, length);
	}
	munmap(mapping, offset + length - start);
}

static void read_mapped(struct worker *w)
{
	use_mapping(w, 0);
}

static void write_mapped(struct worker *w)
{
	use_mapping(w, 1);
}

static void set_size(struct worker *w, size_t size)
{
	note(w, size, 0);
	if (ftruncate(w->fd, size))
		give_up(w, "truncate");
	if (size < w->size)
		memset(w->shadow + size, 0, w->size - size);
	w->size = size;
}

static void truncate_file(struct worker *w)
{
	set_size(w, below(w, w->max + 1));
}

/* What was cut off must be zeros, not what was there before. */
static void cut_and_extend(struct worker *w)
{
	size_t size = w->size;

	set_size(w, below(w, size + 1));
	set_size(w, size + below(w, w->max - size + 1));
}

static void zero_with(struct worker *w, int mode)
{
	size_t offset, length;

	range(w, &offset, &length, w->size);
	if (!length)
		return;
	if (fallocate(w->fd, mode | FALLOC_FL_KEEP_SIZE, offset, length)) {
		if (errno != EOPNOTSUPP)
			give_up(w, "fallocate");
		return;
	}
	memset(w->shadow + offset, 0, length);
}

static void punch_hole(struct worker *w)
{
	zero_with(w, FALLOC_FL_PUNCH_HOLE);
}

static void zero_range(struct worker *w)
{
	zero_with(w, FALLOC_FL_ZERO_RANGE);
}

/* Content stays; what is added are zeros. */
static void allocate_range(struct worker *w)
{
	size_t offset, length;

	range(w, &offset, &length, w->max);
	if (fallocate(w->fd, 0, offset, length)) {
		if (errno != EOPNOTSUPP)
			give_up(w, "fallocate");
		return;
	}
	if (w->size < offset + length)
		w->size = offset + length;
}

static void rename_over(struct worker *w)
{
	size_t size = below(w, w->max + 1);
	int fd = open(w->other, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		give_up(w, "create");
	memset(w->shadow, 0, w->max);
	fill(w, w->shadow, size);
	if (write(fd, w->shadow, size) != (ssize_t)size)
		give_up(w, "write");
	close(fd);
	note(w, 0, size);
	if (rename(w->other, w->path))
		give_up(w, "rename");
	w->size = size;
	open_file(w, 0);
}

static void unlink_and_create(struct worker *w)
{
	/* Closed before, so that the new file can have the old inode. */
	close(w->fd);
	w->fd = -1;
	if (w->direct >= 0)
		close(w->direct);
	w->direct = -1;
	if (unlink(w->path))
		give_up(w, "unlink");
	memset(w->shadow, 0, w->size);
	w->size = 0;
	open_file(w, O_CREAT | O_EXCL);
}

/*
 * Whether Linux says that it could not drop pages of its cache after a direct write,
 * because something read or wrote them meanwhile. It sets EIO for the next fsync then,
 * although all that was written is on its way; what can be read is compared all the same.
 */
static int collision_in_log(void)
{
	static const char mark[] = "Page cache invalidation failure on direct I/O";
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char record[8192];
	int found = 0;

	for (;;) {
		ssize_t n = read(log, record, sizeof(record) - 1);

		if (n < 0 && errno == EPIPE)
			continue;	/* Records were lost. */
		if (n <= 0)
			break;
		record[n] = '\0';
		found |= strstr(record, mark) != NULL;
	}
	close(log);
	return found;
}

static void sync_with(struct worker *w, const char *name, int (*sync)(int fd))
{
	if (!sync(w->fd))
		return;
	/* An error is told once. */
	if (errno == EIO && collision_in_log() && !sync(w->fd))
		return;
	give_up(w, name);
}

static void sync_file(struct worker *w)
{
	sync_with(w, "fsync", fsync);
}

static void evict(struct worker *w)
{
	sync_with(w, "fdatasync", fdatasync);
	posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Some pages are dirty and stay. */
static void evict_range(struct worker *w)
{
	size_t offset, length;

	range(w, &offset, &length, w->size);
	posix_fadvise(w->fd, offset, length, POSIX_FADV_DONTNEED);
}

static void reopen(struct worker *w)
{
	open_file(w, 0);
}

static const struct {
	const char *name;
	unsigned int weight;
	void (*run)(struct worker *w);
} operations[] = {
	{ "read", 20, read_range },
	{ "write", 14, write_range },
	{ "write-pages", 14, write_pages },
	{ "evict", 14, evict },
	{ "evict-range", 6, evict_range },
	{ "fsync", 4, sync_file },
	{ "read-all", 6, read_all },
	{ "read-direct", 6, read_direct },
	{ "write-direct", 6, write_direct },
	{ "read-mapped", 6, read_mapped },
	{ "write-mapped", 6, write_mapped },
	{ "truncate", 3, truncate_file },
	{ "cut-and-extend", 3, cut_and_extend },
	{ "punch-hole", 4, punch_hole },
	{ "zero-range", 3, zero_range },
	{ "allocate", 2, allocate_range },
	{ "rename-over", 2, rename_over },
	{ "unlink", 2, unlink_and_create },
	{ "reopen", 2, reopen },
};

#define NR_OPERATIONS	(sizeof(operations) / sizeof(operations[0]))

static void run_one(struct worker *w)
{
	unsigned int weights = 0, choice;
	size_t op;

	for (op = 0; op < NR_OPERATIONS; op++)
		weights += operations[op].weight;
	choice = below(w, weights);
	for (op = 0; choice >= operations[op].weight; op++)
		choice -= operations[op].weight;

	w->step = (struct step){ .name = operations[op].name };
	operations[op].run(w);
	memmove(w->history + 1, w->history,
		(HISTORY - 1) * sizeof(w->history[0]));
	w->history[0] = w->step;
	w->totals->ops++;
}

/* Reads and evicts what workers change; the data is nobody's to check. */
static void touch_files(struct worker *w, const char *dir, int procs,
			double seconds)
{
	double end = now() + seconds;

	w->buffer = aligned_alloc(PAGE, MAX_IO + PAGE);
	if (!w->buffer)
		give_up(w, "memory");
	while (now() < end) {
		size_t offset, length;
		int direct = below(w, 4) == 0;
		int fd;

		snprintf(w->path, sizeof(w->path), "%s/coherence.%d", dir,
			 (int)below(w, procs));
		/* It may be gone for a moment, or do no direct I/O. */
		fd = open(w->path, O_RDONLY | (direct ? O_DIRECT : 0));
		if (fd < 0)
			continue;
		page_range(w, &offset, &length);
		/* A file cut during the read may end it with an error. */
		if (pread(fd, w->buffer, length, offset) < 0 || below(w, 2))
			posix_fadvise(fd, offset, length, POSIX_FADV_DONTNEED);
		close(fd);
	}
}

static void work(struct worker *w, double seconds, int keep)
{
	double end = now() + seconds;

	w->shadow = calloc(1, w->max);
	w->buffer = aligned_alloc(PAGE, MAX_IO + PAGE);
	if (!w->shadow || !w->buffer)
		give_up(w, "memory");
	w->fd = -1;
	w->direct = -1;
	unlink(w->path);
	open_file(w, O_CREAT | O_EXCL);
	while (now() < end)
		run_one(w);
	evict(w);
	w->step = (struct step){ .name = "the end" };
	read_all(w);
	if (keep)
		sync_file(w);
	else
		unlink(w->path);
}

#define USAGE "[--dir DIR] [--procs N] [--touchers N] [--seconds N] [--seed N] [--kib OF-EACH-FILE] [--keep]"

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "procs", required_argument, NULL, 'p' },
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "kib", required_argument, NULL, 'k' },
		{ "touchers", required_argument, NULL, 'r' },
		{ "keep", no_argument, NULL, 'K' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	double procs = 2, seconds = 10, seed = 1, kib = 2048, touchers = 0;
	struct totals *totals, sum = { 0 };
	const char *dir = ".";
	int option, index, keep = 0, failed = 0;

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
		case 'k':
			kib = number_of("kib", optarg, PAGE / 1024);
			break;
		case 'r':
			touchers = number_of("touchers", optarg, 0);
			break;
		case 'K':
			keep = 1;
			break;
		default:
			usage(option, USAGE);
		}
	}
	if (optind != argc || procs + touchers > MAX_PROCS)
		usage(0, USAGE);

	totals = mmap(NULL, MAX_PROCS * sizeof(*totals), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (totals == MAP_FAILED) {
		perror("coherence: mmap");
		return 2;
	}
	for (int i = 0; i < (int)procs + (int)touchers; i++) {
		pid_t child = fork();

		if (child < 0) {
			perror("coherence: fork");
			return 2;
		}
		if (child == 0) {
			struct worker w = {
				.max = (size_t)kib * 1024 / PAGE * PAGE,
				.random = ((uint64_t)seed << 8) + i,
				.totals = &totals[i],
			};

			snprintf(w.path, sizeof(w.path), "%s/coherence.%d",
				 dir, i);
			snprintf(w.other, sizeof(w.other), "%s/coherence.%d.new",
				 dir, i);
			if (i < (int)procs)
				work(&w, seconds, keep);
			else
				touch_files(&w, dir, procs, seconds);
			_exit(0);
		}
	}
	for (int i = 0; i < (int)procs + (int)touchers; i++) {
		int status;

		if (wait(&status) < 0 || status) {
			fprintf(stderr, "coherence: a process ended with wait status %#x\n",
				status);
			failed = 2;
		}
	}
	for (int i = 0; i < (int)procs; i++) {
		sum.ops += totals[i].ops;
		sum.compared += totals[i].compared;
		sum.wrong += totals[i].wrong;
	}
	printf("coherence: ops=%llu compared=%llu wrong=%llu\n",
	       (unsigned long long)sum.ops, (unsigned long long)sum.compared,
	       (unsigned long long)sum.wrong);
	return sum.wrong ? 1 : failed;
}
