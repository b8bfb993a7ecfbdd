// SPDX-License-Identifier: GPL-2.0
/*
 * Builds requests, and judges answers.
 *
 * A status this driver does not know is a failure of its request. One that
 * says that a correct request was not executed means that device and driver no
 * longer agree on what is stored, and so does a flush that failed. The device
 * is then given up: a page that one side believes gone could come back. If it
 * says that there is no session, it gets a new one.
 */
#include <linux/highmem.h>
#include <linux/jhash.h>
#include "zcache_virtio.h"

/* All requests for one object of one pool go to one queue. */
struct zcv_queue *zcv_queue_of(struct zcv_device *dev, u32 pool,
			       const struct zcache_key *key)
{
	u32 hash = jhash(key->object, sizeof(key->object), pool);

	return &dev->queues[reciprocal_scale(hash, dev->nr_queues)];
}

/**
 * zcv_key_req - makes a request on a key
 * @opcode:	PUT, GET or a flush
 * @flags:	ZCACHE_GET_*
 * @pool:	pool id
 * @key:	the key; NULL for FLUSH_POOL
 * @count:	pages of a FLUSH_RANGE, else ignored
 *
 * Return: The request.
 */
union zcache_req zcv_key_req(u16 opcode, u16 flags, u32 pool,
			     const struct zcache_key *key, u64 count)
{
	union zcache_req req = {
		.key.hdr.opcode = cpu_to_le16(opcode),
		.key.hdr.flags = cpu_to_le16(flags),
		.key.hdr.pool = cpu_to_le32(pool),
	};

	if (opcode != ZCACHE_OP_FLUSH_POOL)
		memcpy(req.key.object, key->object, sizeof(req.key.object));
	if (opcode != ZCACHE_OP_FLUSH_POOL && opcode != ZCACHE_OP_FLUSH_OBJECT)
		req.key.index = cpu_to_le64(key->index);
	if (opcode == ZCACHE_OP_FLUSH_RANGE)
		req.key.count = cpu_to_le64(count);
	return req;
}

/* Device and driver no longer agree on what is stored: see above. */
static void zcv_bad_status(struct zcv_queue *q, u16 status)
{
	if (status == ZCACHE_S_NO_SESSION) {
		zcv_lost(q->dev, "has forgotten the session");
		WRITE_ONCE(q->dev->alive, true);
	} else {
		zcv_broken(q->dev, "rejects a correct request");
	}
}

/* Return: 0: stored; -ENOSPC: nothing is stored under the key; -EIO. */
int zcv_put_answer(struct zcv_queue *q, struct zcv_slot *slot)
{
	u16 status = le16_to_cpu(slot->result.status);

	switch (status) {
	case ZCACHE_S_OK:
		return 0;
	case ZCACHE_S_UNSUPPORTED:
	case ZCACHE_S_INVALID:
	case ZCACHE_S_MALFORMED:
	case ZCACHE_S_NO_SESSION:
		zcv_bad_status(q, status);
		return -EIO;
	default:
		return -ENOSPC;
	}
}

/* Return: as &zcache_transport_ops.get. */
int zcv_get_answer(struct zcv_queue *q, struct zcv_slot *slot,
		   struct page *page)
{
	u16 status = le16_to_cpu(slot->result.status);

	switch (status) {
	case ZCACHE_S_OK:
		if (slot->used < sizeof(slot->in) + ZCACHE_PAGE_SIZE) {
			zcv_broken(q->dev, "answers a get without the page");
			return -EIO;
		}
		copy_highpage(page, slot->page);
		return 0;
	case ZCACHE_S_MISS:
	case ZCACHE_S_NO_POOL:
		return -ENOENT;
	case ZCACHE_S_UNSUPPORTED:
	case ZCACHE_S_INVALID:
	case ZCACHE_S_MALFORMED:
	case ZCACHE_S_NO_SESSION:
		zcv_bad_status(q, status);
		return -EIO;
	default:
		return -EBADMSG;
	}
}

/* Return: 0 or -EIO. */
int zcv_flush_answer(struct zcv_queue *q, struct zcv_slot *slot)
{
	u16 status = le16_to_cpu(slot->result.status);

	if (status == ZCACHE_S_OK || status == ZCACHE_S_NO_POOL)
		return 0;
	zcv_bad_status(q, status);
	return -EIO;
}

/**
 * zcv_posted_answer - judges the answer to a put or flush nobody waits for
 * @q:		the queue
 * @slot:	the request, freed
 *
 * Context: q->lock held.
 */
void zcv_posted_answer(struct zcv_queue *q, struct zcv_slot *slot)
{
	if (zcv_opcode(slot) != ZCACHE_OP_PUT)
		zcv_flush_answer(q, slot);
	else if (zcv_put_answer(q, slot) == -ENOSPC)
		q->refused++;
	zcv_free_slot(q, slot);
}
