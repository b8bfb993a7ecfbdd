// SPDX-License-Identifier: GPL-2.0
/*
 * Rings and slots.
 *
 * Slots are allocated when the device is probed and never again, because most
 * requests come from places that must not allocate. The ring carries them
 * without indirect tables, which virtqueue_add() would allocate (virtio.c
 * declines the feature): a request with a page takes three descriptors, one
 * without takes two.
 *
 * No interrupts: the virtqueues have no callbacks. Answers are looked for by
 * whoever takes the queue's lock next, by tasks that wait for one, and by the
 * tick.
 *
 * The device answers in the order of the requests. This is checked, for
 * everything that docs/ordering.md says hangs on it.
 *
 * A device that answers nothing for too long is lost, but its slots stay with
 * it, and the tick goes on looking at the used ring, which is guest memory: a
 * device that answers everything after all is as good as before.
 */
#include <linux/delay.h>
#include <linux/slab.h>
#include "zcache_virtio.h"

/* Ring entries that a request with and without a page takes. */
#define DESCS_PAGE	3
#define DESCS_SMALL	2

/* One page slot in so many is kept for gets and stores. */
#define RESERVE_PART	8

/*
 * The device is notified of so many requests at once if no task waits for any
 * of them, and of fewer by the tick: a notification costs more than a put.
 */
#define KICK_BATCH	16

/* A lost device is looked at so often. */
#define WATCH		(HZ / 4)

/* The time-out is so many looks without an answer. */
#define SILENT_LOOKS	4

/* Sleep of a task that waits for a queue to become quiet (us). */
#define QUIET_SLEEP	50

static struct zcv_slot *zcv_slot_alloc(struct zcv_queue *q, bool with_page)
{
	struct zcv_slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

	if (!slot)
		return NULL;
	if (with_page) {
		slot->page = alloc_page(GFP_KERNEL);
		if (!slot->page) {
			kfree(slot);
			return NULL;
		}
	}
	slot->out.batch.count = cpu_to_le16(1);
	q->slots[q->nr_slots++] = slot;
	return slot;
}

/**
 * zcv_queue_init - allocates slots and backlog of a queue
 * @q:		the queue, zeroed
 * @dev:	its device
 * @ring:	how many entries its ring has
 * @max_pages:	how many bounce pages it may have
 *
 * Of a ring's entries at least a quarter of what puts and gets take is left
 * to requests without a page, that is to invalidations.
 *
 * Context: Process context.
 * Return: 0, -ENOMEM, or -EINVAL if the ring is too small.
 */
int zcv_queue_init(struct zcv_queue *q, struct zcv_device *dev,
		   unsigned int ring, unsigned int max_pages)
{
	unsigned int pages = min(ring / (DESCS_PAGE + 1), max_pages);
	unsigned int small = (ring - pages * DESCS_PAGE) / DESCS_SMALL;
	unsigned int i;

	if (pages < 2)
		return -EINVAL;
	small = min(small, pages);

	q->nr_pages = pages;
	q->gave_up_at = U32_MAX;
	q->gave_up_when = jiffies - 1;
	q->dev = dev;
	q->ring = ring;
	spin_lock_init(&q->lock);
	q->reserve = max(pages / RESERVE_PART, 1U);
	if (zcv_backlog_init(&q->backlog, dev->nr_queues))
		return -ENOMEM;
	q->slots = kcalloc(pages + small, sizeof(*q->slots), GFP_KERNEL);
	if (!q->slots)
		goto fail;
	for (i = 0; i < pages + small; i++)
		if (!zcv_slot_alloc(q, i < pages))
			goto fail;
	return 0;
fail:
	zcv_queue_free(q);
	return -ENOMEM;
}

/**
 * zcv_queue_start - begins to use a queue, or does so anew after a reset
 * @q:	the queue, unused; what the device had before the reset is ours again
 * @vq:	its virtqueue
 *
 * Context: Process context; allocates nothing.
 * Return: 0; -EINVAL: the ring has become smaller.
 */
