// SPDX-License-Identifier: GPL-2.0
/*
 * Transport of zcache over virtio: probe, remove, suspend.
 *
 * The virtio device id says nothing, because generic vhost-user devices of
 * VMMs differ in the ids they can carry: several are listed, and magic and
 * version in the configuration space decide. The configuration space is read
 * here, once: each read goes to the back-end, and one that is dead can take
 * the virtual machine with it.
 */
#include <linux/cpumask.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ring.h>
#include "zcache_virtio.h"

static unsigned int virtio_id;
module_param(virtio_id, uint, 0444);
MODULE_PARM_DESC(virtio_id, "One more virtio device id to look at (default: 13, 6, 10, 21 and 22 only)");

static unsigned int bounce_pages;
module_param(bounce_pages, uint, 0444);
MODULE_PARM_DESC(bounce_pages, "Pages for requests under way, over all queues (default: 1/1024 of memory, at least 64 for each queue)");

/* Default bound of memory for bounce pages, and least number for each queue. */
#define BOUNCE_PART	1024
#define BOUNCE_MIN	64

static bool zcv_is_zcache(struct virtio_device *vdev, u32 *num_queues,
			  u32 *features)
{
	u32 magic, version, page_size;

	if (!vdev->config->get)
		return false;
	virtio_cread_le(vdev, struct zcache_config, magic, &magic);
	if (magic != ZCACHE_MAGIC)
		return false;
	virtio_cread_le(vdev, struct zcache_config, version, &version);
	virtio_cread_le(vdev, struct zcache_config, page_size, &page_size);
	virtio_cread_le(vdev, struct zcache_config, num_queues, num_queues);
	virtio_cread_le(vdev, struct zcache_config, features, features);
	if (version != ZCACHE_VERSION || page_size != ZCACHE_PAGE_SIZE ||
	    !*num_queues) {
		dev_err(&vdev->dev,
			"zcache version %u with %u-byte pages and %u queues is not supported\n",
			version, page_size, *num_queues);
		return false;
	}
	return true;
}

/* The VMM may have given the device fewer queues than it could serve. */
static int zcv_find_vqs(struct zcv_device *dev, unsigned int wanted,
			struct virtqueue **vqs)
{
	static const char * const names[ZCV_MAX_QUEUES] = {
		"request0", "request1", "request2", "request3",
		"request4", "request5", "request6", "request7",
	};
	int err;

	do {
		err = zcache_find_vqs(dev->vdev, wanted, vqs, names);
		if (!err)
			dev->nr_queues = wanted;
	} while (err == -ENOENT && --wanted);
	return err;
}

static unsigned int zcv_pages_per_queue(unsigned int queues)
{
	unsigned int pages = bounce_pages ?: totalram_pages() / BOUNCE_PART;

	return max_t(unsigned int, pages / queues, BOUNCE_MIN);
}

static int zcv_start(struct zcv_device *dev, struct virtqueue **vqs)
{
	unsigned int i;
	int err;

	for (i = 0; i < dev->nr_queues; i++) {
		err = zcv_queue_start(&dev->queues[i], vqs[i]);
		if (err)
			return err;
	}
	return 0;
}

static void zcv_free_queues(struct zcv_device *dev)
{
	unsigned int i;

	for (i = 0; i < dev->nr_queues; i++)
		zcv_queue_free(&dev->queues[i]);
}

static int zcv_init_queues(struct zcv_device *dev, unsigned int wanted)
{
	struct virtqueue *vqs[ZCV_MAX_QUEUES];
	unsigned int i, pages;
	int err;

	err = zcv_find_vqs(dev, wanted, vqs);
	if (err)
		return err;
	pages = zcv_pages_per_queue(dev->nr_queues);
	for (i = 0; !err && i < dev->nr_queues; i++)
		err = zcv_queue_init(&dev->queues[i], dev,
				     virtqueue_get_vring_size(vqs[i]), pages);
	if (!err)
		err = zcv_start(dev, vqs);
	if (!err)
		return 0;
	/* It has been told of the rings. */
	zcv_forget_memory(dev);
	zcv_free_queues(dev);
	return err;
}

/* From here on nothing attaches a device, then nothing uses it any more. */
static void zcv_stop(struct zcv_device *dev,
		     void (*leave)(struct zcache_transport *t))
{
	WRITE_ONCE(dev->broken, true);
	cancel_delayed_work_sync(&dev->attach);
	WRITE_ONCE(dev->transport.lost, true);
	leave(&dev->transport);
	cancel_delayed_work_sync(&dev->tick);
	zcv_forget_memory(dev);
}

static int zcv_validate(struct virtio_device *vdev)
{
	/* virtqueue_add() would have to allocate the tables. */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	return 0;
}

/* Return: an error if there is no hope that it can be used later. */
static int zcv_first_attach(struct zcv_device *dev)
{
	int err = zcache_attach(&dev->transport);

	switch (err) {
	case -EBUSY:
		dev_info(&dev->vdev->dev,
			 "zcache device is not used until another one leaves\n");
		zcv_attach_later(dev);
		return 0;
	case -EIO:
		if (zcv_is_broken(dev))
			return err;
		dev_err(&dev->vdev->dev,
			"zcache device is not usable until it answers\n");
		return 0;
	default:
		return err;
	}
}

