// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting for an answer; and requests without a page that a task waits for.
 */
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include "zcache_virtio.h"

/* Sleeps of a task that waits for an answer, after it has spun (us). */
#define SLEEP_MIN	20
#define SLEEP_MAX	500

/*
 * Posts a request if there is a slot for it.
 *
 * Return: The slot; ERR_PTR(-EAGAIN): no room; others as zcv_call_start().
 */
static struct zcv_slot *zcv_call_post(struct zcv_call *call)
{
	struct zcv_queue *q = call->q;
	struct zcv_slot *slot;

	lockdep_assert_held(&q->lock);
	zcv_reap(q);
	zcv_backlog_send(q);
	if (zcv_is_lost(q->dev))
		return ERR_PTR(-EIO);
	slot = zcv_take_small_slot(q);
	if (!slot)
		return ERR_PTR(-EAGAIN);
	slot->out.req = call->req;
	return zcv_post_awaited(q, slot) ? slot : ERR_PTR(-EAGAIN);
}

/**
 * zcv_call_start - posts a request, waiting for a slot if need be
 * @call:	the request
 *
 * The wait has an end: slots get free as the device answers, and if it does not
 * the tick gives it up.
 *
 * Context: Process context; sleeps.
 * Return: The slot; ERR_PTR(-EIO): the device is lost.
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
	return slot;
}

/**
 * zcv_call_abandon - waits no more for a request
 * @q:		the queue
 * @slot:	the request; if it is in a list it is taken out of that
 *
 * Context: Process context.
 * Return: -EIO, and the slot stays with the device; or 0: it has just been
 *	   answered, and is the caller's, where it was.
 */
int zcv_call_abandon(struct zcv_queue *q, struct zcv_slot *slot)
{
	unsigned long flags;
	bool abandoned;

	spin_lock_irqsave(&q->lock, flags);
	abandoned = zcv_abandon(q, slot);
	zcv_unlock(q, flags);
	return abandoned ? -EIO : 0;
}

/**
 * zcv_call_wait - waits until a request is answered
 * @q:		the queue
 * @slot:	the request, posted
 *
 * Spins first: an answer takes less than being scheduled does. The tick sees to
 * it that the time has an end.
 *
 * Context: Process context; sleeps.
 * Return: 0: the slot is the caller's until zcv_call_end(); -EIO: the device is
 *	   lost, and the slot stays with it.
 */
int zcv_call_wait(struct zcv_queue *q, struct zcv_slot *slot)
{
	u64 spin_until = ktime_get_ns() + zcv_spin_us * NSEC_PER_USEC;
	unsigned int sleep = SLEEP_MIN;

	for (;;) {
		if (zcv_is_lost(q->dev))
			return zcv_call_abandon(q, slot);
		zcv_turn(q);
		if (zcv_slot_answered(slot))
			return 0;
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
 * @q:		the queue
 * @slot:	the request
 *
 * Context: Any.
 */
void zcv_call_end(struct zcv_queue *q, struct zcv_slot *slot)
{
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	zcv_free_slot(q, slot);
	zcv_unlock(q, flags);
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
	err = zcv_call_wait(call->q, slot);
	return err ? ERR_PTR(err) : slot;
}
