// SPDX-License-Identifier: GPL-2.0
/*
 * Which block each page frame holds: an entry of 16 bytes for each frame, and a
 * hash of chains from blocks to frames. One table for all targets, allocated
 * with the first of them and never in the I/O path.
 *
 * An entry says: this frame was read from, or written to, this block, and
 * nothing has changed the block since. With a hash it also says what the block
 * holds. Everything that changes a block removes the entries of it, so an entry
 * that is left over in a frame that was used for something else is harmless:
 * the page is put only if it has the block's content.
 *
 * Locking. A chain, and the fields of entries in it, change under the lock of
 * its bucket, taken with interrupts off: probes and completions take it. It
 * nests inside the page tree's lock and outside the transport's, for a put is
 * made under it (dmz_frame_evict() says why). Membership in a chain is the
 * truth: who comes from a frame reads the block without a lock, locks the
 * bucket, and looks for the frame in the chain. A free frame is claimed with
 * cmpxchg on the target's id and linked after that.
 *
 * Frames of memory that was plugged in after the table was made have no entry.
 */
#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>
#include "dm_zcache.h"

#define NR_LOCKS	256

/**
 * struct dmz_frame - what is known of a page frame
 * @next:	next in the chain, or DMZ_NO_FRAME
 * @hash:	of the content, if @known
 * @block_low:	the block, with
 * @block_high: its upper bits
 * @target:	id of its target, or 0: nothing is known, the rest is void
 * @known:	the transfer is over, and @hash valid
 */
struct dmz_frame {
	u32 next;
	u32 hash;
	u32 block_low;
	u8 block_high;
	u8 target;
	u16 known;
};

struct dmz_lock {
	spinlock_t lock;	/* see above */
} ____cacheline_aligned_in_smp;

static struct dmz_lock dmz_locks[NR_LOCKS];
static struct dmz_frame *dmz_frames;
static u32 *dmz_heads;
static unsigned long dmz_nr_frames;
static unsigned int dmz_head_bits;

static u64 dmz_frame_block(const struct dmz_frame *f)
{
	return (u64)READ_ONCE(f->block_high) << 32 | READ_ONCE(f->block_low);
}

static u32 dmz_bucket(u8 target, u64 block)
{
	return hash_64(block | (u64)target << 56, dmz_head_bits);
}

/* The lock of a bucket, which has others too. */
static spinlock_t *dmz_lock(u32 bucket)
{
	return &dmz_locks[bucket % NR_LOCKS].lock;
}

static bool dmz_holds(const struct dmz_frame *f, u8 target, u64 block)
{
	return f->target == target && dmz_frame_block(f) == block;
}

/* The lock of the bucket held; @link points to the frame. */
static void dmz_unlink(u32 *link)
{
	struct dmz_frame *f = &dmz_frames[*link];

	*link = f->next;
	/* Pairs with the cmpxchg that claims it: it is in no chain. */
	smp_store_release(&f->target, 0);
}

static u32 *dmz_find(u32 bucket, unsigned long pfn)
{
	u32 *link;

	for (link = &dmz_heads[bucket]; *link != DMZ_NO_FRAME;
	     link = &dmz_frames[*link].next)
		if (*link == pfn)
			return link;
	return NULL;
}

/**
 * dmz_frame_recorded - is anything known of this frame?
 * @pfn:	the frame
 *
 * Context: Any.
 */
bool dmz_frame_recorded(unsigned long pfn)
{
	return pfn < dmz_nr_frames && READ_ONCE(dmz_frames[pfn].target);
}

/* The bucket in whose chain a recorded frame was; look for it there. */
static u32 dmz_bucket_of(unsigned long pfn)
{
	struct dmz_frame *f = &dmz_frames[pfn];

	return dmz_bucket(READ_ONCE(f->target), dmz_frame_block(f));
}

/**
 * dmz_frame_forget - removes what is known of a frame
 * @pfn:	the frame
 *
 * Context: Any.
 */
void dmz_frame_forget(unsigned long pfn)
{
	unsigned long flags;
	u32 bucket, *link;

	if (!dmz_frame_recorded(pfn))
		return;
	bucket = dmz_bucket_of(pfn);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, pfn);
	if (link)
		dmz_unlink(link);
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
}

