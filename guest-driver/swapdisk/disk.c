// SPDX-License-Identifier: GPL-2.0
/*
 * zcache_swap: a block device to swap to, whose pages the host keeps.
 *
 * For kernels without frontswap. Reading /sys/class/zcswap-control/hot_add
 * makes a disk, writing its number to hot_remove removes it. A disk is set up
 * by its attributes in /sys/block/zcswapN, disksize last. What the device does
 * not take goes to the backing device; without one the write fails, and the
 * kernel keeps the page.
 */
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include "swapdisk.h"

/* The disks by number, under zcs_mutex; nests outside a disk's lock. */
static DEFINE_MUTEX(zcs_mutex);
static DEFINE_IDR(zcs_disks);
static int zcs_major;

static const struct block_device_operations zcs_fops = {
	.owner = THIS_MODULE,
	.submit_bio = zcs_submit_bio,
	.swap_slot_free_notify = zcs_slot_free_notify,
};

static struct zcs_disk *zcs_of(struct device *dev)
{
	return dev_to_disk(dev)->private_data;
}

static void zcs_backing_close(struct zcs_disk *disk)
{
	if (disk->backing.bdev)
		zcache_backing_close(&disk->backing, disk);
	kfree(disk->backing_path);
	disk->backing_path = NULL;
}

/*
 * Takes pool and backing device from a disk that nobody has open. With its size
 * 0 under open_mutex no bio gets through to us any more.
 */
static int zcs_reset(struct zcs_disk *disk)
{
	struct gendisk *gendisk = disk->gendisk;
	struct zcache_pool *pool = disk->pool;

	lockdep_assert_held(&disk->lock);
	mutex_lock(&gendisk->open_mutex);
	if (disk_openers(gendisk)) {
		mutex_unlock(&gendisk->open_mutex);
		return -EBUSY;
	}
	set_capacity(gendisk, 0);
	mutex_unlock(&gendisk->open_mutex);

	if (pool) {
		disk->slots = 0;
		zcache_pool_remove(pool->id);
		disk->pool = NULL;
	}
	zcs_return_free(disk->returning);
	disk->returning = NULL;
	disk->writethrough = false;
	zcs_backing_close(disk);
	return 0;
}

static ssize_t backing_dev_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	struct zcs_disk *disk = zcs_of(dev);
	ssize_t len;

	mutex_lock(&disk->lock);
	len = sysfs_emit(buf, "%s\n", disk->backing_path ?: "none");
	mutex_unlock(&disk->lock);
	return len;
}

static int zcs_backing_open(struct zcs_disk *disk, char *path)
{
	int err;

	lockdep_assert_held(&disk->lock);
	if (disk->removed)
		return -ENODEV;
	if (disk->pool)
		return -EBUSY;
	zcs_backing_close(disk);
	if (!strcmp(path, "none"))
		return 0;
	disk->backing_path = kstrdup(path, GFP_KERNEL);
	if (!disk->backing_path)
		return -ENOMEM;
	err = zcache_backing_open(&disk->backing, path, disk);
	if (!err && bdev_logical_block_size(disk->backing.bdev) > PAGE_SIZE)
		err = -EINVAL;
	if (err)
		zcs_backing_close(disk);
	return err;
}

static ssize_t backing_dev_store(struct device *dev,
				 struct device_attribute *attr,
				 const char *buf, size_t count)
{
	struct zcs_disk *disk = zcs_of(dev);
	char *path = kstrndup(buf, count, GFP_KERNEL);
	int err;

	if (!path)
		return -ENOMEM;
	mutex_lock(&disk->lock);
	err = zcs_backing_open(disk, strim(path));
	mutex_unlock(&disk->lock);
	kfree(path);
	return err ?: count;
}
static DEVICE_ATTR_RW(backing_dev);

static ssize_t writethrough_show(struct device *dev,
				 struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", zcs_of(dev)->writethrough);
}

static ssize_t writethrough_store(struct device *dev,
				  struct device_attribute *attr,
				  const char *buf, size_t count)
{
	struct zcs_disk *disk = zcs_of(dev);
	bool value;
	int err = kstrtobool(buf, &value);

	if (err)
		return err;
	mutex_lock(&disk->lock);
	if (disk->pool)
		err = -EBUSY;
	else
		disk->writethrough = value;
	mutex_unlock(&disk->lock);
	return err ?: count;
}
static DEVICE_ATTR_RW(writethrough);

static ssize_t disksize_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n",
			  (u64)zcs_of(dev)->slots << PAGE_SHIFT);
}

/* Return: pages of a disk of @size bytes; of 0, as the backing device has. */
static unsigned long zcs_slots(struct zcs_disk *disk, u64 size)
{
	u64 most = U32_MAX;

	if (disk->backing.bdev)
		most = min(most, (u64)bdev_nr_bytes(disk->backing.bdev) >>
				 PAGE_SHIFT);
	if (!size)
		return disk->backing.bdev ? most : 0;
	size = round_up(size, PAGE_SIZE) >> PAGE_SHIFT;
	return size <= most ? size : 0;
}

static int zcs_set_size(struct zcs_disk *disk, u64 size)
{
	unsigned long slots = zcs_slots(disk, size);
	struct zcache_pool *pool;

	lockdep_assert_held(&disk->lock);
	if (disk->removed)
		return -ENODEV;
	if (disk->pool)
		return -EBUSY;
	if (!slots || (disk->writethrough && !disk->backing.bdev))
		return -EINVAL;
	if (disk->backing.bdev && !disk->writethrough) {
		disk->returning = zcs_return_alloc(disk);
		if (!disk->returning)
			return -ENOMEM;
	}
	pool = zcache_swap_pool_add(slots, zcs_front_of(disk), disk);
	if (IS_ERR(pool)) {
		zcs_return_free(disk->returning);
		disk->returning = NULL;
		return PTR_ERR(pool);
	}
	disk->pool = pool;
	disk->slots = slots;
	set_capacity_and_notify(disk->gendisk,
				(sector_t)slots << (PAGE_SHIFT - SECTOR_SHIFT));
	return 0;
}

