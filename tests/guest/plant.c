// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * plant - an unprivileged user tries to change what others read from a file
 *
 * He may read the file, no more. He has the kernel read a page of it directly (by a
 * system call that waits, by AIO and by io_uring in turn, as far as the kernel has
 * them) into a shared mapping of a file of his own, while a thread on another cpu writes to his file:
 * that changes the page, and locks it over and over. Then he has his page evicted. A
 * cache that takes it for the page of the file that was read has what he wrote, and
 * serves it to whoever reads the file. Each page is tried once, for the cache may have
 * it from then on.
 *
 * His file is of SIZE bytes: where that is less than a page, or less than a block, or
 * where it can be compressed, the filesystem writes it in another way than whole pages.
 *
 * The last line it prints is "plant: rounds=N wrong=N". Exit status: 0 if the file
 * stayed what it was, 1 if not, 2 if it could not run.
 */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "program.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define PAGE	4096
#define NOBODY	65534
#define TRIES	20

static uint8_t *mapped, *planted;
static size_t size;
static int mine;
static atomic_int stop;

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(!sched_setaffinity(0, sizeof(set), &set), "choose a cpu");
}

static void *keep_writing(void *unused)
{
	(void)unused;
	run_on(1);
	while (!atomic_load(&stop)) {
		must(pwrite(mine, planted, size, 0) == (ssize_t)size, "write");
		memcpy(mapped, planted, PAGE);
	}
	return NULL;
}

/* One page is read by AIO; the bytes, or a negative error. */
static long read_by_aio(int file, off_t offset)
{
	static aio_context_t context;
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = file,
		.aio_buf = (uintptr_t)mapped,
		.aio_nbytes = PAGE,
		.aio_offset = offset,
	}, *requests[] = { &request };
	struct io_event event;
	long events;

	if (!context && syscall(SYS_io_setup, 1, &context))
		return -ENOSYS;
	must(syscall(SYS_io_submit, context, 1, requests) == 1, "submit by AIO");
	/* What io_uring has left to do for this task interrupts it, as a signal would. */
	do {
		events = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
	} while (events < 0 && errno == EINTR);
	must(events == 1, "wait for AIO");
	return event.res;
}

/* The rings of io_uring, of one entry each; false: the kernel has none. */
static struct io_uring_sqe *sqe;
static struct io_uring_cqe *cqes;
static _Atomic unsigned int *sq_tail, *cq_head, *cq_tail;
static unsigned int cq_mask;

static int open_uring(void)
{
	static int uring = -1;
	struct io_uring_params p = { 0 };
	char *sq, *cq;

	if (sqe)
		return uring;
	uring = syscall(SYS_io_uring_setup, 1, &p);
	if (uring < 0)
		return -1;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
		  MAP_SHARED, uring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*cqes),
		  PROT_READ | PROT_WRITE, MAP_SHARED, uring, IORING_OFF_CQ_RING);
	sqe = mmap(NULL, p.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE,
		   MAP_SHARED, uring, IORING_OFF_SQES);
	must(sq != MAP_FAILED && cq != MAP_FAILED && sqe != MAP_FAILED, "map io_uring");
	sq_tail = (void *)(sq + p.sq_off.tail);
	cq_head = (void *)(cq + p.cq_off.head);
	cq_tail = (void *)(cq + p.cq_off.tail);
	cq_mask = *(unsigned int *)(cq + p.cq_off.ring_mask);
	cqes = (void *)(cq + p.cq_off.cqes);
	return uring;
}

