// SPDX-License-Identifier: GPL-2.0
/*
 * Rings and slots.
 *
 * No interrupts: the virtqueues have no callbacks. Answers are looked for by
 * whoever takes the queue's lock next, by tasks that wait for one, and by the
 * tick.
 *
 * The device answers in the order of the requests. This is checked, for
 * everything that docs/ordering.md says hangs on it.
 *
 * Slots of a request that nobody waits for any more stay the device's until it is
 * answered.
 */
#include "zcache_virtio.h"

/*
 * The device is notified of so many requests at once if no task waits for any
 * of them, and of fewer by the tick: a notification costs more than a put.
 */
#define KICK_BATCH	32

/**
 * zcv_kick_prepare - whether the device wants to be notified of what is new
 * @q:	the queue
 *
 * Context: q->lock held. The caller notifies it.
 * Return: true if so.
 */
bool zcv_kick_prepare(struct zcv_queue *q)
{
	bool notify = virtqueue_kick_prepare(q->vq);

	q->kicks += notify;
	q->unkicked = 0;
	q->urgent = false;
	return notify;
}

/**
 * zcv_unlock - releases the queue's lock and notifies the device
 * @q:		the queue
 * @flags:	from spin_lock_irqsave()
 *
 * Context: Any.
 */
void zcv_unlock(struct zcv_queue *q, unsigned long flags)
	__releases(&q->lock)
{
	bool notify = false, busy, soon;

	if (!zcv_is_lost(q->dev) && (q->urgent || q->unkicked >= KICK_BATCH))
		notify = zcv_kick_prepare(q);
	busy = q->posted != q->answered;
	soon = q->unkicked || !zcv_backlog_empty(&q->backlog);
	spin_unlock_irqrestore(&q->lock, flags);

	if (zcv_is_lost(q->dev))
		return;
	if (notify)
		virtqueue_notify(q->vq);
	if (busy || soon)
		zcv_arm(q->dev, soon);
}

/**
 * zcv_reap - takes answers off the ring
 * @q:	the queue
 *
 * Context: q->lock held.
 */
void zcv_reap(struct zcv_queue *q)
{
	struct zcv_slot *slot;
	u32 used;

	lockdep_assert_held(&q->lock);
	while (!zcv_is_broken(q->dev) &&
	       (slot = virtqueue_get_buf(q->vq, &used))) {
		if (slot->seq != q->answered) {
			zcv_broken(q->dev, "answers out of order");
			return;
		}
		if (used < sizeof(slot->in)) {
			zcv_broken(q->dev, "gives an answer too short");
			return;
		}
		q->answered++;
		q->progress = jiffies;
		if (zcv_is_lost(q->dev))
			WRITE_ONCE(q->dev->alive, true);
		slot->used = used;
		slot->result = slot->in;
		slot->done(q, slot);
	}
	if (!zcv_is_broken(q->dev) && virtqueue_is_broken(q->vq))
		zcv_broken(q->dev, "breaks the ring");
}

/**
 * zcv_take_page_slot - takes a free slot with a page
 * @q:		the queue
 * @leave:	how many to leave for others
 *
 * Context: q->lock held.
 * Return: The slot or NULL.
 */
struct zcv_slot *zcv_take_page_slot(struct zcv_queue *q, unsigned int leave)
{
	struct zcv_slot *slot;

	if (q->nr_free_pages <= leave)
		return NULL;
	slot = list_first_entry(&q->free_pages, struct zcv_slot, node);
	list_del_init(&slot->node);
	q->nr_free_pages--;
	return slot;
}

/**
 * zcv_take_small_slot - takes a free slot without a page
 * @q:	the queue
 *
 * Context: q->lock held.
 * Return: The slot or NULL.
 */
struct zcv_slot *zcv_take_small_slot(struct zcv_queue *q)
{
	struct zcv_slot *slot;

	slot = list_first_entry_or_null(&q->free_small, struct zcv_slot, node);
	if (slot)
		list_del_init(&slot->node);
	return slot;
}

