// SPDX-License-Identifier: GPL-2.0
/*
 * Which block each page frame holds: chains from blocks to frames.
 *
 * An entry says: this frame was read from, or written to, this block, and since
 * then nothing has changed the block, and no user the frame. With a hash it
 * also says what the block holds. Everything that changes a block removes the
 * entries of it, and a page that gets dirty loses its own. So an entry that is
 * left over in a frame that was used for something else is harmless: the page
 * is put only if it has the block's content.
 *
 * Locking. A chain, and the fields of entries in it, change under the lock of
 * its bucket, taken with interrupts off: probes and completions take it. It
 * nests inside the page tree's lock and outside the transport's, for a put is
 * made under it (dmz_frame_evict() says why). Membership in a chain is the
 * truth: who comes from a frame reads the block without a lock, locks the
 * bucket, and looks for the frame in the chain. A free frame is claimed with
 * cmpxchg on the target's id and linked after that.
 */
#include "frames.h"

static bool dmz_holds(const struct dmz_frame *f, u8 target, u64 block)
{
	return f->target == target && dmz_frame_block(f) == block;
}

static u64 dmz_frame_hash(const struct dmz_frame *f)
{
	return (u64)f->hash_high << 32 | f->hash_low;
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

/* Removes a frame's entry, and if it is not believed what the pool has of it. */
static void dmz_frame_remove(unsigned long pfn, bool believed)
{
	struct dmz_target *t;
	struct dmz_frame *f;
	unsigned long flags;
	u32 bucket, *link;

	if (!dmz_frame_recorded(pfn))
		return;
	bucket = dmz_bucket_of(pfn);
	f = dmz_frame(pfn);
	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	link = dmz_find(bucket, pfn);
	if (link) {
		t = dmz_targets[f->target];
		if (!believed && (f->known == DMZ_KEPT || !t->on_evict))
			dmz_flush(t, dmz_frame_block(f), 1);
		dmz_unlink(link);
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
}

/**
 * dmz_frame_forget - removes what is known of a frame
 * @pfn:	the frame
 *
 * Context: Any.
 */
void dmz_frame_forget(unsigned long pfn)
{
	dmz_frame_remove(pfn, true);
}

/**
 * dmz_frame_distrust - what is in a frame was not believed
 * @pfn:	the frame
 *
 * Nothing is known of it any more, and a copy that the pool has kept goes, too.
 *
 * Context: Any.
 */
void dmz_frame_distrust(unsigned long pfn)
{
	dmz_frame_remove(pfn, false);
}

/**
 * dmz_frame_record - a transfer between a frame and a block begins
 * @t:		the target
 * @pfn:	the frame
 * @block:	the block
 *
 * Recorded before the transfer, so that a change of the block meanwhile finds
 * the entry and removes it; but not while the end of such a change is followed
 * up. A full barrier is between the entry and what the caller does next.
 *
 * Context: Any. The page can't be evicted before the transfer ends.
 * Return: false: nothing is known of the frame now.
 */
bool dmz_frame_record(struct dmz_target *t, unsigned long pfn, u64 block)
{
	struct dmz_lock *lock;
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
	lock = dmz_lock(bucket);
	spin_lock_irqsave(&lock->lock, flags);
	WRITE_ONCE(f->block_low, block);
	WRITE_ONCE(f->block_high, block >> 32);
	WRITE_ONCE(f->known, DMZ_TRANSFER);
	f->next = dmz_heads[bucket];
	dmz_heads[bucket] = pfn;
	spin_unlock_irqrestore(&lock->lock, flags);
	/* Pairs with those in dmz_frames_shut() and in dirtying a page. */
	smp_mb();
	/* Pairs with the one in dmz_frames_open(): nothing old is got now. */
	if (!atomic_read_acquire(&lock->shut))
		return true;
	dmz_frame_forget(pfn);
	return false;
}

/**
 * dmz_frame_know - records the content of a frame, if its entry is still there
 * @t:		the target
 * @pfn:	the frame
 * @block:	the block that it was recorded for
 * @known:	DMZ_AHEAD or DMZ_HOLDS
 * @hash:	its content
 *
 * Context: Any.
 */
void dmz_frame_know(struct dmz_target *t, unsigned long pfn, u64 block,
		    enum dmz_known known, u64 hash)
{
	u32 bucket = dmz_bucket(t->id, block);
	struct dmz_frame *f = dmz_frame(pfn);
	unsigned long flags;

	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	if (dmz_find(bucket, pfn) && dmz_holds(f, t->id, block)) {
		f->hash_low = hash;
		f->hash_high = hash >> 32;
		WRITE_ONCE(f->known, known);
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
}

/**
 * dmz_frame_put - puts a page that was read, if its entry is still there
 * @t:		the target, of put=read
 * @pfn:	its frame
 * @block:	the block that it was recorded for
 * @page:	the page
 *
 * The entry stays, to tell when it is read again, but has no hash.
 *
 * Context: Any.
 */
void dmz_frame_put(struct dmz_target *t, unsigned long pfn, u64 block,
		   struct page *page)
{
	u32 bucket = dmz_bucket(t->id, block);
	struct dmz_frame *f = dmz_frame(pfn);
	unsigned long flags;

	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	if (dmz_find(bucket, pfn) && dmz_holds(f, t->id, block)) {
		if (!READ_ONCE(t->held))
			dmz_put(t, block, page, 0);
		WRITE_ONCE(f->known, DMZ_HOLDS);
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
}

/**
 * dmz_frame_look - what is known of a frame and a block
 * @t:		the target
 * @pfn:	the frame
 * @block:	the block
 * @hash:	set to the hash of DMZ_AHEAD or, with put=evict, DMZ_HOLDS
 *
 * Context: Any.
 */
enum dmz_known dmz_frame_look(struct dmz_target *t, unsigned long pfn,
			      u64 block, u64 *hash)
{
	u32 bucket = dmz_bucket(t->id, block);
	enum dmz_known known = DMZ_UNKNOWN;
	struct dmz_frame *f;
	unsigned long flags;

	*hash = 0;
	if (!dmz_frame_recorded(pfn))
		return DMZ_UNKNOWN;
	f = dmz_frame(pfn);
	if (dmz_frame_block(f) != block)
		return DMZ_UNKNOWN;
	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	if (dmz_find(bucket, pfn) && dmz_holds(f, t->id, block)) {
		known = f->known;
		*hash = dmz_frame_hash(f);
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
	return known;
}

/* Whether the page of a frame is what its entry says. */
static bool dmz_frame_has(const struct dmz_frame *f, struct page *page)
{
	return f->known != DMZ_TRANSFER &&
	       dmz_content_same(dmz_frame_hash(f), dmz_content_hash(page));
}

/**
 * dmz_frame_evict - reclaim evicts a page: puts it if it is what its block holds
 * @pfn:	its frame
 * @page:	the page, which nothing changes any more; NULL: not to be put
 * @until:	when ktime_get_ns() is that, the put waits for a slot no more
 *
 * The put is made under the lock of the bucket. An invalidation of the block
 * either had it before, and the entry is gone; or takes it later, and posts its
 * flush behind the put, on the same queue. It takes the lock only if there is
 * something in the chain, so the entry goes when the put is made.
 *
 * Context: The lock of the page tree held, interrupts off.
 * Return: whether that took some time, for the page was looked at.
 */
bool dmz_frame_evict(unsigned long pfn, struct page *page, u64 until)
{
	bool looked = false;
	struct dmz_frame *f;
	unsigned long flags;
	struct dmz_target *t;
	u32 bucket, *link;

	if (!dmz_frame_recorded(pfn))
		return false;
	bucket = dmz_bucket_of(pfn);
	f = dmz_frame(pfn);
	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	link = dmz_find(bucket, pfn);
	if (link) {
		/* A target leaves the array after its last entry has gone. */
		t = dmz_targets[f->target];
		if (!t->on_evict)
			; /* It was put when it was read. */
		else if (READ_ONCE(t->held))
			dmz_count(t, DMZ_PUT_DROPPED, 1);
		else if (f->known == DMZ_KEPT)
			dmz_count(t, DMZ_PUT_KEPT, 1);
		else if (!dmz_put_pays(t, dmz_frame_block(f)))
			dmz_count(t, DMZ_PUT_NOT_WORTH, 1);
		else if (!page)
			dmz_count(t, DMZ_PUT_BEYOND, 1);
		else
			looked = true;
		if (looked && dmz_frame_has(f, page))
			dmz_put(t, dmz_frame_block(f), page, until);
		else if (looked)
			dmz_count(t, DMZ_PUT_REFUSED_CONTENT, 1);
		dmz_unlink(link);
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
	return looked;
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
	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	link = dmz_find(bucket, from);
	if (!link)
		goto unlock;
	new = dmz_has_entry(to) ? dmz_frame(to) : NULL;
	if (new && !cmpxchg(&new->target, 0, old->target)) {
		new->block_low = old->block_low;
		new->block_high = old->block_high;
		new->known = old->known;
		new->hash_low = old->hash_low;
		new->hash_high = old->hash_high;
		new->next = old->next;
		old->next = to;
	}
	dmz_unlink(link);
unlock:
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
}

