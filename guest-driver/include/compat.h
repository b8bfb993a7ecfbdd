/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels this driver is built for. Kbuild looks in
 * their headers for what is different and defines ZCACHE_HAS_*; nothing asks for
 * a version. The numbers in comments are those of unpatched kernels.
 */
#ifndef _ZCACHE_COMPAT_H
#define _ZCACHE_COMPAT_H

#include <linux/blkdev.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

/**
 * zcache_find_vqs - sets up virtqueues without callbacks
 * @vdev:	the device
 * @nvqs:	how many
 * @vqs:	set to the virtqueues
 * @names:	theirs
 *
 * Context: Process context; sleeps.
 * Return: 0; -ENOENT: the device has fewer; another error.
 */
static inline int zcache_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
				  struct virtqueue **vqs,
				  const char * const *names)
{
#ifdef ZCACHE_HAS_VIRTQUEUE_INFO
	struct virtqueue_info *infos;
	unsigned int i;
	int err;

	infos = kcalloc(nvqs, sizeof(*infos), GFP_KERNEL);
	if (!infos)
		return -ENOMEM;
	for (i = 0; i < nvqs; i++)
		infos[i].name = names[i];
	err = virtio_find_vqs(vdev, nvqs, vqs, infos, NULL);
	kfree(infos);
	return err;
#else
	vq_callback_t **callbacks;
	int err;

	callbacks = kcalloc(nvqs, sizeof(*callbacks), GFP_KERNEL);
	if (!callbacks)
		return -ENOMEM;
	err = virtio_find_vqs(vdev, nvqs, vqs, callbacks, names, NULL);
	kfree(callbacks);
	return err;
#endif
}

/**
 * struct zcache_shrinker - a shrinker and whom it belongs to
 * @private:	its owner's
 * @base:	embedded up to 6.6, allocated by the kernel since
 */
struct zcache_shrinker {
	void *private;
#ifdef ZCACHE_HAS_SHRINKER_ALLOC
	struct shrinker *base;
#else
	struct shrinker base;
#endif
};

static inline void *zcache_shrinker_private(struct shrinker *base)
{
#ifdef ZCACHE_HAS_SHRINKER_ALLOC
	return base->private_data;
#else
	return container_of(base, struct zcache_shrinker, base)->private;
#endif
}

/**
 * zcache_shrinker_add - registers a shrinker
 * @s:		the shrinker, zeroed
 * @count:	its count_objects
 * @scan:	its scan_objects
 * @private:	what zcache_shrinker_private() gives back
 *
 * Context: Process context; sleeps.
 * Return: 0 or -ENOMEM.
 */
static inline int
zcache_shrinker_add(struct zcache_shrinker *s,
		    unsigned long (*count)(struct shrinker *,
					   struct shrink_control *),
		    unsigned long (*scan)(struct shrinker *,
					  struct shrink_control *),
		    void *private)
{
	s->private = private;
#ifdef ZCACHE_HAS_SHRINKER_ALLOC
	s->base = shrinker_alloc(0, "zcache");
	if (!s->base)
		return -ENOMEM;
	s->base->count_objects = count;
	s->base->scan_objects = scan;
	s->base->private_data = private;
	shrinker_register(s->base);
	return 0;
#else
	s->base.count_objects = count;
	s->base.scan_objects = scan;
	s->base.seeks = DEFAULT_SEEKS;
#ifdef ZCACHE_HAS_SHRINKER_NAME
	return register_shrinker(&s->base, "zcache");
#else
	return register_shrinker(&s->base);
#endif
#endif
}

static inline void zcache_shrinker_remove(struct zcache_shrinker *s)
{
#ifdef ZCACHE_HAS_SHRINKER_ALLOC
	shrinker_free(s->base);
#else
	unregister_shrinker(&s->base);
#endif
}

/* The callbacks of a class attribute take their class and attribute as const. */
#ifdef ZCACHE_HAS_CLASS_CONST
#define ZCACHE_CLASS_CONST const
#else
#define ZCACHE_CLASS_CONST
#endif

#ifndef ZCACHE_NATIVE_HOOKS
/**
 * struct zcache_backing - a block device that a swap disk has open
 * @bdev:	the device; NULL: none
 * @opened:	what keeps it open, since 6.7
 */
struct zcache_backing {
	struct block_device *bdev;
#if defined(ZCACHE_HAS_BDEV_FILE)
	struct file *opened;
#elif defined(ZCACHE_HAS_BDEV_HANDLE)
	struct bdev_handle *opened;
#endif
};

/**
 * zcache_backing_open - opens a block device for reading, writing, and us alone
 * @b:		the device, not open
 * @path:	its file
 * @holder:	who has it
 *
 * Context: Process context; sleeps.
 * Return: 0 or an error.
 */
