// SPDX-License-Identifier: GPL-2.0
/*
 * Where each page of a swap area is: one byte of state for each slot we ever
 * stored, in pages that are allocated when their range is first stored to
 * (1 page for 16 MiB of swap) and freed at swapoff.
 *
 * The kernel keeps a bit for each slot too, but that one says only that some
 * frontswap backend has the page, and there may be others (zswap).
 *
 * The swap code serialises the operations on one slot: a load or a store
 * holds the lock of the page in the swap cache, and a slot is invalidated
 * when it is no longer in the swap cache nor anywhere else. What runs beside
 * them are the attach, the collector and the rescue, each of which changes
 * only states that the others leave alone; map->lock makes each change atomic.
 */
#include <linux/highmem.h>
#include <linux/slab.h>
#include "internal.h"

#define CHUNK_PAGES	PAGE_SIZE

/* Consecutive slots that stay together in one object, hence in one queue. */
#define OBJECT_SLOTS	64
/* Objects over which an area spreads; as many queues can serve it. */
#define OBJECTS		16

/**
 * struct zcache_swapmap - states of the slots of one swap area
 * @chunks:	offset / CHUNK_PAGES -> page of states
 * @rescued:	offset -> struct page, for slots in ZC_PAGE_RESCUED
 * @lock:	the states and @count. Taken with interrupts off, because slots
 *		are invalidated with interrupts off
 * @count:	slots in each state but ZC_PAGE_NONE
 */
struct zcache_swapmap {
	struct xarray chunks;
	struct xarray rescued;
	spinlock_t lock; /* states and count */
	unsigned long count[ZC_NR_PAGE_STATES];
};

/* The same over all swap areas. */
static atomic_long_t zcache_swap_totals[ZC_NR_PAGE_STATES];

/**
 * zcache_swap_key - where a slot is stored
 * @key:	set to the slot's object and index
 * @offset:	the slot
 */
void zcache_swap_key(struct zcache_key *key, unsigned long offset)
{
	memset(key, 0, sizeof(*key));
	key->object[0] = offset / OBJECT_SLOTS % OBJECTS;
	key->index = offset;
}
EXPORT_SYMBOL_GPL(zcache_swap_key);

/**
 * zcache_swap_object_end - how far consecutive slots share an object
 * @offset:	a slot
 *
 * Return: The first slot after @offset that is in another object.
 */
unsigned long zcache_swap_object_end(unsigned long offset)
{
	return round_down(offset, OBJECT_SLOTS) + OBJECT_SLOTS;
}

void zcache_swapmap_free(struct zcache_swapmap *map)
{
	unsigned long index;
	struct page *page;
	u8 *chunk;
	int i;

	xa_for_each(&map->rescued, index, page)
		__free_page(page);
	xa_destroy(&map->rescued);
	xa_for_each(&map->chunks, index, chunk)
		free_page((unsigned long)chunk);
	xa_destroy(&map->chunks);
	for (i = 0; i < ZC_NR_PAGE_STATES; i++)
		atomic_long_sub(map->count[i], &zcache_swap_totals[i]);
	kfree(map);
}

/* Makes sure that the states of so many slots can be recorded. */
static bool zcache_swapmap_populate(struct zcache_swapmap *map,
				    unsigned long slots)
{
	unsigned long index;
	u8 *chunk;

	for (index = 0; index < DIV_ROUND_UP(slots, CHUNK_PAGES); index++) {
		chunk = (u8 *)get_zeroed_page(GFP_KERNEL);
		if (!chunk)
			return false;
		if (xa_err(xa_store(&map->chunks, index, chunk, GFP_KERNEL))) {
			free_page((unsigned long)chunk);
			return false;
		}
	}
	return true;
}

/**
 * zcache_swapmap_alloc - makes a map
 * @slots:	slots whose states need no memory later
 *
 * Context: Process context.
 * Return: The map or NULL.
 */
struct zcache_swapmap *zcache_swapmap_alloc(unsigned long slots)
{
	struct zcache_swapmap *map = kzalloc(sizeof(*map), GFP_KERNEL);

	if (!map)
		return NULL;
	xa_init(&map->chunks);
	xa_init(&map->rescued);
	spin_lock_init(&map->lock);
	if (!zcache_swapmap_populate(map, slots)) {
		zcache_swapmap_free(map);
		return NULL;
	}
	return map;
}

