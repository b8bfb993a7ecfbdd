// SPDX-License-Identifier: GPL-2.0
/*
 * Gets, of one page or of several at once.
 *
 * What takes time is the way to the device and back, so all pages are asked for
 * with one notification before any is waited for. A task that has requests
 * under way waits for answers only, never for a slot, so two tasks can't wait
 * for each other.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include "zcache_virtio.h"

/**
 * struct zcv_gets - pages that a task gets
 * @call:	queue, and the request that was posted last
 * @pool:	the pool
 * @key:	of the first page
 * @gets:	the pages
 * @nr:		how many
 * @posted:	how many of them were asked for
 * @done:	how many of these have their answer
 * @slots:	the requests under way, oldest first
 */
struct zcv_gets {
	struct zcv_call call;
	struct zcache_pool *pool;
	const struct zcache_key *key;
	struct zcache_get *gets;
	unsigned int nr;
	unsigned int posted;
	unsigned int done;
	struct list_head slots;
};

/* Return: as &zcache_transport_ops.get. */
int zcv_get_answer(struct zcv_queue *q, struct zcv_slot *slot,
		   struct page *page)
{
	u16 status = le16_to_cpu(slot->result.status);

	switch (status) {
	case ZCACHE_S_OK:
		if (slot->used < sizeof(slot->in) + ZCACHE_PAGE_SIZE) {
			zcv_lost(q->dev, "answers a get without the page");
			return -EIO;
		}
		copy_highpage(page, slot->page);
		return 0;
	case ZCACHE_S_MISS:
	case ZCACHE_S_NO_POOL:
		return -ENOENT;
	case ZCACHE_S_UNSUPPORTED:
	case ZCACHE_S_INVALID:
	case ZCACHE_S_MALFORMED:
	case ZCACHE_S_NO_SESSION:
		zcv_bad_status(q, status);
		return -EIO;
	default:
		return -EBADMSG;
	}
}

static void zcv_count_get(struct zcache_pool *pool, int err)
{
	if (zcache_pool_persistent(pool))
		return;
	zcache_count(pool, ZC_GETS);
	switch (err) {
	case 0:
		zcache_count(pool, ZC_GET_HITS);
		break;
	case -EIO:
		zcache_count(pool, ZC_GET_FAILED);
		break;
	default:
		zcache_count(pool, ZC_GET_MISSES);
		break;
	}
}

/* Asks for as many pages as there are slots. Return: 0 or as zcv_call_post(). */
static int zcv_gets_post(struct zcv_gets *g)
{
	struct zcv_queue *q = g->call.q;
	struct zcache_key key = *g->key;
	struct zcv_slot *slot;
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&q->lock, flags);
	while (g->posted < g->nr) {
		key.index = g->key->index + g->posted;
		g->call.req = zcv_key_req(ZCACHE_OP_GET,
					  g->gets[g->posted].flags,
					  g->pool->id, &key, 0);
		slot = zcv_call_post(&g->call);
		if (IS_ERR(slot)) {
			err = PTR_ERR(slot);
			break;
		}
		list_add_tail(&slot->node, &g->slots);
		g->posted++;
	}
	zcv_unlock(q, flags);
	g->call.deadline = jiffies + zcv_timeout();
	return err;
}

/* The oldest request under way, if it is answered. */
static struct zcv_slot *zcv_gets_answered(struct zcv_gets *g)
{
	struct zcv_slot *slot = list_first_entry_or_null(&g->slots,
							 struct zcv_slot, node);

	/* Pairs with the release in zcv_reap(): result and page. */
	if (slot && smp_load_acquire(&slot->state) == ZCV_SLOT_ANSWERED)
		return slot;
	return NULL;
}

/* Waits for the oldest request under way, and takes whatever is answered. */
static int zcv_gets_collect(struct zcv_gets *g)
{
	struct zcv_queue *q = g->call.q;
	struct zcv_slot *slot, *next;
	struct zcache_get *get;
	unsigned long flags;
	LIST_HEAD(free);

	slot = list_first_entry(&g->slots, struct zcv_slot, node);
	if (zcv_call_wait(&g->call, slot))
		return -EIO;
	while ((slot = zcv_gets_answered(g))) {
		get = &g->gets[g->done++];
		get->err = zcv_get_answer(q, slot, get->page);
		zcv_count_get(g->pool, get->err);
		list_move_tail(&slot->node, &free);
	}
	spin_lock_irqsave(&q->lock, flags);
	list_for_each_entry_safe(slot, next, &free, node)
		zcv_free_slot(q, slot);
	zcv_unlock(q, flags);
	return 0;
}

/* What was not answered, and will not be. */
static void zcv_gets_fail(struct zcv_gets *g, int err)
{
	struct zcv_slot *slot, *next;

	/* These stay with the device until it is reset. */
	list_for_each_entry_safe(slot, next, &g->slots, node)
		list_del_init(&slot->node);
	for (; g->done < g->nr; g->done++) {
		g->gets[g->done].err = err;
		if (err == -ENOENT)
			zcache_count(g->pool, ZC_GET_POISONED);
		else
			zcv_count_get(g->pool, err);
	}
}

/**
 * zcv_get_many - gets consecutive pages of one object
 * @t:		the device
 * @pool:	the pool
 * @key:	of the first page
 * @gets:	the pages
 * @nr:		how many
 *
 * Context: Process context; sleeps. The time has an end: slots get free as the
 *	    device answers, and if it does not it is given up.
 */
void zcv_get_many(struct zcache_transport *t, struct zcache_pool *pool,
		  const struct zcache_key *key, struct zcache_get *gets,
		  unsigned int nr)
{
	struct zcv_queue *q = zcv_queue_of(to_zcv(t), pool->id, key);
	struct zcv_gets g = {
		.call.q = q,
		.call.pool = zcache_pool_persistent(pool) ? NULL : pool,
		.pool = pool,
		.key = key,
		.gets = gets,
		.nr = nr,
	};
	unsigned long flags;
	int err;

	INIT_LIST_HEAD(&g.slots);
	spin_lock_irqsave(&q->lock, flags);
	g.call.behind = zcv_backlog_after(&q->backlog, pool->id, key, nr);
	spin_unlock_irqrestore(&q->lock, flags);
	while (g.done < nr) {
		err = zcv_gets_post(&g);
		if (!list_empty(&g.slots))
			err = zcv_gets_collect(&g);
		else if (err == -EAGAIN)
			usleep_range(ZCV_SLOT_SLEEP, 2 * ZCV_SLOT_SLEEP);
		if (err && err != -EAGAIN) {
			zcv_gets_fail(&g, err);
			return;
		}
	}
}

/**
 * zcv_get - gets one page
 * @t:		the device
 * @pool:	the pool
 * @flags:	ZCACHE_GET_*
 * @key:	the page's
 * @page:	where to
 *
 * Context: Process context; sleeps.
 * Return: As &zcache_transport_ops.get.
 */
int zcv_get(struct zcache_transport *t, struct zcache_pool *pool, u16 flags,
	    const struct zcache_key *key, struct page *page)
{
	struct zcache_get get = { .page = page, .flags = flags };

	zcv_get_many(t, pool, key, &get, 1);
	return get.err;
}
