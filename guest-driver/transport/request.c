// SPDX-License-Identifier: GPL-2.0
/*
 * The transport's operations: builds requests, and judges answers.
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

/* Posts a flush that nobody waits for, if there is a slot. */
static bool zcv_post_flush(struct zcv_queue *q, u16 opcode, u32 pool,
			   const struct zcache_key *key, u64 count)
{
	struct zcv_slot *slot = zcv_take_small_slot(q);

	if (!slot)
		return false;
	slot->out.req = zcv_key_req(opcode, 0, pool, key, count);
	return zcv_post(q, slot, zcv_posted_answer);
}

/* Posts a put that waited, with its own page; the slot's is freed. */
static bool zcv_post_late_put(struct zcv_queue *q, struct zcv_late *late)
{
	struct zcv_slot *slot = zcv_take_page_slot(q, q->reserve);

	if (!slot)
		return false;
	swap(slot->page, late->page);
	slot->out.req = zcv_key_req(ZCACHE_OP_PUT, 0, late->pool, &late->key, 0);
	if (!zcv_post(q, slot, zcv_posted_answer)) {
		swap(slot->page, late->page);
		return false;
	}
	__free_page(late->page);
	late->page = NULL;
	q->backlog.puts--;
	return true;
}

/**
 * zcv_backlog_send - posts what there are slots for
 * @q:	the queue
 *
 * Context: q->lock held.
 */
void zcv_backlog_send(struct zcv_queue *q)
{
	struct zcv_late *late;
	bool sent;

	lockdep_assert_held(&q->lock);
	while (!zcv_is_lost(q->dev)) {
		late = zcv_backlog_first(&q->backlog);
		if (!late)
			return;
		if (late->opcode == ZCACHE_OP_PUT)
			sent = zcv_post_late_put(q, late);
		else
			sent = zcv_post_flush(q, late->opcode, late->pool,
					      &late->key, late->count);
		if (!sent)
			return;
		q->backlog.head++;
	}
}

/* Device and driver no longer agree on what is stored: see above. */
void zcv_bad_status(struct zcv_queue *q, u16 status)
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

static int zcv_flush_answer(struct zcv_queue *q, struct zcv_slot *slot)
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

/*
 * Invalidates pages of an ephemeral pool, now or by way of the backlog. If
 * that is full the whole pool is given up until it was flushed.
 */
static void zcv_invalidate(struct zcv_queue *q, struct zcache_pool *pool,
			   u16 opcode, const struct zcache_key *key, u64 count)
{
	struct zcv_late flush = {
		.pool = pool->id,
		.opcode = opcode,
		.key = *key,
		.count = count,
	};

	lockdep_assert_held(&q->lock);

	/* Nothing can be got from it, and all of it will be flushed. */
	if (atomic_long_read(&pool->poison))
		return;

	if (opcode == ZCACHE_OP_FLUSH_PAGE) {
		flush.opcode = ZCACHE_OP_FLUSH_RANGE;
		flush.count = 1;
	}
	if (zcv_backlog_empty(&q->backlog) &&
	    zcv_post_flush(q, opcode, pool->id, key, count))
		return;
	zcache_count(pool, ZC_INVALIDATE_BACKLOGGED);
	if (!zcv_backlog_flush(&q->backlog, &flush))
		zcache_pool_poison(pool);
}

/*
 * Posts a put, or has it wait in the backlog. An older put of the key can be
 * there, so all that come after one go there too.
 */
static bool zcv_try_put(struct zcv_queue *q, struct zcache_pool *pool,
			const struct zcache_key *key, struct page *page)
{
	struct zcv_slot *slot = NULL;

	zcv_reap(q);
	zcv_backlog_send(q);
	if (zcv_is_lost(q->dev))
		return false;
	if (!q->backlog.puts)
		slot = zcv_take_page_slot(q, q->reserve);
	if (slot) {
		copy_highpage(slot->page, page);
		slot->out.req = zcv_key_req(ZCACHE_OP_PUT, 0, pool->id, key, 0);
		return zcv_post(q, slot, zcv_posted_answer);
	}
	if (!zcv_backlog_put(&q->backlog, pool->id, key, page))
		return false;
	q->put_late++;
	return true;
}

static void zcv_put(struct zcache_transport *t, struct zcache_pool *pool,
		    const struct zcache_key *key, struct page *page, u64 until)
{
	struct zcv_queue *q = zcv_queue_of(to_zcv(t), pool->id, key);
	unsigned long flags;
	bool done;

	spin_lock_irqsave(&q->lock, flags);
	if (atomic_long_read(&pool->poison)) {
		zcache_count(pool, ZC_PUT_DROPPED_POISONED);
		goto unlock;
	}
	do {
		done = zcv_try_put(q, pool, key, page);
	} while (!done && zcv_wait_answer(q, until));
	if (done) {
		zcache_count(pool, ZC_PUTS);
	} else if (zcv_is_lost(q->dev)) {
		zcache_count(pool, ZC_PUT_UNATTACHED);
	} else {
		/* The device may have an older copy. */
		zcache_count(pool, ZC_PUT_DROPPED_RING_FULL);
		zcv_invalidate(q, pool, ZCACHE_OP_FLUSH_PAGE, key, 0);
	}
unlock:
	zcv_unlock(q, flags);
}

