// SPDX-License-Identifier: GPL-2.0
/*
 * Looks after requests that nobody waits for, and for silence. A device that
 * answers nothing for too long is lost. But a late answer is a proof of life: the
 * tick goes on looking at the used rings, which are guest memory, and when the
 * device owes no answer any more it is attached anew.
 */
#include <linux/delay.h>
#include <linux/virtio_config.h>
#include "zcache_virtio.h"

/* A lost device is looked at so often. */
#define WATCH		(HZ / 4)

/* A device that waits for another one to leave looks so often. */
#define OTHER_POLL	HZ

#define CHANCE_POLL_MS	20

/**
 * zcv_attach_later - tries to attach a device when another one may have left
 * @dev:	the device
 *
 * Context: Any.
 */
void zcv_attach_later(struct zcv_device *dev)
{
	queue_delayed_work(dev->wq, &dev->attach, OTHER_POLL);
}

#ifdef CONFIG_PM_SLEEP
/* Sets a device up that somebody has reset. */
static void zcv_set_up_again(struct zcv_device *dev)
{
	WRITE_ONCE(dev->was_reset, false);
	WRITE_ONCE(dev->broken, true);
	cancel_delayed_work_sync(&dev->tick);
	zcv_forget_memory(dev);
	/* Negotiates, calls zcv_restore(), and notes if that fails. */
	virtio_device_restore(dev->vdev);
}
#else
static void zcv_set_up_again(struct zcv_device *dev)
{
	zcv_broken(dev, "was reset, which this kernel can't make up for");
}
#endif

/**
 * zcv_attach - attaches a device that was lost, or that came beside another
 * @work:	&zcv_device.attach
 *
 * Context: Workqueue.
 */
void zcv_attach(struct work_struct *work)
{
	struct zcv_device *dev = container_of(to_delayed_work(work),
					      struct zcv_device, attach);
	int err;

	if (zcv_is_broken(dev))
		return;
	if (zcv_is_lost(dev)) {
		/* It owes no answer, and after this nobody asks. */
		zcache_suspend(&dev->transport);
		if (READ_ONCE(dev->was_reset)) {
			zcv_set_up_again(dev);
			return;
		}
		WRITE_ONCE(dev->alive, false);
		WRITE_ONCE(dev->transport.lost, false);
	}
	err = zcache_attach(&dev->transport);
	if (err == -EBUSY)
		zcv_attach_later(dev);
	else if (err == -EPROTO)
		zcv_broken(dev, "refuses the session");
}

/**
 * zcv_last_chance - waits for a lost device that has pages which are nowhere else
 * @dev:	the device
 *
 * Context: Process context; sleeps, no longer than for any answer.
 * Return: false: it did not come back.
 */
bool zcv_last_chance(struct zcv_device *dev)
{
	unsigned long end = jiffies + zcv_timeout();

	if (!zcv_is_lost(dev))
		return true;
	if (zcv_is_broken(dev) || !zcache_is_needed(&dev->transport))
		return false;
	dev_err(&dev->vdev->dev,
		"lost device is removed: waiting for the swap pages it has\n");
	while (zcv_is_lost(dev) && !zcv_is_broken(dev) &&
	       time_before(jiffies, end))
		msleep(CHANCE_POLL_MS);
	return !zcv_is_lost(dev);
}

/*
 * Whether answers are missing for too long. What counts is that nothing is
 * answered, not how long one request takes; and that it was looked for, not the
 * time alone: a guest that stood still itself finds that its clock has jumped.
 */
static bool zcv_is_silent(struct zcv_queue *q)
{
	lockdep_assert_held(&q->lock);
	if (q->posted == q->answered || q->progress != q->seen) {
		q->seen = q->progress;
		q->looked = jiffies;
		q->silence = 0;
		return false;
	}
	if (time_before(jiffies, q->looked + zcv_look_time()))
		return false;
	q->looked = jiffies;
	return ++q->silence >= ZCV_SILENT_LOOKS;
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
