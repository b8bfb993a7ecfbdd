// SPDX-License-Identifier: GPL-2.0
/*
 * Setting up a swap disk, by its attributes in /sys/block/zcswapN: disksize comes
 * last.
 */
#include <linux/slab.h>
#include <linux/sysfs.h>
#include "swapdisk.h"

struct zcs_disk *zcs_of(struct device *dev)
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

/* What a disk needs besides its pool. */
static int zcs_prepare(struct zcs_disk *disk)
{
	if (!disk->backing.bdev) {
		disk->header = alloc_page(GFP_KERNEL | __GFP_ZERO);
		return disk->header ? 0 : -ENOMEM;
	}
	if (disk->writethrough)
		return 0;
	disk->returning = zcs_return_alloc(disk);
	return disk->returning ? 0 : -ENOMEM;
}

static void zcs_unprepare(struct zcs_disk *disk)
{
	zcs_return_free(disk->returning);
	disk->returning = NULL;
	if (disk->header)
		__free_page(disk->header);
	disk->header = NULL;
}

/**
 * zcs_reset - takes size, pool and backing device from a disk
 * @disk:	the disk
 *
 * With its size 0 under open_mutex no bio gets through to us any more.
 *
 * Context: Process context, @disk->lock held.
 * Return: 0; -EBUSY: somebody has it open.
 */
int zcs_reset(struct zcs_disk *disk)
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
		zcs_room_exit(disk);
		disk->slots = 0;
		zcache_pool_remove(pool->id);
		disk->pool = NULL;
	}
	zcs_unprepare(disk);
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
	int err;

	lockdep_assert_held(&disk->lock);
	if (disk->removed)
		return -ENODEV;
	if (disk->pool)
		return -EBUSY;
	if (!slots || (disk->writethrough && !disk->backing.bdev))
		return -EINVAL;
	err = zcs_prepare(disk);
	if (err)
		return err;
	pool = zcache_swap_pool_add(slots, zcs_front_of(disk), disk);
	if (IS_ERR(pool)) {
		zcs_unprepare(disk);
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
		WRITE_ONCE(disk->drains, disk->drains + 1);
		/* A store that did not see it is on record after this. */
		synchronize_srcu_expedited(&zcache_srcu);
		err = zcache_swap_pool_drain(disk->pool);
		WRITE_ONCE(disk->draining, false);
	}
	mutex_unlock(&disk->lock);
	return err ?: count;
}
static DEVICE_ATTR_WO(drain);

static struct attribute *zcs_disk_attrs[] = {
	&dev_attr_backing_dev.attr,
	&dev_attr_writethrough.attr,
	&dev_attr_disksize.attr,
	&dev_attr_reset.attr,
	&dev_attr_drain.attr,
	&dev_attr_zc_stat.attr,
	NULL
};

static const struct attribute_group zcs_disk_group = {
	.attrs = zcs_disk_attrs,
};

const struct attribute_group *zcs_disk_groups[] = {
	&zcs_disk_group,
	NULL
};