int zcv_queue_start(struct zcv_queue *q, struct virtqueue *vq)
{
	unsigned int i;

	if (virtqueue_get_vring_size(vq) < q->ring)
		return -EINVAL;
	q->vq = vq;
	q->posted = 0;
	q->answered = 0;
	q->unkicked = 0;
	q->urgent = false;
	q->nr_free_pages = 0;
	INIT_LIST_HEAD(&q->free_pages);
	INIT_LIST_HEAD(&q->free_small);
	for (i = 0; i < q->nr_slots; i++)
		zcv_free_slot(q, q->slots[i]);
	zcv_backlog_forget(&q->backlog);
	return 0;
}

/**
 * zcv_queue_free - frees slots and backlog
 * @q:	the queue, which the device does not know any more
 *
 * Context: Process context.
 */
void zcv_queue_free(struct zcv_queue *q)
{
	unsigned int i;

	for (i = 0; i < q->nr_slots; i++) {
		if (q->slots[i]->page)
			__free_page(q->slots[i]->page);
		kfree(q->slots[i]);
	}
	kfree(q->slots);
	q->slots = NULL;
	q->nr_slots = 0;
	zcv_backlog_free(&q->backlog);
}

/* Jiffies between two looks for silence. */
static unsigned long zcv_look_time(void)
{
	return max(zcv_timeout() / SILENT_LOOKS, 1UL);
}

/* Makes sure that the tick runs while anything is outstanding. */
static void zcv_arm(struct zcv_device *dev, bool soon)
{
	if (soon) {
		if (!READ_ONCE(dev->hurried) && !xchg(&dev->hurried, true)) {
			WRITE_ONCE(dev->ticking, true);
			mod_delayed_work(dev->wq, &dev->tick, 1);
		}
	} else if (!READ_ONCE(dev->ticking) && !xchg(&dev->ticking, true)) {
		queue_delayed_work(dev->wq, &dev->tick, zcv_look_time());
	}
}

/* Whether the device wants to be notified of what it was not notified of. */
static bool zcv_kick_prepare(struct zcv_queue *q)
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

/*
 * Whether it is worth to wait for the device: not if somebody did so in vain
 * and it has answered nothing since, nor twice in one jiffy.
 */
static bool zcv_hopeful(const struct zcv_queue *q)
{
	return !zcv_is_lost(q->dev) && q->gave_up_at != q->answered &&
	       time_after(jiffies, q->gave_up_when);
}

/**
 * zcv_wait_answer - waits a little for the device to answer something
 * @q:		the queue
 * @until:	when ktime_get_ns() is that, the wait is over
 *
 * For puts that find no room. A guest of 128 MB with 5.10 that read a file of
 * 160 MB again and again dropped 7184 and 7886 puts without waiting, 4190 and
 * 2061 with it, and read a half to three quarters less from the disk (TCG,
 * loaded host, before puts could wait in the backlog).
 *
 * Context: q->lock held, interrupts off.
 * Return: false: it did not, or there was no hope.
 */
bool zcv_wait_answer(struct zcv_queue *q, u64 until)
{
	u32 answered = q->answered;

	if (!zcv_hopeful(q))
		return false;
	q->put_waits++;
	if (zcv_kick_prepare(q))
		virtqueue_notify(q->vq);
	while (ktime_get_ns() < until && !zcv_is_lost(q->dev)) {
		udelay(1);
		zcv_reap(q);
		if (q->answered != answered)
			return true;
	}
	q->gave_up_at = q->answered;
	q->gave_up_when = jiffies;
	return false;
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
	struct scatterlist head, result, page, *sgs[DESCS_PAGE];
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

static int zcv_quiesce_queue(struct zcv_queue *q)
{
	bool sent = false, answered = false;
	unsigned long flags;
	u32 tail, target = 0;

	spin_lock_irqsave(&q->lock, flags);
	tail = q->backlog.tail;
	zcv_unlock(q, flags);

	for (;;) {
		zcv_turn(q);
		spin_lock_irqsave(&q->lock, flags);
		if (!sent && zcv_backlog_sent(&q->backlog, tail)) {
			sent = true;
			target = q->posted;
		}
		answered = sent && (s32)(q->answered - target) >= 0;
		zcv_unlock(q, flags);
		if (answered)
			return 0;
		if (zcv_is_lost(q->dev))
			return -EIO;
		usleep_range(QUIET_SLEEP, 2 * QUIET_SLEEP);
	}
}

/**
 * zcv_quiesce - waits until all that was asked for so far is answered
 * @dev:	the device
 *
 * That includes what waits in a backlog. It takes as long as the device goes on
 * answering.
 *
 * Context: Process context; sleeps.
 * Return: 0 or -EIO: the device is lost.
 */
int zcv_quiesce(struct zcv_device *dev)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < dev->nr_queues && !err; i++)
		err = zcv_quiesce_queue(&dev->queues[i]);
	return err;
}

