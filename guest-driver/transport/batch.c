// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that a task stores or gets, one or several at once.
 *
 * What takes time is the way to the device and back, so all pages are asked for
 * before any is waited for. A task that has requests under way waits for answers
 * only, never for a slot, so two tasks can't wait for each other.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include "zcache_virtio.h"

/**
 * struct zcv_batch - the pages
 * @dev:	the device
 * @pool:	the pool
 * @opcode:	PUT or GET
 * @io:		the pages; or, if NULL,
 * @gets:	the pages, and
 * @first:	the key of the first of them
 * @nr:		how many
 * @behind:	@gets: how much of the backlog has to be sent before
 * @posted:	how many of them the device was asked for
 * @done:	how many of these have their answer
 * @slots:	the requests under way, oldest first
 */
struct zcv_batch {
	struct zcv_device *dev;
	struct zcache_pool *pool;
	u16 opcode;
	struct zcache_io *io;
	struct zcache_get *gets;
	const struct zcache_key *first;
	unsigned int nr;
	u32 behind;
	unsigned int posted;
	unsigned int done;
	struct list_head slots;
};

static struct zcache_key zcv_batch_key(const struct zcv_batch *b,
				       unsigned int i)
{
	struct zcache_key key;

	if (b->io)
		return b->io[i].key;
	key = *b->first;
	key.index += i;
	return key;
}

static struct zcv_queue *zcv_batch_queue(const struct zcv_batch *b,
					 unsigned int i)
{
	struct zcache_key key = zcv_batch_key(b, i);

	return zcv_queue_of(b->dev, b->pool->id, &key);
}

static struct page *zcv_batch_page(const struct zcv_batch *b, unsigned int i)
{
	return b->io ? b->io[i].page : b->gets[i].page;
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

/* The next page has its answer, or the device was not asked for it. */
static void zcv_batch_end(struct zcv_batch *b, int err)
{
	unsigned int i = b->done++;

	if (b->io)
		b->io[i].err = err;
	else
		b->gets[i].err = err;
	if (b->opcode == ZCACHE_OP_GET)
		zcv_count_get(b->pool, err);
}

/* What the answer in the slot of the next page says. */
static void zcv_batch_judge(struct zcv_batch *b, struct zcv_queue *q,
			    struct zcv_slot *slot)
{
	zcv_batch_end(b, b->opcode == ZCACHE_OP_PUT ? zcv_put_answer(q, slot) :
		      zcv_get_answer(q, slot, zcv_batch_page(b, b->done)));
}

/* How many of the pages that were not asked for come next on this queue? */
static unsigned int zcv_batch_next(const struct zcv_batch *b,
				   const struct zcv_queue *q)
{
	unsigned int i = b->posted;

	while (i < b->nr && zcv_batch_queue(b, i) == q)
		i++;
	return i - b->posted;
}

/*
 * Return: 0; -EIO: the device is lost; for ephemeral pools too -ENOENT: nothing
 * can be got from it; -EAGAIN: the backlog has something that concerns a page.
 */
static int zcv_batch_may_post(const struct zcv_batch *b,
			      const struct zcv_queue *q)
{
	lockdep_assert_held(&q->lock);
	if (zcv_is_lost(b->dev))
		return -EIO;
	if (zcache_pool_persistent(b->pool))
		return 0;
	if (atomic_long_read(&b->pool->poison))
		return -ENOENT;
	return zcv_backlog_sent(&q->backlog, b->behind) ? 0 : -EAGAIN;
}

/* Takes slots for so many pages, as far as there are any. */
static int zcv_batch_take(struct zcv_batch *b, struct zcv_queue *q,
			  unsigned int nr, struct list_head *slots)
{
	struct zcv_slot *slot;
	unsigned long flags;
	int err;

	spin_lock_irqsave(&q->lock, flags);
	zcv_reap(q);
	zcv_backlog_send(q);
	err = zcv_batch_may_post(b, q);
	for (; !err && nr; nr--) {
		slot = zcv_take_page_slot(q, 0);
		if (slot)
			list_add_tail(&slot->node, slots);
		else
			err = -EAGAIN;
	}
	zcv_unlock(q, flags);
	return err;
}

/* Fills the slots in; not under the queue's lock, for it copies pages. */
static void zcv_batch_fill(struct zcv_batch *b, struct list_head *slots)
{
	unsigned int i = b->posted;
	struct zcache_key key;
	struct zcv_slot *slot;
	u16 flags;

	list_for_each_entry(slot, slots, node) {
		key = zcv_batch_key(b, i);
		flags = b->io ? 0 : b->gets[i].flags;
		slot->out.req = zcv_key_req(b->opcode, flags, b->pool->id, &key,
					    0);
		if (b->opcode == ZCACHE_OP_PUT)
			copy_highpage(slot->page, zcv_batch_page(b, i));
		i++;
	}
}

/* Posts the slots, or gives them back. */
static int zcv_batch_send(struct zcv_batch *b, struct zcv_queue *q,
			  struct list_head *slots)
{
	struct zcv_slot *slot, *next;
	unsigned long flags;
	int err;