/* One page is read by io_uring; the bytes, or a negative error. */
static long read_by_uring(int file, off_t offset)
{
	int uring = open_uring();
	unsigned int head;
	long result;

	if (uring < 0)
		return -ENOSYS;
	*sqe = (struct io_uring_sqe){
		.opcode = IORING_OP_READ,
		.fd = file,
		.off = offset,
		.addr = (uintptr_t)mapped,
		.len = PAGE,
	};
	atomic_fetch_add(sq_tail, 1);
	must(syscall(SYS_io_uring_enter, uring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1,
	     "submit by io_uring");
	head = atomic_load(cq_head);
	must(head != atomic_load(cq_tail), "have an answer of io_uring");
	result = cqes[head & cq_mask].res;
	atomic_store(cq_head, head + 1);
	return result;
}

/* A filesystem with checksums may complain of what the buffer holds. */
static void read_directly(int direct, off_t offset, int way)
{
	long got = -ENOSYS;

	if (way == 1)
		got = read_by_aio(direct, offset);
	else if (way == 2)
		got = read_by_uring(direct, offset);
	if (got == -ENOSYS)
		got = pread(direct, mapped, PAGE, offset) < 0 ? -errno : PAGE;
	must(got == PAGE || got == -EIO, "read directly");
}

/* Everything up to the moment when the user's page has left the page cache. */
static void plant(int direct, off_t offset)
{
	pthread_t writer;

	atomic_store(&stop, 0);
	mapped[0] = planted[0];
	must(!pthread_create(&writer, NULL, keep_writing, NULL), "start a thread");
	for (int i = 0; i < TRIES; i++)
		read_directly(direct, offset, i % 3);
	atomic_store(&stop, 1);
	pthread_join(writer, NULL);
	memcpy(mapped, planted, PAGE);
	must(!fsync(mine), "fsync");
	madvise(mapped, PAGE, MADV_PAGEOUT);
	posix_fadvise(mine, 0, 0, POSIX_FADV_DONTNEED);
}

int main(int argc, char **argv)
{
	uint8_t *before, *after;
	int victim, direct;
	int rounds = 0, wrong = 0;
	struct stat stat;
	off_t offset;
	double end;

	if (argc != 5) {
		fprintf(stderr, "usage: plant FILE OWN-FILE SIZE SECONDS\n");
		return 2;
	}
	must(!setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY),
	     "become nobody");
	size = number_of("size", argv[3], 1);
	end = now() + number_of("seconds", argv[4], 0);
	victim = open(argv[1], O_RDONLY);
	direct = open(argv[1], O_RDONLY | O_DIRECT);
	must(victim >= 0 && direct >= 0 && !fstat(victim, &stat), argv[1]);
	must(open(argv[1], O_WRONLY) < 0, "be somebody who must not write the file");

	before = aligned_alloc(PAGE, PAGE);
	after = aligned_alloc(PAGE, PAGE);
	/* What is beyond the end of the file a filesystem zeroes as it writes. */
	planted = calloc(size / PAGE + 1, PAGE);
	must(before && after && planted, "have memory");
	memset(planted, 'P', size);
	mine = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(mine >= 0 && pwrite(mine, planted, size, 0) == (ssize_t)size, argv[2]);
	mapped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 0);
	must(mapped != MAP_FAILED, "map");

	/* Nothing is read ahead, which the cache would have too early. */
	posix_fadvise(victim, 0, 0, POSIX_FADV_RANDOM);
	run_on(0);
	for (offset = 0; offset + PAGE <= stat.st_size && now() < end; offset += PAGE) {
		must(pread(direct, before, PAGE, offset) == PAGE, "read directly");
		posix_fadvise(victim, 0, 0, POSIX_FADV_DONTNEED);
		plant(direct, offset);
		rounds++;
		posix_fadvise(victim, 0, 0, POSIX_FADV_DONTNEED);
		if (pread(victim, after, PAGE, offset) == PAGE &&
		    !memcmp(before, after, PAGE))
			continue;
		if (!wrong++)
			fprintf(stderr, "plant: the file is changed at %ld: %.16s\n",
				(long)offset, (char *)after);
	}
	printf("plant: rounds=%d wrong=%d\n", rounds, wrong);
	return wrong != 0;
}