static ssize_t disksize_store(struct device *dev, struct device_attribute *attr,
			      const char *buf, size_t count)
{
	struct zcs_disk *disk = zcs_of(dev);
	char *end;
	u64 size = memparse(buf, &end);
	int err;

	if (end == buf || *skip_spaces(end))
		return -EINVAL;
	mutex_lock(&disk->lock);
	err = zcs_set_size(disk, size);
	mutex_unlock(&disk->lock);
	return err ?: count;
}
static DEVICE_ATTR_RW(disksize);

static int zcs_true(const char *buf)
{
	bool value;
	int err = kstrtobool(buf, &value);

	return err ?: value ? 0 : -EINVAL;
}

static ssize_t reset_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct zcs_disk *disk = zcs_of(dev);
	int err = zcs_true(buf);

	if (err)
		return err;
	mutex_lock(&disk->lock);
	err = zcs_reset(disk);
	mutex_unlock(&disk->lock);
	return err ?: count;
}
static DEVICE_ATTR_WO(reset);

static ssize_t drain_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct zcs_disk *disk = zcs_of(dev);
	int err = zcs_true(buf);

	if (err)
		return err;
	mutex_lock(&disk->lock);
	if (disk->pool) {
		WRITE_ONCE(disk->draining, true);
		/* A store that did not see it is on record after this. */
		synchronize_srcu_expedited(&zcache_srcu);
		err = zcache_swap_pool_drain(disk->pool);
		WRITE_ONCE(disk->draining, false);
	}
	mutex_unlock(&disk->lock);
	return err ?: count;
}
static DEVICE_ATTR_WO(drain);

static ssize_t zc_stat_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	static const struct {
		const char *name;
		enum zcache_page_state state;
	} states[] = {
		{ "pages_live", ZC_PAGE_LIVE },
		{ "pages_stale", ZC_PAGE_STALE },
		{ "pages_lost", ZC_PAGE_LOST },
		{ "pages_rescued", ZC_PAGE_RESCUED },
		{ "pages_bad", ZC_PAGE_BAD },
		{ "pages_busy", ZC_PAGE_BUSY },
	};
	static const struct {
		const char *name;
		enum zcache_counter counter;
	} counters[] = {
		{ "stores", ZC_STORES },
		{ "store_refused", ZC_STORE_REFUSED },
		{ "store_unattached", ZC_STORE_UNATTACHED },
		{ "store_draining", ZC_STORE_DRAINING },
		{ "store_failed", ZC_STORE_FAILED },
		{ "store_stale", ZC_STORE_STALE },
		{ "loads", ZC_LOADS },
		{ "load_rescued", ZC_LOAD_RESCUED },
		{ "load_waited", ZC_LOAD_WAITED },
		{ "load_lost", ZC_LOAD_LOST },
	};
	struct zcs_disk *disk = zcs_of(dev);
	unsigned int i;
	ssize_t len = 0;

	mutex_lock(&disk->lock);
	if (!disk->pool)
		goto unlock;
	len += sysfs_emit_at(buf, len, "pool %u\n", disk->pool->id);
	len += sysfs_emit_at(buf, len, "pages %lu\n", disk->slots);
	for (i = 0; i < ARRAY_SIZE(states); i++)
		len += sysfs_emit_at(buf, len, "%s %lu\n", states[i].name,
				     zcache_swapmap_count(disk->pool->map,
							  states[i].state));
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		len += sysfs_emit_at(buf, len, "%s %llu\n", counters[i].name,
				     zcache_counter_sum(disk->pool,
							counters[i].counter));
	len += sysfs_emit_at(buf, len, "backing_reads %ld\n",
			     atomic_long_read(&disk->backing_reads));
	len += sysfs_emit_at(buf, len, "backing_writes %ld\n",
			     atomic_long_read(&disk->backing_writes));
	len += sysfs_emit_at(buf, len, "backing_errors %ld\n",
			     atomic_long_read(&disk->backing_errors));
	len += sysfs_emit_at(buf, len, "slot_frees %ld\n",
			     atomic_long_read(&disk->slot_frees));
unlock:
	mutex_unlock(&disk->lock);
	return len;
}
static DEVICE_ATTR_RO(zc_stat);

static struct attribute *zcs_disk_attrs[] = {
	&dev_attr_backing_dev.attr,
	&dev_attr_writethrough.attr,
	&dev_attr_disksize.attr,
	&dev_attr_reset.attr,
	&dev_attr_drain.attr,
	&dev_attr_zc_stat.attr,
	NULL
};
ATTRIBUTE_GROUPS(zcs_disk);

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
	int err;

	lockdep_assert_held(&zcs_mutex);
	mutex_lock(&disk->lock);
	err = zcs_reset(disk);
	disk->removed = !err;
	mutex_unlock(&disk->lock);
	if (err)
		return err;
	/* Waits for the attributes, which find it removed. */
	del_gendisk(disk->gendisk);
	put_disk(disk->gendisk);
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
	zcs_major = register_blkdev(0, "zcswap");
	if (zcs_major < 0)
		return zcs_major;
	err = class_register(&zcs_control);
	if (err)
		unregister_blkdev(zcs_major, "zcswap");
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
}
module_exit(zcs_exit);

MODULE_DESCRIPTION("Transcendent memory kept by the host: swap disks");
MODULE_LICENSE("GPL");