static bool dmz_frame_enter(u8 target, unsigned long pfn, u64 block, u32 hash,
			    bool known)
{
	struct dmz_frame *f;
	unsigned long flags;
	u32 bucket;

	if (pfn >= dmz_nr_frames)
		return false;
	dmz_frame_forget(pfn);
	f = &dmz_frames[pfn];
	if (cmpxchg(&f->target, 0, target))
		return false;
	bucket = dmz_bucket(target, block);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	WRITE_ONCE(f->block_low, block);
	WRITE_ONCE(f->block_high, block >> 32);
	f->hash = hash;
	f->known = known;
	f->next = dmz_heads[bucket];
	dmz_heads[bucket] = pfn;
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
	return true;
}

/**
 * dmz_frame_record - a transfer between a frame and a block begins
 * @t:		the target
 * @pfn:	the frame
 * @block:	the block
 *
 * Recorded before the transfer, so that a change of the block meanwhile finds
 * the entry and removes it.
 *
 * Context: Any. The page can't be evicted before the transfer ends.
 * Return: false if there is no room for it.
 */
bool dmz_frame_record(struct dmz_target *t, unsigned long pfn, u64 block)
{
	return dmz_frame_enter(t->id, pfn, block, 0, false);
}

/**
 * dmz_frame_know - records the content of a frame, if its entry is still there
 * @t:		the target
 * @pfn:	the frame
 * @block:	the block that it was recorded for
 * @hash:	its content
 * @put:	put=read: the page, to put now instead of when it is evicted
 *
 * Context: Any.
 */
void dmz_frame_know(struct dmz_target *t, unsigned long pfn, u64 block,
		    u32 hash, struct page *put)
{
	u32 bucket = dmz_bucket(t->id, block), *link;
	struct dmz_frame *f;
	unsigned long flags;

	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, pfn);
	f = link ? &dmz_frames[pfn] : NULL;
	if (f && dmz_holds(f, t->id, block)) {
		f->hash = hash;
		f->known = true;
		if (put) {
			dmz_unlink(link);
			dmz_put(t, block, put);
		}
	}
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
}

/**
 * dmz_frame_evict - reclaim evicts a page: puts it if it is what its block holds
 * @pfn:	its frame
 * @hash:	of its content now
 * @page:	the page, which nothing changes any more
 *
 * The put is made under the lock of the bucket. An invalidation of the block
 * either had it before, and the entry is gone; or takes it later, and posts its
 * flush behind the put, on the same queue.
 *
 * Context: The lock of the page tree held, interrupts off.
 */
void dmz_frame_evict(unsigned long pfn, u32 hash, struct page *page)
{
	struct dmz_frame *f;
	unsigned long flags;
	struct dmz_target *t;
	u32 bucket, *link;

	if (!dmz_frame_recorded(pfn))
		return;
	bucket = dmz_bucket_of(pfn);
	f = &dmz_frames[pfn];
	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, pfn);
	if (link) {
		/* A target leaves the array after its last entry has gone. */
		t = dmz_targets[f->target];
		if (READ_ONCE(t->frozen))
			dmz_count(t, DMZ_PUT_DROPPED, 1);
		else if (!f->known || !dmz_content_same(f->hash, hash))
			dmz_count(t, DMZ_PUT_REFUSED_CONTENT, 1);
		else
			dmz_put(t, dmz_frame_block(f), page);
		dmz_unlink(link);
	}
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
}

/**
 * dmz_frame_move - a page moves to another frame
 * @to:		where to
 * @from:	where from
 *
 * Under one lock, for it is one chain: an invalidation of the block finds the
 * old entry or the new one.
 *
 * Context: Any. Both pages are locked.
 */
void dmz_frame_move(unsigned long to, unsigned long from)
{
	struct dmz_frame *new, *old;
	unsigned long flags;
	u32 bucket, *link;

	dmz_frame_forget(to);
	if (!dmz_frame_recorded(from))
		return;
	bucket = dmz_bucket_of(from);
	old = &dmz_frames[from];
	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, from);
	if (!link)
		goto unlock;
	new = to < dmz_nr_frames ? &dmz_frames[to] : NULL;
	if (new && !cmpxchg(&new->target, 0, old->target)) {
		new->hash = old->hash;
		new->block_low = old->block_low;
		new->block_high = old->block_high;
		new->known = old->known;
		new->next = old->next;
		old->next = to;
	}
	dmz_unlink(link);
