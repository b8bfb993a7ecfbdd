// SPDX-License-Identifier: GPL-2.0
/*
 * Stores and gets of several swap pages at once.
 *
 * What takes time is the way to the device and back, so all pages of a queue
 * are posted with one notification before any is waited for. A task that has
 * requests under way waits for answers only, never for a slot, so two tasks
 * can't wait for each other.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include "zcache_virtio.h"

/**
 * struct zcv_swaps - pages that a task stores or gets
 * @dev:	the device
 * @pool:	pool id
 * @opcode:	PUT or GET
 * @io:		the pages
 * @nr:		how many
 * @posted:	how many of them the device was asked for
 * @done:	how many of these have their answer
 * @slots:	the requests under way, oldest first
 * @deadline:	jiffies at which the device counts as lost
 */
struct zcv_swaps {
	struct zcv_device *dev;
	u32 pool;
	u16 opcode;
	struct zcache_io *io;
	unsigned int nr;
	unsigned int posted;
	unsigned int done;
	struct list_head slots;
	unsigned long deadline;
};

static struct zcv_queue *zcv_swap_queue(struct zcv_swaps *s, unsigned int i)
{
	return zcv_queue_of(s->dev, s->pool, &s->io[i].key);
}

/* How many of the pages that were not asked for come next on this queue? */
static unsigned int zcv_swaps_next(struct zcv_swaps *s, struct zcv_queue *q)
{
	unsigned int i = s->posted;

	while (i < s->nr && zcv_swap_queue(s, i) == q)
		i++;
	return i - s->posted;
}

/* Fills the slots in; not under the queue's lock, for it copies pages. */
static void zcv_swaps_fill(struct zcv_swaps *s, struct list_head *slots)
{
	struct zcache_io *io = &s->io[s->posted];
	struct zcv_slot *slot;

	list_for_each_entry(slot, slots, node) {
		slot->out.req = zcv_key_req(s->opcode, 0, s->pool, &io->key, 0);
		if (s->opcode == ZCACHE_OP_PUT)
			copy_highpage(slot->page, io->page);
		io++;
	}
}

/*
 * Asks for the next pages that are on one queue, as far as there are slots.
 *
 * Return: 0; -EAGAIN: no slot is free; -EIO: the device is lost.
 */
static int zcv_swaps_post_some(struct zcv_swaps *s)
{
	struct zcv_queue *q = zcv_swap_queue(s, s->posted);
	unsigned int left = zcv_swaps_next(s, q);
	struct zcv_slot *slot, *next;
	unsigned long flags;
	LIST_HEAD(slots);
	int err = 0;

	spin_lock_irqsave(&q->lock, flags);
	zcv_reap(q);
	zcv_backlog_send(q);
	for (; left; left--) {
		slot = zcv_take_page_slot(q, 0);
		if (!slot)
			break;
		list_add_tail(&slot->node, &slots);
	}
	zcv_unlock(q, flags);

	zcv_swaps_fill(s, &slots);

	spin_lock_irqsave(&q->lock, flags);
	list_for_each_entry_safe(slot, next, &slots, node) {
		list_del(&slot->node);
		if (err || zcv_is_lost(q->dev)) {
			zcv_free_slot(q, slot);
			err = -EIO;
		} else if (zcv_post(q, slot, true)) {
			list_add_tail(&slot->node, &s->slots);
			s->posted++;
		} else {
			/* Can't be, see zcv_queue: a slot has room. */
			zcv_lost(q->dev, "has a ring that takes nothing");
			err = -EIO;
		}
	}
	zcv_unlock(q, flags);
	s->deadline = jiffies + zcv_timeout();
	if (zcv_is_lost(q->dev))
		return -EIO;
	return left ? -EAGAIN : err;
}

/* Whether the oldest request under way is one of this queue, and answered. */
static bool zcv_swaps_answered(struct zcv_swaps *s, struct zcv_queue *q)
{
	struct zcv_slot *slot = list_first_entry_or_null(&s->slots,
							 struct zcv_slot, node);

	if (!slot || zcv_swap_queue(s, s->done) != q)
		return false;
	/* Pairs with the release in zcv_reap(): result and page. */
	return smp_load_acquire(&slot->state) == ZCV_SLOT_ANSWERED;
}

/* Waits for the oldest request under way, and takes what is answered by then. */
static int zcv_swaps_collect(struct zcv_swaps *s)
{
	struct zcv_call call = {
		.q = zcv_swap_queue(s, s->done),
		.deadline = s->deadline,
	};
	struct zcv_slot *slot, *next;
	struct zcache_io *io;
	unsigned long flags;
	LIST_HEAD(free);

	slot = list_first_entry(&s->slots, struct zcv_slot, node);
	if (zcv_call_wait(&call, slot))
		return -EIO;
	while (zcv_swaps_answered(s, call.q)) {
		slot = list_first_entry(&s->slots, struct zcv_slot, node);
		io = &s->io[s->done++];
		io->err = s->opcode == ZCACHE_OP_PUT ?
			zcv_put_answer(call.q, slot) :
			zcv_get_answer(call.q, slot, io->page);
		list_move_tail(&slot->node, &free);
	}
	spin_lock_irqsave(&call.q->lock, flags);
	list_for_each_entry_safe(slot, next, &free, node)
		zcv_free_slot(call.q, slot);
	zcv_unlock(call.q, flags);
	return 0;
}

/* The device is lost. Slots under way stay with it until it is reset. */
static void zcv_swaps_fail(struct zcv_swaps *s)
{
	struct zcv_slot *slot, *next;

	list_for_each_entry_safe(slot, next, &s->slots, node)
		list_del_init(&slot->node);
	for (; s->done < s->nr; s->done++)
		s->io[s->done].err = -EIO;
}

/**
 * zcv_swap_many - stores or gets pages of a persistent pool
 * @t:		the device
 * @pool:	the pool
 * @opcode:	ZCACHE_OP_PUT or ZCACHE_OP_GET
 * @io:		the pages; sets err of each
 * @nr:		how many
 *
 * Context: Process context; sleeps; allocates nothing. The time has an end:
 *	    slots get free as the device answers, and if it does not it is given
 *	    up.
 */
void zcv_swap_many(struct zcache_transport *t, struct zcache_pool *pool,
		   u16 opcode, struct zcache_io *io, unsigned int nr)
{
	struct zcv_swaps s = {
		.dev = to_zcv(t),
		.pool = pool->id,
		.opcode = opcode,
		.io = io,
		.nr = nr,
	};
	int err;

	INIT_LIST_HEAD(&s.slots);
	while (s.done < nr) {
		do {
			err = s.posted < nr ? zcv_swaps_post_some(&s) : -ENODATA;
		} while (!err);
		if (!list_empty(&s.slots))
			err = zcv_swaps_collect(&s);
		else if (err == -EAGAIN)
			usleep_range(ZCV_SLOT_SLEEP, 2 * ZCV_SLOT_SLEEP);
		if (err == -EIO) {
			zcv_swaps_fail(&s);
			return;
		}
	}
}
