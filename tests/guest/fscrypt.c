// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * fscrypt DIR - files that will be made in DIR, which is empty, are encrypted
 *
 * The key is made for this, and the kernel alone has it until the filesystem is
 * unmounted. Exit status: 0, or 2 if that could not be done.
 */
#include <fcntl.h>
#include <linux/fscrypt.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "program.h"

#define KEY_SIZE 64

int main(int argc, char **argv)
{
	struct fscrypt_policy_v2 policy = {
		.version = FSCRYPT_POLICY_V2,
		.contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
		.filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS,
		.flags = FSCRYPT_POLICY_FLAGS_PAD_32,
	};
	struct {
		struct fscrypt_add_key_arg arg;
		uint8_t raw[KEY_SIZE];
	} key = {
		.arg.key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER,
		.arg.raw_size = KEY_SIZE,
	};
	uint64_t state = 1;
	int fd;

	if (argc != 2)
		usage(0, "DIR");
	for (int i = 0; i < KEY_SIZE; i++)
		key.raw[i] = next_random(&state);
	fd = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (fd < 0) {
		perror(argv[1]);
		return 2;
	}
	if (ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, &key.arg)) {
		perror("fscrypt: add the key");
		return 2;
	}
	memcpy(policy.master_key_identifier, key.arg.key_spec.u.identifier,
	       sizeof(policy.master_key_identifier));
	if (ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &policy)) {
		perror("fscrypt: set the policy");
		return 2;
	}
	return 0;
}
