// SPDX-License-Identifier: GPL-2.0
/*
 * The transport's operations, as the pool table calls them.
 */
#include <linux/highmem.h>
#include "zcache_virtio.h"

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

static bool zcv_put(struct zcache_transport *t, struct zcache_pool *pool,
		    const struct zcache_key *key, struct page *page, bool older,
		    u64 until)
{
	struct zcv_queue *q = zcv_queue_of(to_zcv(t), pool->id, key);
	unsigned long flags;
	bool done = false;

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
		zcache_count(pool, ZC_PUT_DROPPED_RING_FULL);
		if (older)
			zcv_invalidate(q, pool, ZCACHE_OP_FLUSH_PAGE, key, 0);
	}
unlock:
	zcv_unlock(q, flags);
	return done;
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