static bool zcv_flush(struct zcache_transport *t, struct zcache_pool *pool,
		      u16 opcode, const struct zcache_key *key, u64 count)
{
	struct zcv_queue *q = zcv_queue_of(to_zcv(t), pool->id, key);
	unsigned long flags;
	bool done = true;

	zcache_count(pool, ZC_INVALIDATES);
	spin_lock_irqsave(&q->lock, flags);
	zcv_reap(q);
	zcv_backlog_send(q);
	if (zcv_is_lost(q->dev)) {
		/* Persistent pages can be there again; ephemeral ones can't. */
		done = !zcache_pool_persistent(pool);
	} else if (zcache_pool_persistent(pool)) {
		done = zcv_post_flush(q, opcode, pool->id, key, count);
	} else {
		zcv_invalidate(q, pool, opcode, key, count);
	}
	zcv_unlock(q, flags);
	return done;
}

static int zcv_flush_end(struct zcv_call *call, struct zcv_slot *slot)
{
	int err;

	if (zcv_call_wait(call->q, slot))
		return -EIO;
	err = zcv_flush_answer(call->q, slot);
	zcv_call_end(call->q, slot);
	return err;
}

/* Puts that wait would come after the flush of their pool. */
static void zcv_cancel_puts(struct zcv_queue *q, u32 pool)
{
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	zcv_backlog_cancel_puts(&q->backlog, pool);
	zcv_unlock(q, flags);
}

/* On every queue, so that it comes after whatever was posted there before. */
static int zcv_flush_pool(struct zcv_device *dev, u32 pool)
{
	struct zcv_call calls[ZCV_MAX_QUEUES] = {};
	struct zcv_slot *slots[ZCV_MAX_QUEUES];
	unsigned int i, started;
	int err = 0;

	for (started = 0; started < dev->nr_queues; started++) {
		calls[started].q = &dev->queues[started];
		zcv_cancel_puts(calls[started].q, pool);
		calls[started].req = zcv_key_req(ZCACHE_OP_FLUSH_POOL, 0, pool,
						 NULL, 0);
		slots[started] = zcv_call_start(&calls[started]);
		if (IS_ERR(slots[started])) {
			err = -EIO;
			break;
		}
	}
	for (i = 0; i < started; i++)
		if (zcv_flush_end(&calls[i], slots[i]))
			err = -EIO;
	return err;
}

static int zcv_flush_wait(struct zcache_transport *t, struct zcache_pool *pool,
			  u16 opcode, const struct zcache_key *key, u64 count)
{
	struct zcv_device *dev = to_zcv(t);
	struct zcv_call call = {};
	struct zcv_slot *slot;

	if (opcode == ZCACHE_OP_FLUSH_POOL)
		return zcv_flush_pool(dev, pool->id);
	call.q = zcv_queue_of(dev, pool->id, key);
	call.req = zcv_key_req(opcode, 0, pool->id, key, count);
	slot = zcv_call_start(&call);
	if (IS_ERR(slot))
		return PTR_ERR(slot);
	return zcv_flush_end(&call, slot);
}

static int zcv_control(struct zcache_transport *t, const union zcache_req *req,
		       struct zcache_result *res)
{
	struct zcv_call call = {
		.q = &to_zcv(t)->queues[0],
		.req = *req,
	};
	struct zcv_slot *slot = zcv_call(&call);

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	*res = slot->result;
	zcv_call_end(call.q, slot);
	return 0;
}

static int zcv_quiesce_transport(struct zcache_transport *t)
{
	return zcv_quiesce(to_zcv(t));
}

static void zcv_show(struct zcache_transport *t, struct seq_file *m)
{
	struct zcv_device *dev = to_zcv(t);
	struct zcv_queue *q;
	unsigned int i;

	seq_printf(m, "queues %u\n", dev->nr_queues);
	seq_printf(m, "reclaim_throttled %lu\n", READ_ONCE(dev->throttled));
	for (i = 0; i < dev->nr_queues; i++) {
		q = &dev->queues[i];
		seq_printf(m, "queue%u_slots %u\n", i, q->nr_slots);
		seq_printf(m, "queue%u_slot_pages %u\n", i, q->nr_pages);
		seq_printf(m, "queue%u_posted %u\n", i, READ_ONCE(q->posted));
		seq_printf(m, "queue%u_answered %u\n", i,
			   READ_ONCE(q->answered));
		seq_printf(m, "queue%u_put_waits %lu\n", i,
			   READ_ONCE(q->put_waits));
		seq_printf(m, "queue%u_put_late %lu\n", i,
			   READ_ONCE(q->put_late));
		seq_printf(m, "queue%u_kicks %lu\n", i, READ_ONCE(q->kicks));
		seq_printf(m, "queue%u_refused %lu\n", i,
			   READ_ONCE(q->refused));
		seq_printf(m, "queue%u_backlog %u\n", i,
			   READ_ONCE(q->backlog.tail) -
			   READ_ONCE(q->backlog.head));
	}
}

const struct zcache_transport_ops zcv_transport_ops = {
	.put = zcv_put,
	.flush = zcv_flush,
	.get = zcv_get,
	.get_many = zcv_get_many,
	.flush_wait = zcv_flush_wait,
	.control = zcv_control,
	.quiesce = zcv_quiesce_transport,
	.swap_many = zcv_swap_many,
	.show = zcv_show,
};
