// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that a task waits for.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include "zcache_virtio.h"

/* Sleeps of a task that waits for an answer, after it has spun (us). */
#define SLEEP_MIN	20
#define SLEEP_MAX	500

/**
 * zcv_call_post - posts a request if there is a slot for it
 * @call:	the request
 *
 * Context: The queue's lock held.
 * Return: The slot; ERR_PTR(-EAGAIN): no room; others as zcv_call_start().
 */
struct zcv_slot *zcv_call_post(struct zcv_call *call)
{
	struct zcv_queue *q = call->q;
	u16 opcode = le16_to_cpu(call->req.hdr.opcode);
	struct zcv_slot *slot;

	lockdep_assert_held(&q->lock);
	zcv_reap(q);
	zcv_backlog_send(q);
	if (zcv_is_lost(q->dev))
		return ERR_PTR(-EIO);
	if (call->pool && atomic_long_read(&call->pool->poison))
		return ERR_PTR(-ENOENT);
	/* The backlog may have something that concerns the key. */
	if (call->pool && !zcv_backlog_sent(&q->backlog, call->behind))
		return ERR_PTR(-EAGAIN);

	if (opcode == ZCACHE_OP_PUT || opcode == ZCACHE_OP_GET)
		slot = zcv_take_page_slot(q, 0);
	else
		slot = zcv_take_small_slot(q);
	if (!slot)
		return ERR_PTR(-EAGAIN);
	if (call->data)
		copy_highpage(slot->page, call->data);
	slot->out.req = call->req;
	return zcv_post(q, slot, true) ? slot : ERR_PTR(-EAGAIN);
}

/**
 * zcv_call_start - posts a request, waiting for a slot if need be
 * @call:	the request
 *
 * The wait has an end: slots get free as the device answers, and if it does not
 * the tick gives it up.
 *
 * Context: Process context; sleeps.
 * Return: The slot; ERR_PTR(-ENOENT): the page can't be got, and need not be
 *	   asked for; ERR_PTR(-EIO): the device is lost.
 */
struct zcv_slot *zcv_call_start(struct zcv_call *call)
{
	struct zcv_queue *q = call->q;
	struct zcv_slot *slot;
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	slot = zcv_call_post(call);
	zcv_unlock(q, flags);
	while (slot == ERR_PTR(-EAGAIN)) {
		usleep_range(ZCV_SLOT_SLEEP, 2 * ZCV_SLOT_SLEEP);
		spin_lock_irqsave(&q->lock, flags);
		slot = zcv_call_post(call);
		zcv_unlock(q, flags);
	}
	call->deadline = jiffies + zcv_timeout();
	return slot;
}

/**
 * zcv_call_wait - waits until a request is answered
 * @call:	the request, started
 * @slot:	its slot
 *
 * Spins first: an answer takes less than being scheduled does. The last look
 * comes after the deadline, in case it was this guest that stood still.
 *
 * Context: Process context; sleeps.
 * Return: 0: the slot is the caller's until zcv_call_end(); -EIO: the device is
 *	   lost, and the slot stays with it.
 */
int zcv_call_wait(struct zcv_call *call, struct zcv_slot *slot)
{
	u64 spin_until = ktime_get_ns() + zcv_spin_us * NSEC_PER_USEC;
	struct zcv_queue *q = call->q;
	unsigned int sleep = SLEEP_MIN;
	bool late = false;

	for (;;) {
		if (zcv_is_lost(q->dev))
			return -EIO;
		zcv_turn(q);
		/* Pairs with the release in zcv_reap(): result and page. */
		if (smp_load_acquire(&slot->state) == ZCV_SLOT_ANSWERED)
			return 0;
		if (late) {
			zcv_lost(q->dev, "does not answer");
			return -EIO;
		}
		late = time_after(jiffies, call->deadline);
		if (ktime_get_ns() < spin_until && !need_resched()) {
			cpu_relax();
			continue;
		}
		usleep_range(sleep, 2 * sleep);
		sleep = min_t(unsigned int, 2 * sleep, SLEEP_MAX);
	}
}

/**
 * zcv_call_end - gives the slot of an answered request back
 * @call:	the request
 * @slot:	its slot
 *
 * Context: Any.
 */
void zcv_call_end(struct zcv_call *call, struct zcv_slot *slot)
{
	unsigned long flags;

	spin_lock_irqsave(&call->q->lock, flags);
	zcv_free_slot(call->q, slot);
	zcv_unlock(call->q, flags);
}

/**
 * zcv_call - starts a request and waits for the answer
 * @call:	the request
 *
 * Context: Process context; sleeps.
 * Return: As zcv_call_start(); the slot is the caller's until zcv_call_end().
 */
struct zcv_slot *zcv_call(struct zcv_call *call)
{
	struct zcv_slot *slot = zcv_call_start(call);
	int err;

	if (IS_ERR(slot))
		return slot;
	err = zcv_call_wait(call, slot);
	return err ? ERR_PTR(err) : slot;
}
