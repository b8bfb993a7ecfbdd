// SPDX-License-Identifier: GPL-2.0
/*
 * What is known of the device as a whole: whether it is in use, and how long it
 * may take. Each file of this folder calls only those named before it: device, ring,
 * request, backlog, send, wait, batch, ops, throttle, watch, queue, probe. What
 * goes the other way is a function that a slot or a work item carries.
 */
#include <linux/moduleparam.h>
#include <linux/virtio_config.h>
#include "zcache_virtio.h"

static unsigned int timeout_ms = 10000;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "A device that answers nothing for so long is not waited for (default: 10000)");

#define MIN_TIMEOUT_MS	100

/* Jiffies an answer may take. */
unsigned long zcv_timeout(void)
{
	return msecs_to_jiffies(max_t(unsigned int, READ_ONCE(timeout_ms),
				      MIN_TIMEOUT_MS));
}

/* Jiffies between two looks for silence. */
unsigned long zcv_look_time(void)
{
	return max(zcv_timeout() / ZCV_SILENT_LOOKS, 1UL);
}

/**
 * zcv_arm - makes sure that the tick runs
 * @dev:	the device
 * @soon:	in a jiffy; or when it is time to look for silence
 *
 * Context: Any.
 */
void zcv_arm(struct zcv_device *dev, bool soon)
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

/* Return: false: it was lost before. */
static bool zcv_set_lost(struct zcv_device *dev)
{
	if (xchg(&dev->transport.lost, true))
		return false;
	zcache_transport_lost(&dev->transport);
	/* Once more, to forget what waits. */
	mod_delayed_work(dev->wq, &dev->tick, 0);
	return true;
}

/**
 * zcv_lost - a device is not to be waited for any longer
 * @dev:	the device
 * @why:	what it does wrong, as the end of a sentence
 *
 * It is sent nothing before it has answered all that it was asked for, and is
 * attached anew.
 *
 * Context: Any.
 */
void zcv_lost(struct zcv_device *dev, const char *why)
{
	if (zcv_set_lost(dev))
		dev_err(&dev->vdev->dev,
			"device %s: not used until it has answered everything\n",
			why);
}

/**
 * zcv_broken - gives a device up
 * @dev:	the device
 * @why:	what it does wrong, as the end of a sentence
 *
 * From now on only a reset touches it.
 *
 * Context: Any.
 */
void zcv_broken(struct zcv_device *dev, const char *why)
{
	if (xchg(&dev->broken, true))
		return;
	dev_err(&dev->vdev->dev, "device %s: given up\n", why);
	zcv_set_lost(dev);
}

/* After this the device does not know of our memory any more. */
void zcv_forget_memory(struct zcv_device *dev)
{
	dev->vdev->config->reset(dev->vdev);
	dev->vdev->config->del_vqs(dev->vdev);
}