/* The state byte of a slot, or NULL if nothing near it was ever stored. */
static u8 *zcache_slot(struct zcache_swapmap *map, unsigned long offset)
{
	u8 *chunk = xa_load(&map->chunks, offset / CHUNK_PAGES);

	return chunk ? chunk + offset % CHUNK_PAGES : NULL;
}

static void zcache_slot_set(struct zcache_swapmap *map, u8 *slot,
			    enum zcache_page_state to)
{
	enum zcache_page_state from = *slot;

	lockdep_assert_held(&map->lock);
	if (from != ZC_PAGE_NONE) {
		map->count[from]--;
		atomic_long_dec(&zcache_swap_totals[from]);
	}
	if (to != ZC_PAGE_NONE) {
		map->count[to]++;
		atomic_long_inc(&zcache_swap_totals[to]);
	}
	*slot = to;
}

/**
 * zcache_swapmap_reserve - makes sure that a slot's state can be recorded
 * @map:	the swap area
 * @offset:	the slot
 *
 * Called while reclaim writes a page out. It may take from the reserves, as
 * the writing of a page to disk does; that is bounded by 1/4096 of the area.
 *
 * Context: Process context; does not wait for memory.
 * Return: false if there is no memory.
 */
bool zcache_swapmap_reserve(struct zcache_swapmap *map, unsigned long offset)
{
	const gfp_t gfp = GFP_NOWAIT | __GFP_NOWARN;
	u8 *chunk;

	if (xa_load(&map->chunks, offset / CHUNK_PAGES))
		return true;
	chunk = (u8 *)get_zeroed_page(gfp);
	if (!chunk)
		return false;
	switch (xa_insert(&map->chunks, offset / CHUNK_PAGES, chunk, gfp)) {
	case 0:
		return true;
	case -EBUSY:
		/* Another task was faster. */
		free_page((unsigned long)chunk);
		return true;
	default:
		free_page((unsigned long)chunk);
		return false;
	}
}

/**
 * zcache_swapmap_get - a slot's state
 * @map:	the swap area
 * @offset:	the slot
 *
 * Context: Any.
 * Return: The state.
 */
enum zcache_page_state zcache_swapmap_get(struct zcache_swapmap *map,
					  unsigned long offset)
{
	u8 *slot = zcache_slot(map, offset);

	return slot ? READ_ONCE(*slot) : ZC_PAGE_NONE;
}
EXPORT_SYMBOL_GPL(zcache_swapmap_get);

/**
 * zcache_swapmap_change - changes a slot's state
 * @map:	the swap area
 * @offset:	the slot
 * @from:	the state it must be in
 * @to:		the new state
 *
 * Context: Any.
 * Return: false if it was in another state, and is still.
 */
bool zcache_swapmap_change(struct zcache_swapmap *map, unsigned long offset,
			   enum zcache_page_state from,
			   enum zcache_page_state to)
{
	u8 *slot = zcache_slot(map, offset);
	unsigned long flags;
	bool same;

	if (WARN_ON_ONCE(!slot))
		return false;
	spin_lock_irqsave(&map->lock, flags);
	same = *slot == from;
	if (same)
		zcache_slot_set(map, slot, to);
	spin_unlock_irqrestore(&map->lock, flags);
	return same;
}
EXPORT_SYMBOL_GPL(zcache_swapmap_change);

/**
 * zcache_swapmap_release - the kernel let go of a slot
 * @map:	the swap area
 * @offset:	the slot
 *
 * A slot that waits for the collector goes on doing so, the owner of a busy one
 * learns of it, and what may be left of a bad or rescued one is for the collector.
 *
 * Context: Any, interrupts may be off.
 * Return: The state it was in.
 */
enum zcache_page_state zcache_swapmap_release(struct zcache_swapmap *map,
					      unsigned long offset)
{
	u8 *slot = zcache_slot(map, offset);
	enum zcache_page_state old;
	unsigned long flags;

	if (!slot)
		return ZC_PAGE_NONE;
	spin_lock_irqsave(&map->lock, flags);
	old = *slot;
	switch (old) {
	case ZC_PAGE_STALE:
	case ZC_PAGE_FLUSHING:
	case ZC_PAGE_FREED:
		break;
	case ZC_PAGE_BUSY:
		zcache_slot_set(map, slot, ZC_PAGE_FREED);
		break;
	case ZC_PAGE_BAD:
	case ZC_PAGE_RESCUED:
		zcache_slot_set(map, slot, ZC_PAGE_STALE);
		break;
	default:
		zcache_slot_set(map, slot, ZC_PAGE_NONE);
		break;
	}
	spin_unlock_irqrestore(&map->lock, flags);

	if (old == ZC_PAGE_RESCUED)
		__free_page(xa_erase(&map->rescued, offset));
	return old;
}
EXPORT_SYMBOL_GPL(zcache_swapmap_release);

