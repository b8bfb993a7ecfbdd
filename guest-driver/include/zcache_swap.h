/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What front-ends for swap share: frontswap within zcache.ko, and the swap disk
 * of zcache_swap.ko.
 */
#ifndef _ZCACHE_SWAP_H
#define _ZCACHE_SWAP_H

#include "zcache_core.h"

/* swapmap.c */

/**
 * enum zcache_page_state - where the only copy of a swap page is
 * @ZC_PAGE_NONE:	not with us
 * @ZC_PAGE_LIVE:	the device accepted it in the current session
 * @ZC_PAGE_STALE:	the kernel let go of it, the device was not told yet
 * @ZC_PAGE_FLUSHING:	as STALE, and the collector is telling it just now
 * @ZC_PAGE_LOST:	it was accepted, but no device has it any more
 * @ZC_PAGE_RESCUED:	in guest memory, copied there when its device left, which
 *			may have it still
 * @ZC_PAGE_BUSY:	swap disk: somebody moves it
 * @ZC_PAGE_FREED:	swap disk: as BUSY, and the kernel let go of it meanwhile
 * @ZC_PAGE_KEPT:	swap disk: nobody took it, so the kernel kept it
 * @ZC_PAGE_BAD:	swap disk: as KEPT, and the device may have a copy
 *
 * A slot of a swap disk is stale, too, when its page is on the backing device
 * and an older one may be on the device.
 */
enum zcache_page_state {
	ZC_PAGE_NONE,
	ZC_PAGE_LIVE,
	ZC_PAGE_STALE,
	ZC_PAGE_FLUSHING,
	ZC_PAGE_LOST,
	ZC_PAGE_RESCUED,
	ZC_PAGE_BUSY,
	ZC_PAGE_FREED,
	ZC_PAGE_KEPT,
	ZC_PAGE_BAD,
	ZC_NR_PAGE_STATES
};

struct zcache_swapmap *zcache_swapmap_alloc(unsigned long slots);
void zcache_swapmap_free(struct zcache_swapmap *map);
bool zcache_swapmap_reserve(struct zcache_swapmap *map, unsigned long offset);
enum zcache_page_state zcache_swapmap_get(struct zcache_swapmap *map,
					  unsigned long offset);
bool zcache_swapmap_change(struct zcache_swapmap *map, unsigned long offset,
			   enum zcache_page_state from,
			   enum zcache_page_state to);
enum zcache_page_state zcache_swapmap_release(struct zcache_swapmap *map,
					      unsigned long offset);
bool zcache_swapmap_find(struct zcache_swapmap *map,
			 enum zcache_page_state state, unsigned long *offset);
void zcache_swapmap_replace_all(struct zcache_swapmap *map,
				enum zcache_page_state from,
				enum zcache_page_state to);
unsigned long zcache_swapmap_count(struct zcache_swapmap *map,
				   enum zcache_page_state state);
int zcache_swapmap_rescue(struct zcache_swapmap *map, unsigned long offset,
			  struct page *page);
struct page *zcache_swapmap_rescued(struct zcache_swapmap *map,
				    unsigned long offset);
void zcache_swapmap_drop_rescued(struct zcache_swapmap *map,
				 unsigned long offset);
unsigned long zcache_swap_total(enum zcache_page_state state);

void zcache_swap_key(struct zcache_key *key, unsigned long offset);
unsigned long zcache_swap_object_end(unsigned long offset);

/* pools.c */

/* Pages that the device is asked for at a time, to be brought back. */
#define ZCACHE_TAKE_BATCH	32

/**
 * struct zcache_swap_front - how a swap front-end gets its pages back
 * @copied:	it has every page elsewhere, too: none is lost with the device
 * @take:	gives the page to fill with what the device has in a live slot.
 *		Return: a page; ERR_PTR(-ENOENT): there is nothing to bring back;
 *		another error: no page can be brought back now. NULL: they are
 *		copied to guest memory, and @taken and @finish are not called, nor is
 *		anything brought back but by a drain.
 * @taken:	called for each page that @take gave: it is filled, or @err says
 *		why not, as of &zcache_transport_ops.get. May leave the rest to
 *		something asynchronous.
 * @finish:	waits for that; may be NULL.
 * @settled:	the collector is through with some slots; may be NULL.
 * @put_back:	stores what is in guest memory on the device again, some pages at
 *		a time. Within zcache_srcu; may be NULL.
 *		Return: true: there are more, and the device takes them.
 *
 * Context of all: process, zcache_mutex held; sleep. Those that keep slots from
 * being written meanwhile don't wait for memory.
 */
struct zcache_swap_front {
	bool copied;
	struct page *(*take)(struct zcache_pool *pool, unsigned long offset);
	void (*taken)(struct zcache_pool *pool, unsigned long offset,
		      struct page *page, int err);
	void (*finish)(struct zcache_pool *pool);
	void (*settled)(struct zcache_pool *pool);
	bool (*put_back)(struct zcache_transport *t, struct zcache_pool *pool);
};

struct zcache_pool *zcache_swap_pool_add(unsigned long slots,
					 const struct zcache_swap_front *front,
					 void *owner);

/* path.c */
bool zcache_attached(void);
bool zcache_waits_for_lost(void);
unsigned long zcache_attach_seq(void);
bool zcache_wait_attach(unsigned long seq, unsigned int seconds);

/* heal.c */
void zcache_heal_schedule(void);

/* take_back.c */
void zcache_take_back_arm(void);
bool zcache_pages_wanted(void);

/* drain.c */
int zcache_swap_pool_drain(struct zcache_pool *pool);

/* stats.c */
u64 zcache_counter_sum(const struct zcache_pool *pool, int counter);

#endif /* _ZCACHE_SWAP_H */
