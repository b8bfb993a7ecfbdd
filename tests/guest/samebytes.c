// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * samebytes MAPPED DISK [MIB] - compares two block devices, or their first MIB mebibytes
 *
 * The first is read through its page cache, which the zcache device fills, and the
 * second past it. Exit status: 0 if they are the same, 1 if not, 2 if they could not be
 * compared. Pipes from dd to cmp do the same, thirty times slower in a guest of
 * user-mode Linux.
 */
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include "program.h"

#define CHUNK (1 << 20)

static int failed(const char *what)
{
	perror(what);
	return 2;
}

/* Reads a chunk, less at the end of the device. */
static ssize_t read_chunk(int fd, char *to)
{
	ssize_t have = 0;

	while (have < CHUNK) {
		ssize_t n = read(fd, to + have, CHUNK - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		have += n;
	}
	return have;
}

int main(int argc, char **argv)
{
	double left = argc > 3 ? number_of("MIB", argv[3], 1) : 1e9;
	char *chunk[2];
	int fd[2];
	off_t at = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: samebytes MAPPED DISK [MIB]\n");
		return 2;
	}
	for (int i = 0; i < 2; i++) {
		fd[i] = open(argv[i + 1], O_RDONLY | (i ? O_DIRECT : 0));
		if (fd[i] < 0)
			return failed(argv[i + 1]);
		if (posix_memalign((void **)&chunk[i], 4096, CHUNK))
			return failed("memory");
	}
	for (; left >= 1; left--) {
		ssize_t size[2];

		for (int i = 0; i < 2; i++) {
			size[i] = read_chunk(fd[i], chunk[i]);
			if (size[i] < 0)
				return failed(argv[i + 1]);
		}
		if (size[0] != size[1]) {
			printf("one of them ends in the mebibyte at %lld\n", (long long)at);
			return 1;
		}
		for (ssize_t n = 0; n < size[0]; n++) {
			if (chunk[0][n] == chunk[1][n])
				continue;
			printf("they differ at %lld\n", (long long)(at + n));
			return 1;
		}
		at += size[0];
		if (size[0] < CHUNK)
			break;
	}
	return 0;
}
