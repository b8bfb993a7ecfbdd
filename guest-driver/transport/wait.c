// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting for answers: a task for its own, a put for any, whoever makes a queue
 * quiet for all. The time has an end: a device that answers nothing is lost, see
 * watch.c.
 */
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include "zcache_virtio.h"

static unsigned int spin_us = 50;
module_param(spin_us, uint, 0644);
MODULE_PARM_DESC(spin_us, "How long a task spins for an answer before it sleeps (default: 50)");

/* Sleeps of a task that waits for an answer, after it has spun (us). */
#define SLEEP_MIN	20
#define SLEEP_MAX	500

/* Sleep of a task that waits for a queue to become quiet (us). */
#define QUIET_SLEEP	50

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
	u64 spin_until = ktime_get_ns() + spin_us * NSEC_PER_USEC;
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
