// SPDX-License-Identifier: GPL-2.0
/*
 * Which block each page frame holds: an entry of 16 bytes for each frame, and a
 * hash of chains from blocks to frames. One table for all targets, allocated
 * with the first of them and never in the I/O path. It comes in chunks, without
 * those that would be of holes in the memory, or of the kernel alone.
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
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>
#include "dm_zcache.h"

#define NR_LOCKS	256

#define CHUNK_SHIFT	9
#define CHUNK_FRAMES	BIT(CHUNK_SHIFT)
#define CHUNK_SIZE	(CHUNK_FRAMES * sizeof(struct dmz_frame))

/* So many frames share a chain on average if all of them have entries: 2 to 4. */
#define CHAIN_SHIFT	1

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
static struct dmz_frame **dmz_chunks;
static unsigned long dmz_nr_chunks, dmz_used_chunks;
static u32 *dmz_heads;
static unsigned int dmz_head_bits;

static bool dmz_has_entry(unsigned long pfn)
{
	return pfn >> CHUNK_SHIFT < dmz_nr_chunks &&
	       dmz_chunks[pfn >> CHUNK_SHIFT];
}

/* The entry of a frame that has one. */
static struct dmz_frame *dmz_frame(unsigned long pfn)
{
	return &dmz_chunks[pfn >> CHUNK_SHIFT][pfn & (CHUNK_FRAMES - 1)];
}

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
	struct dmz_frame *f = dmz_frame(*link);

	/* Pairs with the acquire in dmz_invalidate_chain(): a put is over. */
	smp_store_release(link, f->next);
	/* Pairs with the cmpxchg that claims it: it is in no chain. */
	smp_store_release(&f->target, 0);
}

static u32 *dmz_find(u32 bucket, unsigned long pfn)
{
	u32 *link;

	for (link = &dmz_heads[bucket]; *link != DMZ_NO_FRAME;
	     link = &dmz_frame(*link)->next)
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
	return dmz_has_entry(pfn) && READ_ONCE(dmz_frame(pfn)->target);
}

/* The bucket in whose chain a recorded frame was; look for it there. */
static u32 dmz_bucket_of(unsigned long pfn)
{
	struct dmz_frame *f = dmz_frame(pfn);

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
	struct dmz_frame *f;
	unsigned long flags;
	u32 bucket;

	if (!dmz_has_entry(pfn))
		return false;
	dmz_frame_forget(pfn);
	f = dmz_frame(pfn);
	if (cmpxchg(&f->target, 0, t->id))
		return false;
	bucket = dmz_bucket(t->id, block);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	WRITE_ONCE(f->block_low, block);
	WRITE_ONCE(f->block_high, block >> 32);
	f->hash = 0;
	f->known = false;
	f->next = dmz_heads[bucket];
	dmz_heads[bucket] = pfn;
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
	return true;
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
	f = link ? dmz_frame(pfn) : NULL;
	if (f && dmz_holds(f, t->id, block)) {
		f->hash = hash;
		f->known = true;
		if (put) {
			if (!READ_ONCE(t->held))
				dmz_put(t, block, put, 0);
			/* Not before: see dmz_frame_evict(). */
			dmz_unlink(link);
		}
	}
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
}

/**
 * dmz_frame_has - does a page have the content of a block?
 * @t:		the target
 * @pfn:	its frame
 * @block:	the block
 * @page:	the page, locked for a read
 *
 * Context: Any.
 */
bool dmz_frame_has(struct dmz_target *t, unsigned long pfn, u64 block,
		   struct page *page)
{
	u32 bucket = dmz_bucket(t->id, block), hash;
	struct dmz_frame *f;
	unsigned long flags;
	bool has;

	if (!dmz_frame_recorded(pfn))
		return false;
	f = dmz_frame(pfn);
	if (!READ_ONCE(f->known) || dmz_frame_block(f) != block)
		return false;
	hash = dmz_content_hash(page);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	has = dmz_find(bucket, pfn) && dmz_holds(f, t->id, block) &&
	      f->known && f->hash == hash;
	spin_unlock_irqrestore(dmz_lock(bucket), flags);
	return has;
}

/**
 * dmz_frame_evict - reclaim evicts a page: puts it if it is what its block holds
 * @pfn:	its frame
 * @hash:	of its content now
 * @page:	the page, which nothing changes any more; NULL: not to be put
 * @until:	when ktime_get_ns() is that, the put waits for a slot no more
 *
 * The put is made under the lock of the bucket. An invalidation of the block
 * either had it before, and the entry is gone; or takes it later, and posts its
 * flush behind the put, on the same queue. It takes the lock only if there is
 * something in the chain, so the entry goes when the put is made.
 *
 * Context: The lock of the page tree held, interrupts off.
 */