unlock:
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
}

/* Removes the entries of [@block, @end) that are in one chain. */
static void dmz_invalidate_chain(struct dmz_target *t, u32 bucket, u64 block,
				 u64 end, u32 keep)
{
	unsigned long flags, forgotten = 0;
	u32 *link = &dmz_heads[bucket];
	struct dmz_frame *f;
	u64 at;

	if (READ_ONCE(*link) == DMZ_NO_FRAME)
		return;
	spin_lock_irqsave(dmz_lock(bucket), flags);
	while (*link != DMZ_NO_FRAME) {
		f = &dmz_frames[*link];
		at = dmz_frame_block(f);
		if (*link != keep && f->target == t->id && at >= block &&
		    at < end) {
			dmz_unlink(link);
			forgotten++;
		} else {
			link = &f->next;
		}
	}
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
	if (forgotten)
		dmz_count(t, DMZ_FORGOTTEN, forgotten);
}

/**
 * dmz_frames_invalidate - blocks change: their entries go
 * @t:		the target
 * @block:	the first
 * @count:	how many
 * @keep:	a frame whose entry stays: it was written to the block; or
 *		DMZ_NO_FRAME
 *
 * Context: Any.
 */
void dmz_frames_invalidate(struct dmz_target *t, u64 block, u64 count,
			   unsigned long keep)
{
	u64 end = block + count;
	u32 bucket;

	if (count > dmz_nr_frames / 2) {
		for (bucket = 0; !(bucket >> dmz_head_bits); bucket++)
			dmz_invalidate_chain(t, bucket, block, end, keep);
		return;
	}
	for (; block < end; block++)
		dmz_invalidate_chain(t, dmz_bucket(t->id, block), block,
				     block + 1, keep);
}

/**
 * dmz_frames_forget_target - removes all entries of a target
 * @t:	the target, with no I/O under way
 *
 * When this returns whoever still saw one is done with it.
 *
 * Context: Process context; sleeps.
 */
void dmz_frames_forget_target(struct dmz_target *t)
{
	unsigned int i;
	u32 bucket;

	for (bucket = 0; !(bucket >> dmz_head_bits); bucket++) {
		dmz_invalidate_chain(t, bucket, 0, U64_MAX, DMZ_NO_FRAME);
		cond_resched();
	}
	for (i = 0; i < NR_LOCKS; i++) {
		spin_lock_irq(&dmz_locks[i].lock);
		spin_unlock_irq(&dmz_locks[i].lock);
	}
}

size_t dmz_frames_bytes(void)
{
	return dmz_nr_frames * sizeof(*dmz_frames) +
	       (sizeof(*dmz_heads) << dmz_head_bits);
}

/**
 * dmz_frames_get - makes the table
 *
 * Context: Process context.
 * Return: 0 or -ENOMEM.
 */
int dmz_frames_get(void)
{
	unsigned long nr = 0;
	unsigned int i;
	int nid;

	BUILD_BUG_ON(sizeof(struct dmz_frame) != 16);

	for_each_online_node(nid)
		nr = max(nr, node_end_pfn(nid));
	dmz_head_bits = ilog2(nr);
	dmz_frames = vzalloc(array_size(nr, sizeof(*dmz_frames)));
	dmz_heads = vmalloc(sizeof(*dmz_heads) << dmz_head_bits);
	if (!dmz_frames || !dmz_heads || nr >= DMZ_NO_FRAME) {
		dmz_frames_put();
		return -ENOMEM;
	}
	memset(dmz_heads, 0xff, sizeof(*dmz_heads) << dmz_head_bits);
	for (i = 0; i < NR_LOCKS; i++)
		spin_lock_init(&dmz_locks[i].lock);
	dmz_nr_frames = nr;
	return 0;
}

/**
 * dmz_frames_put - frees the table
 *
 * Context: Process context. No probe runs any more.
 */
void dmz_frames_put(void)
{
	dmz_nr_frames = 0;
	vfree(dmz_frames);
	vfree(dmz_heads);
	dmz_frames = NULL;
	dmz_heads = NULL;
}
