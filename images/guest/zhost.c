/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* zhost WORD...: sends its arguments to the host as one request and prints the
 * answer. The wire format is in README.md. */
#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

#include "port.h"

#define HEADER 12
#define MAX_BODY 65536
/* The host sends so many bytes of an answer, then waits to be asked for more. */
#define PIECE 1024
#define FAILED 125

static const unsigned char magic[4] = { 'Z', 'H', 'S', 'T' };
static const char port_name[] = "org.zcache.host";
static const char lock_path[] = "/run/zhost.lock";

static int fail(const char *what)
{
	fprintf(stderr, "zhost: %s: %s\n", what, strerror(errno));
	return FAILED;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Waits until the port can be read (POLLIN) or written (POLLOUT); false with errno
 * set at the deadline. POLLHUP alone means that the host is not connected (yet).
 */
static bool wait_for(int fd, short event, int64_t deadline)
{
	for (;;) {
		int64_t left = deadline - now_ms();
		struct pollfd wait = { .fd = fd, .events = event };

		if (left <= 0) {
			errno = ETIMEDOUT;
			return false;
		}
		if (poll(&wait, 1, left > 1000 ? 1000 : (int)left) < 0 && errno != EINTR)
			return false;
		if (wait.revents & event && !(wait.revents & POLLHUP && event == POLLOUT))
			return true;
		if (wait.revents)
			usleep(50 * 1000);
	}
}

/* Writes exactly `size` bytes before the deadline. */
static bool write_all(int fd, const unsigned char *from, size_t size, int64_t deadline)
{
	while (size) {
		ssize_t n;

		if (!wait_for(fd, POLLOUT, deadline))
			return false;
		n = write(fd, from, size);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (n > 0) {
			from += n;
			size -= (size_t)n;
		}
	}
	return true;
}

/* Reads exactly `size` bytes before the deadline. */
static bool read_all(int fd, unsigned char *to, size_t size, int64_t deadline)
{
	while (size) {
		ssize_t n;

		if (!wait_for(fd, POLLIN, deadline))
			return false;
		n = read(fd, to, size);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (n == 0)
			usleep(50 * 1000);
		if (n > 0) {
			to += n;
			size -= (size_t)n;
		}
	}
	return true;
}

/*
 * Reads the next header. A caller that was killed may have left the tail of an
 * answer in the port, so this slides along until the magic turns up.
 */
static bool read_header(int fd, unsigned char *header, int64_t deadline)
{
	if (!read_all(fd, header, HEADER, deadline))
		return false;
	while (memcmp(header, magic, sizeof(magic)) != 0) {
		memmove(header, header + 1, HEADER - 1);
		if (!read_all(fd, header + HEADER - 1, 1, deadline))
			return false;
	}
	return true;
}

/* Sends a request; an empty one asks for more of the answer to the one before. */
static bool send_request(int fd, uint32_t id, const unsigned char *body, size_t size,
			 int64_t deadline)
{
	unsigned char header[HEADER];

	memcpy(header, magic, sizeof(magic));
	put_le32(header + 4, id);
	put_le32(header + 8, (uint32_t)size);
	return write_all(fd, header, sizeof(header), deadline) &&
	       write_all(fd, body, size, deadline);
}

/* Reads what follows the header of the answer to request `id`. */
static bool read_body(int fd, uint32_t id, unsigned char *to, size_t size, int64_t deadline)
{
	size_t piece = PIECE - HEADER;

	while (size > piece) {
		if (!read_all(fd, to, piece, deadline) ||
		    !send_request(fd, id, NULL, 0, deadline))
			return false;
		to += piece;
		size -= piece;
		piece = PIECE;
	}
	return read_all(fd, to, size, deadline);
}

int main(int argc, char **argv)
{
	static unsigned char body[MAX_BODY];
	unsigned char header[HEADER];
	const char *limit = getenv("ZHOST_TIMEOUT");
	size_t size = 0;
	struct timespec ts;
	int64_t deadline;
	uint32_t id;
	int lock, port;

	if (argc < 2) {
		fprintf(stderr, "usage: zhost WORD...\n");
		return FAILED;
	}
	for (int i = 1; i < argc; i++) {
		size_t len = strlen(argv[i]) + 1;

		if (len > sizeof(body) - size) {
			errno = E2BIG;
			return fail("request");
		}
		memcpy(body + size, argv[i], len);
		size += len;
	}
	deadline = now_ms() + (limit ? strtol(limit, NULL, 10) : 120) * 1000;

	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		return fail(lock_path);
	while (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(lock_path);
		if (now_ms() >= deadline) {
			errno = ETIMEDOUT;
			return fail("waiting for another zhost");
		}
		usleep(20 * 1000);
	}
	port = port_open(port_name, O_NONBLOCK);
	if (port < 0)
		return fail(port_name);

	clock_gettime(CLOCK_MONOTONIC, &ts);
	id = (uint32_t)getpid() << 16 ^ (uint32_t)ts.tv_nsec;
	if (!send_request(port, id, body, size, deadline))
		return fail("sending the request");

	for (;;) {
		uint32_t len;

		if (!read_header(port, header, deadline))
			return fail("waiting for the answer");
		len = get_le32(header + 8);
		if (get_le32(header + 4) != id || len < 1 || len > sizeof(body))
			continue;
		if (!read_body(port, id, body, len, deadline))
			return fail("reading the answer");
		fwrite(body + 1, 1, len - 1, body[0] ? stderr : stdout);
		if (len > 1 && body[len - 1] != '\n')
			fputc('\n', body[0] ? stderr : stdout);
		return body[0];
	}
}