static int zcv_probe(struct virtio_device *vdev)
{
	struct zcv_device *dev;
	u32 num_queues, features;
	int err;

	if (!zcv_is_zcache(vdev, &num_queues, &features))
		return -ENODEV;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	dev->vdev = vdev;
	dev->transport.ops = &zcv_transport_ops;
	dev->transport.features = features;
	INIT_DELAYED_WORK(&dev->tick, zcv_tick);
	INIT_DELAYED_WORK(&dev->attach, zcv_attach);
	dev->wq = alloc_workqueue("zcache_virtio", WQ_UNBOUND | WQ_MEM_RECLAIM,
				  0);
	if (!dev->wq) {
		err = -ENOMEM;
		goto free;
	}
	/* Of all CPUs that may come: queues can't be added later. */
	err = zcv_init_queues(dev, min3(num_queues, num_possible_cpus(),
					(unsigned int)ZCV_MAX_QUEUES));
	if (err)
		goto destroy_wq;

	vdev->priv = dev;
	virtio_device_ready(vdev);
	err = zcv_throttle_start(dev);
	if (err)
		goto stop;
	err = zcv_first_attach(dev);
	if (err)
		goto stop_throttle;
	dev_info(&vdev->dev, "zcache device: %u queues of %u slots\n",
		 dev->nr_queues, dev->queues[0].nr_slots);
	return 0;

stop_throttle:
	zcache_shrinker_remove(&dev->shrinker);
stop:
	dev_err(&vdev->dev, "zcache device is not usable (%d)\n", err);
	zcv_stop(dev, zcache_detach);
	zcv_free_queues(dev);
destroy_wq:
	destroy_workqueue(dev->wq);
free:
	kfree(dev);
	return err;
}

static void zcv_remove(struct virtio_device *vdev)
{
	struct zcv_device *dev = vdev->priv;

	zcache_shrinker_remove(&dev->shrinker);
	while (zcv_last_chance(dev)) {
		cancel_delayed_work_sync(&dev->attach);
		zcache_detach(&dev->transport);
		if (!zcv_is_lost(dev))
			break;
	}
	zcv_stop(dev, zcache_detach);
	zcv_free_queues(dev);
	destroy_workqueue(dev->wq);
	kfree(dev);
}

/*
 * Before the device is reset, by a suspend, shutdown, or whoever resets the PCI
 * function: it keeps the swap pages, and so do we what needs memory.
 */
static int __maybe_unused zcv_freeze(struct virtio_device *vdev)
{
	struct zcv_device *dev = vdev->priv;

	cancel_delayed_work_sync(&dev->attach);
	zcache_suspend(&dev->transport);
	zcv_stop(dev, zcache_suspend);
	return 0;
}

static int zcv_restart(struct zcv_device *dev)
{
	struct virtqueue *vqs[ZCV_MAX_QUEUES];
	unsigned int queues = dev->nr_queues;
	int err = zcv_find_vqs(dev, queues, vqs);

	if (err)
		return err;
	if (dev->nr_queues == queues && !zcv_start(dev, vqs))
		return 0;
	dev->nr_queues = queues;
	zcv_forget_memory(dev);
	return -EINVAL;
}

/* The session is resumed by a worker: nobody has to wait for the device here. */
static int __maybe_unused zcv_restore(struct virtio_device *vdev)
{
	struct zcv_device *dev = vdev->priv;
	int err = zcv_restart(dev);

	if (err) {
		dev_err(&vdev->dev, "zcache device can't be set up again (%d)\n",
			err);
		zcache_detach(&dev->transport);
		return err;
	}
	WRITE_ONCE(dev->was_reset, false);
	WRITE_ONCE(dev->alive, false);
	WRITE_ONCE(dev->broken, false);
	WRITE_ONCE(dev->transport.lost, false);
	virtio_device_ready(vdev);
	queue_delayed_work(dev->wq, &dev->attach, 0);
	return 0;
}

#ifdef ZCACHE_HAS_VIRTIO_SHUTDOWN
/* What would be lost if the rings broke under us just stays away. */
static void zcv_shutdown(struct virtio_device *vdev)
{
	zcv_freeze(vdev);
}
#endif

/* The last but one entry is for the parameter virtio_id. */
static struct virtio_device_id zcv_ids[] = {
	{ ZCACHE_DEFAULT_VIRTIO_ID, VIRTIO_DEV_ANY_ID },
	{ 6, VIRTIO_DEV_ANY_ID },
	{ 10, VIRTIO_DEV_ANY_ID },
	{ 21, VIRTIO_DEV_ANY_ID },
	{ 22, VIRTIO_DEV_ANY_ID },
	{ 0 },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, zcv_ids);

static struct virtio_driver zcv_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = zcv_ids,
	.validate = zcv_validate,
	.probe = zcv_probe,
	.remove = zcv_remove,
#ifdef CONFIG_PM_SLEEP
	.freeze = zcv_freeze,
	.restore = zcv_restore,
#endif
#ifdef ZCACHE_HAS_VIRTIO_RESET
	.reset_prepare = zcv_freeze,
	.reset_done = zcv_restore,
#endif
#ifdef ZCACHE_HAS_VIRTIO_SHUTDOWN
	.shutdown = zcv_shutdown,
#endif
};

static int __init zcv_init(void)
{
	zcv_ids[ARRAY_SIZE(zcv_ids) - 2] = (struct virtio_device_id){
		.device = virtio_id,
		.vendor = VIRTIO_DEV_ANY_ID,
	};
	return register_virtio_driver(&zcv_driver);
}
module_init(zcv_init);

static void __exit zcv_exit(void)
{
	unregister_virtio_driver(&zcv_driver);
}
module_exit(zcv_exit);

MODULE_DESCRIPTION("Transcendent memory kept by the host: virtio transport");
MODULE_LICENSE("GPL");
