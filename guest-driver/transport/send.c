// SPDX-License-Identifier: GPL-2.0
/*
 * Sends what nobody waits for: flushes, and what is in the backlog.
 */
#include <linux/gfp.h>
#include "zcache_virtio.h"

/**
 * zcv_post_flush - posts a flush that nobody waits for
 * @q:		the queue
 * @opcode:	which kind
 * @pool:	pool id
 * @key:	the key
 * @count:	pages of a FLUSH_RANGE
 *
 * Context: q->lock held.
 * Return: false if there is no slot for it.
 */
bool zcv_post_flush(struct zcv_queue *q, u16 opcode, u32 pool,
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

/**
 * zcv_turn - gives a queue a turn at what nobody waits for
 * @q:	the queue
 *
 * Context: Any.
 */
void zcv_turn(struct zcv_queue *q)
{
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	zcv_reap(q);
	zcv_backlog_send(q);
	q->urgent = q->unkicked;
	zcv_unlock(q, flags);
}
