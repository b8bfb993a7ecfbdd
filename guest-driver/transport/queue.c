// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of a queue: slots and backlog.
 *
 * Slots are allocated when the device is probed and never again, because most
 * requests come from places that must not allocate. The ring carries them
 * without indirect tables, which virtqueue_add() would allocate (probe.c
 * declines the feature): a request with a page takes three descriptors, one
 * without takes two.
 */
#include <linux/slab.h>
#include "zcache_virtio.h"

/* One page slot in so many is kept for gets and stores. */
#define RESERVE_PART	8

static struct zcv_slot *zcv_slot_alloc(struct zcv_queue *q, bool with_page)
{
	struct zcv_slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

	if (!slot)
		return NULL;
	if (with_page) {
		slot->page = alloc_page(GFP_KERNEL);
		if (!slot->page) {
			kfree(slot);
			return NULL;
		}
	}
	slot->out.batch.count = cpu_to_le16(1);
	q->slots[q->nr_slots++] = slot;
	return slot;
}

/**
 * zcv_queue_init - allocates slots and backlog of a queue
 * @q:		the queue, zeroed
 * @dev:	its device
 * @ring:	how many entries its ring has
 * @max_pages:	how many bounce pages it may have
 *
 * Of a ring's entries at least a quarter of what puts and gets take is left
 * to requests without a page, that is to invalidations.
 *
 * Context: Process context.
 * Return: 0, -ENOMEM, or -EINVAL if the ring is too small.
 */
int zcv_queue_init(struct zcv_queue *q, struct zcv_device *dev,
		   unsigned int ring, unsigned int max_pages)
{
	unsigned int pages = min(ring / (ZCV_DESCS_PAGE + 1), max_pages);
	unsigned int small = (ring - pages * ZCV_DESCS_PAGE) / ZCV_DESCS_SMALL;
	unsigned int i;

	if (pages < 2)
		return -EINVAL;
	small = min(small, pages);

	q->nr_pages = pages;
	q->gave_up_at = U32_MAX;
	q->gave_up_when = jiffies - 1;
	q->dev = dev;
	q->ring = ring;
	spin_lock_init(&q->lock);
	q->reserve = max(pages / RESERVE_PART, 1U);
	if (zcv_backlog_init(&q->backlog, dev->nr_queues))
		return -ENOMEM;
	q->slots = kcalloc(pages + small, sizeof(*q->slots), GFP_KERNEL);
	if (!q->slots)
		goto fail;
	for (i = 0; i < pages + small; i++)
		if (!zcv_slot_alloc(q, i < pages))
			goto fail;
	return 0;
fail:
	zcv_queue_free(q);
	return -ENOMEM;
}

/**
 * zcv_queue_start - begins to use a queue, or does so anew after a reset
 * @q:	the queue, unused; what the device had before the reset is ours again
 * @vq:	its virtqueue
 *
 * Context: Process context; allocates nothing.
 * Return: 0; -EINVAL: the ring has become smaller.
 */
int zcv_queue_start(struct zcv_queue *q, struct virtqueue *vq)
{
	unsigned int i;

	if (virtqueue_get_vring_size(vq) < q->ring)
		return -EINVAL;
	q->vq = vq;
	q->posted = 0;
	q->answered = 0;
	q->unkicked = 0;
	q->urgent = false;
	q->nr_free_pages = 0;
	INIT_LIST_HEAD(&q->free_pages);
	INIT_LIST_HEAD(&q->free_small);
	for (i = 0; i < q->nr_slots; i++)
		zcv_free_slot(q, q->slots[i]);
	zcv_backlog_forget(&q->backlog);
	return 0;
}

/**
 * zcv_queue_free - frees slots and backlog
 * @q:	the queue, which the device does not know any more
 *
 * Context: Process context.
 */
void zcv_queue_free(struct zcv_queue *q)
{
	unsigned int i;

	for (i = 0; i < q->nr_slots; i++) {
		if (q->slots[i]->page)
			__free_page(q->slots[i]->page);
		kfree(q->slots[i]);
	}
	kfree(q->slots);
	q->slots = NULL;
	q->nr_slots = 0;
	zcv_backlog_free(&q->backlog);
}
