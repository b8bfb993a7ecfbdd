// SPDX-License-Identifier: GPL-2.0
/*
 * zcache_swap: block devices to swap to, whose pages the host keeps.
 *
 * For kernels without frontswap. Reading /sys/class/zcswap-control/hot_add
 * makes a disk, writing its number to hot_remove removes it. What the device does
 * not take goes to the disk's backing device; without one the write fails, and
 * the kernel keeps the page.
 */
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "swapdisk.h"

/* For what waits, and memory may be waiting for that. */
struct workqueue_struct *zcs_wq;

/* The disks by number, under zcs_mutex; nests outside a disk's lock. */
static DEFINE_MUTEX(zcs_mutex);
static DEFINE_IDR(zcs_disks);
static int zcs_major;

/* Under the disk's open_mutex. */
ZCACHE_DEFINE_RELEASE(zcs_release, gendisk)
{
	struct zcs_disk *disk = gendisk->private_data;

	if (disk && !disk_openers(gendisk))
		zcs_room_reveal(disk);
}

static const struct block_device_operations zcs_fops = {
	.owner = THIS_MODULE,
	.submit_bio = zcs_submit_bio,
	.release = zcs_release,
#ifdef ZCACHE_SWAP_NOTIFY
	.swap_slot_free_notify = zcs_slot_free_notify,
#endif
};

static int zcs_add_gendisk(struct zcs_disk *disk)
{
	struct gendisk *gendisk = zcache_swap_gendisk();
	int err;

	if (IS_ERR(gendisk))
		return PTR_ERR(gendisk);
	gendisk->major = zcs_major;
	gendisk->first_minor = disk->id;
	gendisk->minors = 1;
	/* The kernel's slots are then ours. */
	gendisk->flags |= GENHD_FL_NO_PART;
	gendisk->fops = &zcs_fops;
	gendisk->private_data = disk;
	snprintf(gendisk->disk_name, DISK_NAME_LEN, "zcswap%d", disk->id);
	disk->gendisk = gendisk;
	err = device_add_disk(NULL, gendisk, zcs_disk_groups);
	if (err)
		put_disk(gendisk);
	return err;
}

/* Return: the number of the new disk, or an error. */
static int zcs_add(void)
{
	struct zcs_disk *disk = kzalloc(sizeof(*disk), GFP_KERNEL);
	int err;

	lockdep_assert_held(&zcs_mutex);
	if (!disk)
		return -ENOMEM;
	mutex_init(&disk->lock);
	err = zcs_io_init(disk);
	if (err)
		goto free;
	disk->id = idr_alloc(&zcs_disks, disk, 0, 1 << MINORBITS, GFP_KERNEL);
	if (disk->id < 0) {
		err = disk->id;
		goto exit_io;
	}
	err = zcs_add_gendisk(disk);
	if (err)
		goto remove;
	return disk->id;
remove:
	idr_remove(&zcs_disks, disk->id);
exit_io:
	zcs_io_exit(disk);
free:
	kfree(disk);
	return err;
}

static int zcs_remove(struct zcs_disk *disk)
{
	struct gendisk *gendisk = disk->gendisk;
	int err;

	lockdep_assert_held(&zcs_mutex);
	mutex_lock(&disk->lock);
	err = zcs_reset(disk);
	disk->removed = !err;
	mutex_unlock(&disk->lock);
	if (err)
		return err;
	/* Waits for the attributes, which find it removed. */
	del_gendisk(gendisk);
	/* Somebody may have opened it just before, to close it later. */
	mutex_lock(&gendisk->open_mutex);
	gendisk->private_data = NULL;
	mutex_unlock(&gendisk->open_mutex);
	put_disk(gendisk);
	idr_remove(&zcs_disks, disk->id);
	zcs_io_exit(disk);
	kfree(disk);
	return 0;
}

static ssize_t hot_add_show(ZCACHE_CLASS_CONST struct class *class,
			    ZCACHE_CLASS_CONST struct class_attribute *attr,
			    char *buf)
{
	int id;

	mutex_lock(&zcs_mutex);
	id = zcs_add();
	mutex_unlock(&zcs_mutex);
	return id < 0 ? id : sysfs_emit(buf, "%d\n", id);
}

/* Reading changes something: for root only. */
static CLASS_ATTR_RO(hot_add);

static ssize_t hot_remove_store(ZCACHE_CLASS_CONST struct class *class,
				ZCACHE_CLASS_CONST struct class_attribute *attr,
				const char *buf, size_t count)
{
	struct zcs_disk *disk;
	int id, err;

	err = kstrtoint(buf, 10, &id);
	if (err)
		return err;
	mutex_lock(&zcs_mutex);
	disk = idr_find(&zcs_disks, id);
	err = disk ? zcs_remove(disk) : -ENODEV;
	mutex_unlock(&zcs_mutex);
	return err ?: count;
}
static CLASS_ATTR_WO(hot_remove);

static struct attribute *zcs_control_attrs[] = {
	&class_attr_hot_add.attr,
	&class_attr_hot_remove.attr,
	NULL
};
ATTRIBUTE_GROUPS(zcs_control);

static struct class zcs_control = {
	.name = "zcswap-control",
	.class_groups = zcs_control_groups,
};

static int __init zcs_init(void)
{
	int err;

	class_attr_hot_add.attr.mode = 0400;
	zcs_wq = alloc_workqueue("zcache_swap", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!zcs_wq)
		return -ENOMEM;
	zcs_major = register_blkdev(0, "zcswap");
	if (zcs_major < 0) {
		err = zcs_major;
		goto destroy;
	}
	err = class_register(&zcs_control);
	if (err)
		goto unregister;
	return 0;
unregister:
	unregister_blkdev(zcs_major, "zcswap");
destroy:
	destroy_workqueue(zcs_wq);
	return err;
}
module_init(zcs_init);

/* No disk is open, for that would hold the module. */
static void __exit zcs_exit(void)
{
	struct zcs_disk *disk;
	int id;

	class_unregister(&zcs_control);
	mutex_lock(&zcs_mutex);
	idr_for_each_entry(&zcs_disks, disk, id)
		zcs_remove(disk);
	mutex_unlock(&zcs_mutex);
	idr_destroy(&zcs_disks);
	unregister_blkdev(zcs_major, "zcswap");
	destroy_workqueue(zcs_wq);
}
module_exit(zcs_exit);

MODULE_DESCRIPTION("Transcendent memory kept by the host: swap disks");
MODULE_LICENSE("GPL");
