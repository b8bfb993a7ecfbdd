/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Virtio-serial ports by name, and the byte order of what goes over them. */
#ifndef ZCACHE_PORT_H
#define ZCACHE_PORT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/*
 * Opens the serial line that `init` has linked as the port called `name`: user-mode
 * Linux has no virtio-serial device. Returns -1 when there is none.
 */
static inline int line_open(const char *name, int flags)
{
	struct termios raw;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "/dev/virtio-ports/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | flags);
	if (fd >= 0 && tcgetattr(fd, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(fd, TCSANOW, &raw);
	}
	return fd;
}

/*
 * Opens the port called `name`. There is no udev in the guest: the names of
 * virtio-serial ports are in sysfs. Returns -1 with errno set; ENODEV when no port has
 * this name, EBUSY when another process has it open.
 */
static inline int port_open(const char *name, int flags)
{
	static const char dir[] = "/sys/class/virtio-ports";
	char path[512], text[128];
	struct dirent *entry;
	int found = line_open(name, flags);
	DIR *ports;

	if (found >= 0)
		return found;
	ports = opendir(dir);
	if (!ports) {
		errno = ENODEV;
		return -1;
	}
	errno = ENODEV;
	while (found < 0 && (entry = readdir(ports))) {
		FILE *file;
		bool match;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/name", dir, entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		match = fgets(text, sizeof(text), file) &&
			strncmp(text, name, strlen(name)) == 0 &&
			strcmp(text + strlen(name), "\n") == 0;
		fclose(file);
		errno = ENODEV;
		if (!match)
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		found = open(path, O_RDWR | O_CLOEXEC | flags);
		break;
	}
	{
		int saved = errno;

		closedir(ports);
		errno = saved;
	}
	return found;
}

static inline uint32_t get_le32(const unsigned char *from)
{
	return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
	       (uint32_t)from[3] << 24;
}

static inline void put_le32(unsigned char *to, uint32_t value)
{
	to[0] = (unsigned char)value;
	to[1] = (unsigned char)(value >> 8);
	to[2] = (unsigned char)(value >> 16);
	to[3] = (unsigned char)(value >> 24);
}

#endif