/*
 * Whether answers are missing for too long. What counts is that nothing is
 * answered, not how long one request takes; and that it was looked for, not the
 * time alone: a guest that stood still itself finds that its clock has jumped.
 */
static bool zcv_is_silent(struct zcv_queue *q)
{
	lockdep_assert_held(&q->lock);
	if (q->posted == q->answered || q->answered != q->seen) {
		q->seen = q->answered;
		q->looked = jiffies;
		q->silence = 0;
		return false;
	}
	if (time_before(jiffies, q->looked + zcv_look_time()))
		return false;
	q->looked = jiffies;
	return ++q->silence > SILENT_LOOKS;
}

/*
 * The status is the VMM's own word, and tells a device that stands still from
 * one that was reset behind our back, which will never answer.
 */
static void zcv_fell_silent(struct zcv_device *dev)
{
	if (dev->vdev->config->get_status(dev->vdev)) {
		zcv_lost(dev, "does not answer");
	} else {
		WRITE_ONCE(dev->was_reset, true);
		zcv_lost(dev, "was reset");
	}
}

/*
 * Takes late answers of a lost device. One that is alive is notified of what it
 * may not have been told of. What waits in the backlog will not be sent: the
 * next session begins without ephemeral pages.
 *
 * Return: true if it owes no answer.
 */
static bool zcv_queue_settled(struct zcv_queue *q)
{
	bool settled, notify = false;
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	zcv_backlog_forget(&q->backlog);
	zcv_reap(q);
	settled = q->posted == q->answered;
	if (!settled && q->unkicked && READ_ONCE(q->dev->alive) &&
	    !zcv_is_broken(q->dev))
		notify = zcv_kick_prepare(q);
	spin_unlock_irqrestore(&q->lock, flags);
	if (notify)
		virtqueue_notify(q->vq);
	return settled;
}

/* Looks whether a lost device is alive after all. */
static void zcv_watch(struct zcv_device *dev)
{
	bool settled = true;
	unsigned int i;

	for (i = 0; i < dev->nr_queues; i++)
		settled &= zcv_queue_settled(&dev->queues[i]);
	if (zcv_is_broken(dev))
		return;
	if (settled || READ_ONCE(dev->was_reset))
		queue_delayed_work(dev->wq, &dev->attach, 0);
	else
		queue_delayed_work(dev->wq, &dev->tick, WATCH);
}

/**
 * zcv_tick - looks after requests that nobody waits for
 * @work:	&zcv_device.tick
 *
 * zcv_unlock() arms the next tick, as long as there is reason for one.
 *
 * Context: Workqueue.
 */
void zcv_tick(struct work_struct *work)
{
	struct zcv_device *dev = container_of(to_delayed_work(work),
					      struct zcv_device, tick);
	struct zcv_queue *q;
	unsigned long flags;
	unsigned int i;

	/* Before looking: what is posted from now on arms the next tick. */
	xchg(&dev->hurried, false);
	xchg(&dev->ticking, false);

	if (zcv_is_lost(dev)) {
		zcv_watch(dev);
		return;
	}
	for (i = 0; i < dev->nr_queues; i++) {
		q = &dev->queues[i];
		spin_lock_irqsave(&q->lock, flags);
		zcv_reap(q);
		zcv_backlog_send(q);
		if (zcv_is_silent(q))
			zcv_fell_silent(dev);
		q->urgent = q->unkicked;
		zcv_unlock(q, flags);
	}
}