	spin_lock_irqsave(&q->lock, flags);
	err = zcv_batch_may_post(b, q);
	list_for_each_entry_safe(slot, next, slots, node) {
		list_del_init(&slot->node);
		if (err) {
			zcv_free_slot(q, slot);
		} else if (zcv_post_awaited(q, slot)) {
			list_add_tail(&slot->node, &b->slots);
			b->posted++;
		} else {
			/* Can't be, see zcv_queue: a slot has room. */
			zcv_broken(b->dev, "has a ring that takes nothing");
			err = -EIO;
		}
	}
	zcv_unlock(q, flags);
	return err;
}

/*
 * Asks for the next pages that are on one queue, as far as there are slots.
 *
 * Return: as zcv_batch_may_post(), or -EAGAIN: no slot is free.
 */
static int zcv_batch_post(struct zcv_batch *b)
{
	struct zcv_queue *q = zcv_batch_queue(b, b->posted);
	LIST_HEAD(slots);
	int err, sent;

	err = zcv_batch_take(b, q, zcv_batch_next(b, q), &slots);
	if (list_empty(&slots))
		return err;
	zcv_batch_fill(b, &slots);
	sent = zcv_batch_send(b, q, &slots);
	return sent ?: err;
}

static struct zcv_slot *zcv_batch_oldest(struct zcv_batch *b)
{
	return list_first_entry_or_null(&b->slots, struct zcv_slot, node);
}

/* Whether the oldest request under way is one of this queue, and answered. */
static bool zcv_batch_answered(struct zcv_batch *b, struct zcv_queue *q)
{
	struct zcv_slot *slot = zcv_batch_oldest(b);

	return slot && zcv_batch_queue(b, b->done) == q &&
	       zcv_slot_answered(slot);
}

/* Waits for the oldest request under way, and takes what is answered by then. */
static int zcv_batch_collect(struct zcv_batch *b)
{
	struct zcv_queue *q = zcv_batch_queue(b, b->done);
	struct zcv_slot *slot, *next;
	unsigned long flags;
	LIST_HEAD(free);

	if (zcv_call_wait(q, zcv_batch_oldest(b))) {
		zcv_batch_end(b, -EIO);
		return -EIO;
	}
	while (zcv_batch_answered(b, q)) {
		slot = zcv_batch_oldest(b);
		list_move_tail(&slot->node, &free);
		zcv_batch_judge(b, q, slot);
	}
	spin_lock_irqsave(&q->lock, flags);
	list_for_each_entry_safe(slot, next, &free, node)
		zcv_free_slot(q, slot);
	zcv_unlock(q, flags);
	return 0;
}

/* No more is asked for. What is under way stays with the device. */
static void zcv_batch_fail(struct zcv_batch *b, int err)
{
	struct zcv_slot *slot;

	while ((slot = zcv_batch_oldest(b))) {
		struct zcv_queue *q = zcv_batch_queue(b, b->done);

		if (zcv_call_abandon(q, slot)) {
			zcv_batch_end(b, -EIO);
		} else {
			list_del_init(&slot->node);
			zcv_batch_judge(b, q, slot);
			zcv_call_end(q, slot);
		}
	}
	while (b->done < b->nr) {
		if (err == -ENOENT) {
			b->gets[b->done++].err = err;
			zcache_count(b->pool, ZC_GET_POISONED);
		} else {
			zcv_batch_end(b, err);
		}
	}
}

/*
 * The time has an end: slots get free as the device answers, and if it does not
 * it is given up.
 */
static void zcv_batch_run(struct zcv_batch *b)
{
	int err;

	INIT_LIST_HEAD(&b->slots);
	while (b->done < b->nr) {
		do {
			err = b->posted < b->nr ? zcv_batch_post(b) : -ENODATA;
		} while (!err);
		if (!list_empty(&b->slots))
			err = zcv_batch_collect(b);
		else if (err == -EAGAIN)
			usleep_range(ZCV_SLOT_SLEEP, 2 * ZCV_SLOT_SLEEP);
		if (err && err != -EAGAIN) {
			zcv_batch_fail(b, err);
			return;
		}
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
 * Context: Process context; sleeps.
 */
void zcv_get_many(struct zcache_transport *t, struct zcache_pool *pool,
		  const struct zcache_key *key, struct zcache_get *gets,
		  unsigned int nr)
{
	struct zcv_queue *q = zcv_queue_of(to_zcv(t), pool->id, key);
	struct zcv_batch b = {
		.dev = to_zcv(t),
		.pool = pool,
		.opcode = ZCACHE_OP_GET,
		.gets = gets,
		.first = key,
		.nr = nr,
	};
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	b.behind = zcv_backlog_after(&q->backlog, pool->id, key, nr);
	spin_unlock_irqrestore(&q->lock, flags);
	zcv_batch_run(&b);
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

/**
 * zcv_swap_many - stores or gets pages of a persistent pool
 * @t:		the device
 * @pool:	the pool
 * @opcode:	ZCACHE_OP_PUT or ZCACHE_OP_GET
 * @io:		the pages; sets err of each
 * @nr:		how many
 *
 * Context: Process context; sleeps; allocates nothing.
 */
void zcv_swap_many(struct zcache_transport *t, struct zcache_pool *pool,
		   u16 opcode, struct zcache_io *io, unsigned int nr)
{
	struct zcv_batch b = {
		.dev = to_zcv(t),
		.pool = pool,
		.opcode = opcode,
		.io = io,
		.nr = nr,
	};

	zcv_batch_run(&b);
}