static inline int zcache_backing_open(struct zcache_backing *b,
				      const char *path, void *holder)
{
#if defined(ZCACHE_HAS_BDEV_FILE)
	b->opened = bdev_file_open_by_path(path, BLK_OPEN_READ | BLK_OPEN_WRITE,
					   holder, NULL);
	if (IS_ERR(b->opened))
		return PTR_ERR(b->opened);
	b->bdev = file_bdev(b->opened);
#elif defined(ZCACHE_HAS_BDEV_HANDLE)
	b->opened = bdev_open_by_path(path, BLK_OPEN_READ | BLK_OPEN_WRITE,
				      holder, NULL);
	if (IS_ERR(b->opened))
		return PTR_ERR(b->opened);
	b->bdev = b->opened->bdev;
#else
	struct block_device *bdev;

#ifdef ZCACHE_HAS_BLK_HOLDER_OPS
	bdev = blkdev_get_by_path(path, BLK_OPEN_READ | BLK_OPEN_WRITE, holder,
				  NULL);
#else
	bdev = blkdev_get_by_path(path, FMODE_READ | FMODE_WRITE | FMODE_EXCL,
				  holder);
#endif
	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	b->bdev = bdev;
#endif
	return 0;
}

/* @holder:	as at zcache_backing_open() */
static inline void zcache_backing_close(struct zcache_backing *b, void *holder)
{
#if defined(ZCACHE_HAS_BDEV_FILE)
	bdev_fput(b->opened);
#elif defined(ZCACHE_HAS_BDEV_HANDLE)
	bdev_release(b->opened);
#elif defined(ZCACHE_HAS_BLK_HOLDER_OPS)
	blkdev_put(b->bdev, holder);
#else
	blkdev_put(b->bdev, FMODE_READ | FMODE_WRITE | FMODE_EXCL);
#endif
	b->bdev = NULL;
}

/**
 * zcache_swap_gendisk - allocates a bio-based disk whose bios have whole pages
 *
 * Context: Process context; sleeps.
 * Return: The disk or an ERR_PTR.
 */
static inline struct gendisk *zcache_swap_gendisk(void)
{
#ifdef ZCACHE_HAS_BLK_LIMITS
	struct queue_limits limits = {
#ifdef ZCACHE_HAS_BLK_FEATURES
		.features = BLK_FEAT_STABLE_WRITES,
#endif
		.logical_block_size = PAGE_SIZE,
		.physical_block_size = PAGE_SIZE,
		.io_min = PAGE_SIZE,
		.io_opt = PAGE_SIZE,
		.dma_alignment = PAGE_SIZE - 1,
		.max_hw_discard_sectors = UINT_MAX,
		.discard_granularity = PAGE_SIZE,
	};
	struct gendisk *disk = blk_alloc_disk(&limits, NUMA_NO_NODE);

	if (IS_ERR(disk))
		return disk;
#else
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);

	if (!disk)
		return ERR_PTR(-ENOMEM);
	blk_queue_logical_block_size(disk->queue, PAGE_SIZE);
	blk_queue_physical_block_size(disk->queue, PAGE_SIZE);
	blk_queue_dma_alignment(disk->queue, PAGE_SIZE - 1);
	blk_queue_max_discard_sectors(disk->queue, UINT_MAX);
	disk->queue->limits.discard_granularity = PAGE_SIZE;
#endif
#ifndef ZCACHE_HAS_BLK_FEATURES
	blk_queue_flag_set(QUEUE_FLAG_STABLE_WRITES, disk->queue);
	blk_queue_flag_set(QUEUE_FLAG_NONROT, disk->queue);
#endif
	return disk;
}

/* Defines a function that is called when somebody has closed a disk. */
#ifdef ZCACHE_HAS_RELEASE_DISK
#define ZCACHE_DEFINE_RELEASE(name, disk) \
	static void name(struct gendisk *(disk))
#else
#define ZCACHE_DEFINE_RELEASE(name, disk) \
	static void name(struct gendisk *(disk), fmode_t mode)
#endif

/*
 * The kernel tells the driver of a disk which swap slots it lets go of. Where it
 * does not, it discards them when there are many side by side (swapon
 * --discard=pages), which the swap disk makes the same of.
 */
#if defined(ZCACHE_HAS_SWAP_NOTIFY) && !defined(ZCACHE_SABOTAGE_NOTIFY)
#define ZCACHE_SWAP_NOTIFY
#endif

/**
 * zcache_account_io - counts a transfer that has ended
 * @bdev:	of what device
 * @op:		REQ_OP_*
 * @sectors:	how much
 * @start:	jiffies when it began
 */
static inline void zcache_account_io(struct block_device *bdev, enum req_op op,
				     unsigned int sectors, unsigned long start)
{
#ifdef ZCACHE_HAS_ACCT_LATE
	bdev_start_io_acct(bdev, op, start);
	bdev_end_io_acct(bdev, op, sectors, start);
#else
	bdev_start_io_acct(bdev, sectors, op, start);
	bdev_end_io_acct(bdev, op, start);
#endif
}
#endif /* !ZCACHE_NATIVE_HOOKS */

/* The page cache of a block device. */
static inline struct address_space *zcache_bdev_mapping(struct block_device *b)
{
#ifdef ZCACHE_HAS_BD_MAPPING
	return b->bd_mapping;
#else
	return b->bd_inode->i_mapping;
#endif
}

#endif /* _ZCACHE_COMPAT_H */