/**
 * zcache_swapmap_find - looks for a slot in a state
 * @map:	the swap area
 * @state:	the state
 * @offset:	where to begin; set to the slot that was found
 *
 * Context: Process context; may reschedule.
 * Return: false if there is none.
 */
bool zcache_swapmap_find(struct zcache_swapmap *map,
			 enum zcache_page_state state, unsigned long *offset)
{
	unsigned long index = *offset / CHUNK_PAGES;
	unsigned long skip = *offset % CHUNK_PAGES;
	unsigned long first = index;
	u8 *chunk, *slot;

	if (!zcache_swapmap_count(map, state))
		return false;
	xa_for_each_start(&map->chunks, index, chunk, first) {
		if (index != first)
			skip = 0;
		slot = memchr(chunk + skip, state, CHUNK_PAGES - skip);
		if (slot) {
			*offset = index * CHUNK_PAGES + (slot - chunk);
			return true;
		}
		cond_resched();
	}
	return false;
}
EXPORT_SYMBOL_GPL(zcache_swapmap_find);

/**
 * zcache_swapmap_replace_all - changes all slots in one state to another
 * @map:	the swap area
 * @from:	the state they are in
 * @to:		the new state
 *
 * Context: Process context; may reschedule. No slot may enter @from meanwhile.
 */
void zcache_swapmap_replace_all(struct zcache_swapmap *map,
				enum zcache_page_state from,
				enum zcache_page_state to)
{
	unsigned long offset = 0;

	while (zcache_swapmap_find(map, from, &offset))
		zcache_swapmap_change(map, offset, from, to);
}

unsigned long zcache_swapmap_count(struct zcache_swapmap *map,
				   enum zcache_page_state state)
{
	return READ_ONCE(map->count[state]);
}
EXPORT_SYMBOL_GPL(zcache_swapmap_count);

/**
 * zcache_swapmap_rescue - keeps a live page in guest memory
 * @map:	the swap area
 * @offset:	the slot
 * @page:	its content; owned by the map from now on, if this succeeds
 *
 * Context: Process context; may sleep.
 * Return: 0; -ENOMEM; -ENOENT: the kernel let go of the slot meanwhile.
 */
int zcache_swapmap_rescue(struct zcache_swapmap *map, unsigned long offset,
			  struct page *page)
{
	int err = xa_insert(&map->rescued, offset, page,
			    GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);

	if (err)
		return err;
	if (zcache_swapmap_change(map, offset, ZC_PAGE_LIVE, ZC_PAGE_RESCUED))
		return 0;
	xa_erase(&map->rescued, offset);
	return -ENOENT;
}

/**
 * zcache_swapmap_rescued - a page that was rescued
 * @map:	the swap area
 * @offset:	the slot, which is in ZC_PAGE_RESCUED, or was when it became busy
 *
 * Context: Process context.
 * Return: The page; the map's, as long as the slot is what it is.
 */
struct page *zcache_swapmap_rescued(struct zcache_swapmap *map,
				    unsigned long offset)
{
	return xa_load(&map->rescued, offset);
}
EXPORT_SYMBOL_GPL(zcache_swapmap_rescued);

/**
 * zcache_swapmap_drop_rescued - frees the copy of a page that was rescued
 * @map:	the swap area
 * @offset:	the slot, which was in ZC_PAGE_RESCUED and is busy now
 *
 * Context: Any; does not wait for memory.
 */
void zcache_swapmap_drop_rescued(struct zcache_swapmap *map,
				 unsigned long offset)
{
	struct page *copy = xa_erase(&map->rescued, offset);

	if (!WARN_ON_ONCE(!copy))
		__free_page(copy);
}
EXPORT_SYMBOL_GPL(zcache_swapmap_drop_rescued);

unsigned long zcache_swap_total(enum zcache_page_state state)
{
	return atomic_long_read(&zcache_swap_totals[state]);
}
