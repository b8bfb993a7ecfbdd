/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-3-Clause OR Apache-2.0 */
/*
 * Wire format of the zcache transcendent-memory device.
 *
 * SPEC.md beside this header is the specification; this file and the Rust
 * crate zcache-protocol restate its layouts and are compared by a test, so
 * neither can drift. All integers are little-endian. Every structure has its
 * natural alignment and no implicit padding.
 */
#ifndef _ZCACHE_H
#define _ZCACHE_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
typedef uint8_t __u8;
typedef uint16_t __le16;
typedef uint32_t __le32;
typedef uint64_t __le64;
#endif

/* Device identification: the bytes "ZCCH" at offset 0 of the config space. */
#define ZCACHE_MAGIC			0x4843435a
#define ZCACHE_VERSION			1
/* The virtio device id is the VMM's choice; this one is free of Linux drivers. */
#define ZCACHE_DEFAULT_VIRTIO_ID	13

/* A page is 4096 bytes on the wire whatever the guest's page size is. */
#define ZCACHE_PAGE_SIZE		4096
#define ZCACHE_OBJECT_SIZE		24
#define ZCACHE_ID_SIZE			16

/* Configuration space; read-only for the driver. */
struct zcache_config {
	__le32 magic;		/* ZCACHE_MAGIC */
	__le32 version;		/* ZCACHE_VERSION */
	__le32 features;	/* offered ZCACHE_F_* */
	__le32 num_queues;	/* request queues the device can serve */
	__le32 max_batch;	/* most requests in one chain, at least 1 */
	__le32 max_pools;	/* most pools of one guest */
	__le32 page_size;	/* ZCACHE_PAGE_SIZE */
	__le32 reserved;
};

/* Features: offered in the configuration space, acknowledged in HELLO */
#define ZCACHE_F_TAKE_BACK		0x1	/* the driver sends WANTED */

/* Opcodes */
#define ZCACHE_OP_HELLO			1
#define ZCACHE_OP_POOL_CREATE		2
#define ZCACHE_OP_POOL_DESTROY		3
#define ZCACHE_OP_PUT			4
#define ZCACHE_OP_GET			5
#define ZCACHE_OP_FLUSH_PAGE		6
#define ZCACHE_OP_FLUSH_RANGE		7
#define ZCACHE_OP_FLUSH_OBJECT		8
#define ZCACHE_OP_FLUSH_POOL		9
#define ZCACHE_OP_WANTED		10

/* Request flags of POOL_CREATE */
#define ZCACHE_POOL_PERSISTENT		0x1
#define ZCACHE_POOL_SHARED		0x2
/* Request flags of GET */
#define ZCACHE_GET_EXCLUSIVE		0x1

/* Value of WANTED: pages in the bits below, milliseconds in those from here on */
#define ZCACHE_WANTED_MS_SHIFT		32

/* Result flags of HELLO */
#define ZCACHE_HELLO_RESUMED		0x1

/* Statuses */
#define ZCACHE_S_OK			0
#define ZCACHE_S_MISS			1	/* get: the device does not hold the page */
#define ZCACHE_S_REFUSED		2	/* put: no room; the key now holds nothing */
#define ZCACHE_S_NO_POOL		3	/* the guest has no pool of this id */
#define ZCACHE_S_EXISTS			4	/* pool create: the id is in use with other attributes */
#define ZCACHE_S_DENIED			5	/* pool create: the host does not allow it */
#define ZCACHE_S_LIMIT			6	/* pool create: too many pools, or no memory */
#define ZCACHE_S_INVALID		7	/* a field of the request breaks the format */
#define ZCACHE_S_UNSUPPORTED		8	/* unknown opcode, version or feature */
#define ZCACHE_S_NO_SESSION		9	/* no HELLO since the last reset */
#define ZCACHE_S_MALFORMED		10	/* the chain is not a batch; nothing was executed */
#define ZCACHE_S_CORRUPT		11	/* get: a persistent page failed its checksum */

/*
 * A chain's device-readable part: one zcache_batch, then count requests, then
 * one page for each PUT among them, in request order.
 */
struct zcache_batch {
	__le16 count;		/* 1..max_batch */
	__le16 reserved16;
	__le32 reserved32;
};

/* The first eight bytes of every request. */
struct zcache_req_hdr {
	__le16 opcode;		/* ZCACHE_OP_* */
	__le16 flags;
	__le32 pool;		/* chosen by the driver; 0 for HELLO and WANTED */
};

struct zcache_req_hello {
	struct zcache_req_hdr hdr;
	__u8 instance[ZCACHE_ID_SIZE];	/* random, chosen once per driver load */
	__le32 version;			/* ZCACHE_VERSION */
	__le32 features;		/* subset of the offered ZCACHE_F_* */
	__u8 reserved[16];
};

/* POOL_CREATE and POOL_DESTROY; all zero in WANTED */
struct zcache_req_pool {
	struct zcache_req_hdr hdr;
	__u8 uuid[ZCACHE_ID_SIZE];	/* of a shared pool, otherwise zero */
	__u8 reserved[24];
};

/* PUT, GET and the flushes */
struct zcache_req_key {
	struct zcache_req_hdr hdr;
	__u8 object[ZCACHE_OBJECT_SIZE];
	__le64 index;			/* page within the object */
	__le64 count;			/* FLUSH_RANGE: pages from index, otherwise zero */
};

union zcache_req {
	struct zcache_req_hdr hdr;
	struct zcache_req_hello hello;
	struct zcache_req_pool pool;
	struct zcache_req_key key;
};

/*
 * A chain's device-writable part: count results in request order, then one
 * page for each GET among the requests, in request order.
 */
struct zcache_result {
	__le16 status;		/* ZCACHE_S_* */
	__le16 flags;		/* ZCACHE_HELLO_* */
	__le32 reserved;
	__le64 value;		/* flush, destroy: pages removed; HELLO: epoch; WANTED: see there */
};

#endif /* _ZCACHE_H */