void dmz_frame_evict(unsigned long pfn, u32 hash, struct page *page, u64 until)
{
	struct dmz_frame *f;
	unsigned long flags;
	struct dmz_target *t;
	u32 bucket, *link;

	if (!dmz_frame_recorded(pfn))
		return;
	bucket = dmz_bucket_of(pfn);
	f = dmz_frame(pfn);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, pfn);
	if (link) {
		/* A target leaves the array after its last entry has gone. */
		t = dmz_targets[f->target];
		if (READ_ONCE(t->held))
			dmz_count(t, DMZ_PUT_DROPPED, 1);
		else if (!page)
			dmz_count(t, DMZ_PUT_BEYOND, 1);
		else if (!f->known || !dmz_content_same(f->hash, hash))
			dmz_count(t, DMZ_PUT_REFUSED_CONTENT, 1);
		else
			dmz_put(t, dmz_frame_block(f), page, until);
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
	old = dmz_frame(from);
	spin_lock_irqsave(dmz_lock(bucket), flags);
	link = dmz_find(bucket, from);
	if (!link)
		goto unlock;
	new = dmz_has_entry(to) ? dmz_frame(to) : NULL;
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

	/* Pairs with the release in dmz_unlink(). */
	if (smp_load_acquire(link) == DMZ_NO_FRAME)
		return;
	spin_lock_irqsave(dmz_lock(bucket), flags);
	while (*link != DMZ_NO_FRAME) {
		f = dmz_frame(*link);
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

	for (; block < end; block++)
		dmz_invalidate_chain(t, dmz_bucket(t->id, block), block,
				     block + 1, keep);
}

/**
 * dmz_frames_invalidate_range - as dmz_frames_invalidate(), for any number
 * @t:		the target
 * @block:	the first block
 * @count:	how many
 *
 * Context: Process context; sleeps.
 */
void dmz_frames_invalidate_range(struct dmz_target *t, u64 block, u64 count)
{
	u64 end = block + count;
	u32 bucket;

	for (bucket = 0; count > BIT_ULL(dmz_head_bits) &&
	     !(bucket >> dmz_head_bits); bucket++) {
		dmz_invalidate_chain(t, bucket, block, end, DMZ_NO_FRAME);
		cond_resched();
	}
	for (; count <= BIT_ULL(dmz_head_bits) && block < end; block++) {
		dmz_frames_invalidate(t, block, 1, DMZ_NO_FRAME);
		cond_resched();
	}
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

	dmz_frames_invalidate_range(t, 0, U64_MAX);
	for (i = 0; i < NR_LOCKS; i++) {
		spin_lock_irq(&dmz_locks[i].lock);
		spin_unlock_irq(&dmz_locks[i].lock);
	}
}

size_t dmz_frames_bytes(void)
{
	return dmz_nr_chunks * sizeof(*dmz_chunks) +
	       dmz_used_chunks * CHUNK_SIZE +
	       (sizeof(*dmz_heads) << dmz_head_bits);
}

/* Whether a chunk has memory that the page cache can use. */
static bool dmz_chunk_useful(unsigned long chunk)
{
	unsigned long pfn = chunk << CHUNK_SHIFT;
	unsigned long end = pfn + CHUNK_FRAMES;
	struct page *page;

	for (; pfn < end; pfn++) {
		page = pfn_to_online_page(pfn);
		if (page && !PageReserved(page))
			return true;
	}
	return false;
}

static int dmz_chunks_alloc(void)
{
	unsigned long i;

	dmz_chunks = kvcalloc(dmz_nr_chunks, sizeof(*dmz_chunks), GFP_KERNEL);
	if (!dmz_chunks)
		return -ENOMEM;
	for (i = 0; i < dmz_nr_chunks; i++) {
		if (!dmz_chunk_useful(i))
			continue;
		dmz_chunks[i] = kvzalloc(CHUNK_SIZE, GFP_KERNEL);
		if (!dmz_chunks[i])
			return -ENOMEM;
		dmz_used_chunks++;
		cond_resched();
	}
	return 0;
}

/**
 * dmz_frames_get - makes the table
 *
 * Context: Process context.
 * Return: 0 or -ENOMEM.
 */
int dmz_frames_get(void)
{
	unsigned long end = 0;
	unsigned int i;
	int nid;

	BUILD_BUG_ON(sizeof(struct dmz_frame) != 16);

	for_each_online_node(nid)
		end = max(end, node_end_pfn(nid));
	dmz_nr_chunks = DIV_ROUND_UP(end, CHUNK_FRAMES);
	if (end >= DMZ_NO_FRAME || dmz_chunks_alloc())
		goto fail;
	dmz_head_bits = ilog2(dmz_used_chunks * CHUNK_FRAMES) - CHAIN_SHIFT;
	dmz_heads = kvmalloc(sizeof(*dmz_heads) << dmz_head_bits, GFP_KERNEL);
	if (!dmz_heads)
		goto fail;
	memset(dmz_heads, 0xff, sizeof(*dmz_heads) << dmz_head_bits);
	for (i = 0; i < NR_LOCKS; i++)
		spin_lock_init(&dmz_locks[i].lock);
	return 0;
fail:
	dmz_frames_put();
	return -ENOMEM;
}

/**
 * dmz_frames_put - frees the table
 *
 * Context: Process context. No probe runs any more.
 */
void dmz_frames_put(void)
{
	unsigned long i;

	for (i = 0; dmz_chunks && i < dmz_nr_chunks; i++)
		kvfree(dmz_chunks[i]);
	kvfree(dmz_chunks);
	kvfree(dmz_heads);
	dmz_chunks = NULL;
	dmz_heads = NULL;
	dmz_nr_chunks = 0;
	dmz_used_chunks = 0;
}