/**
 * zcv_free_slot - gives a slot back
 * @q:		the queue
 * @slot:	the slot, not the device's
 *
 * Context: q->lock held, or the queue not in use yet.
 */
void zcv_free_slot(struct zcv_queue *q, struct zcv_slot *slot)
{
	if (slot->page) {
		/* Last in, first out: the page may still be in the cache. */
		list_add(&slot->node, &q->free_pages);
		q->nr_free_pages++;
	} else {
		list_add(&slot->node, &q->free_small);
	}
}

/**
 * zcv_post - makes a request available to the device
 * @q:		the queue
 * @slot:	the request, filled in; freed if this fails
 * @done:	see &zcv_slot.done
 *
 * Context: q->lock held.
 * Return: false if the ring does not take it.
 */
bool zcv_post(struct zcv_queue *q, struct zcv_slot *slot,
	      void (*done)(struct zcv_queue *q, struct zcv_slot *slot))
{
	struct scatterlist head, result, page, *sgs[ZCV_DESCS_PAGE];
	unsigned int out = 0, in = 0;

	lockdep_assert_held(&q->lock);

	/* No status: an answer that is not written is not taken for one. */
	slot->in.status = cpu_to_le16(U16_MAX);
	sg_init_one(&head, &slot->out, sizeof(slot->out));
	sg_init_one(&result, &slot->in, sizeof(slot->in));
	sg_init_table(&page, 1);
	if (slot->page)
		sg_set_page(&page, slot->page, ZCACHE_PAGE_SIZE, 0);

	sgs[out++] = &head;
	if (zcv_opcode(slot) == ZCACHE_OP_PUT)
		sgs[out++] = &page;
	sgs[out + in++] = &result;
	if (zcv_opcode(slot) == ZCACHE_OP_GET)
		sgs[out + in++] = &page;

	slot->done = done;
	slot->answered = false;
	slot->seq = q->posted;
	if (virtqueue_add_sgs(q->vq, sgs, out, in, slot, GFP_ATOMIC)) {
		zcv_free_slot(q, slot);
		return false;
	}
	if (q->posted == q->answered)
		q->progress = jiffies;
	q->posted++;
	q->unkicked++;
	return true;
}

/* A task waits for it. */
static void zcv_tell_task(struct zcv_queue *q, struct zcv_slot *slot)
{
	/* Pairs with the acquire in zcv_slot_answered(). */
	smp_store_release(&slot->answered, true);
}

/* The task that waited for it does not any more. */
static void zcv_nobody_waits(struct zcv_queue *q, struct zcv_slot *slot)
{
	zcv_free_slot(q, slot);
}

/**
 * zcv_post_awaited - makes a request available, for whose answer a task waits
 * @q:		the queue
 * @slot:	the request, filled in; freed if this fails
 *
 * The slot is the task's when zcv_slot_answered(), or when zcv_abandon() says
 * so, and the task gives it back.
 *
 * Context: q->lock held.
 * Return: false if the ring does not take it.
 */
bool zcv_post_awaited(struct zcv_queue *q, struct zcv_slot *slot)
{
	if (!zcv_post(q, slot, zcv_tell_task))
		return false;
	q->urgent = true;
	return true;
}

/**
 * zcv_slot_answered - whether the answer to an awaited request is there
 * @slot:	the request
 *
 * Context: Any.
 * Return: true: result and page may be looked at.
 */
bool zcv_slot_answered(const struct zcv_slot *slot)
{
	/* Pairs with the release in zcv_tell_task(). */
	return smp_load_acquire(&slot->answered);
}

/**
 * zcv_abandon - a task waits no more for a request
 * @q:		the queue
 * @slot:	the request; if it is in a list of the task it is taken out of that
 *
 * Context: q->lock held.
 * Return: false: it has just been answered, and the slot is the task's.
 */
bool zcv_abandon(struct zcv_queue *q, struct zcv_slot *slot)
{
	lockdep_assert_held(&q->lock);
	if (slot->answered)
		return false;
	list_del_init(&slot->node);
	slot->done = zcv_nobody_waits;
	return true;
}
