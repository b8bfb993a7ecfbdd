/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of zcache.ko share among themselves. The seam that other
 * modules see is zcache_core.h.
 */
#ifndef _ZCACHE_INTERNAL_H
#define _ZCACHE_INTERNAL_H

#include <linux/mutex.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include "compat.h"
#include "zcache_core.h"

/**
 * enum zcache_state - is there a device, and what may be asked of it
 * @ZCACHE_UNATTACHED:	none, and none was lost: the buffered state
 * @ZCACHE_ATTACHED:	in use
 * @ZCACHE_DRAINING:	in use, but no swap page is stored any more
 * @ZCACHE_LOST:	none, because it stopped answering; else as UNATTACHED
 */
enum zcache_state {
	ZCACHE_UNATTACHED,
	ZCACHE_ATTACHED,
	ZCACHE_DRAINING,
	ZCACHE_LOST,
};

/**
 * enum zcache_swap_loss - what to do about an accepted page that is not there
 *
 * The kernel trusts that an accepted page comes back: it never wrote the slot
 * on the swap disk, and reading that would give garbage.
 */
enum zcache_swap_loss {
	ZCACHE_LOSS_WAIT,		/* block the task until it is there */
	ZCACHE_LOSS_WRITETHROUGH,	/* the disk has a copy of every page */
	ZCACHE_LOSS_PANIC,
};

/* core.c */
extern enum zcache_swap_loss zcache_swap_loss;
const char *zcache_swap_loss_text(void);

/* pools.c */
extern struct mutex zcache_mutex;
extern struct xarray zcache_pools;

int zcache_pool_activate(struct zcache_transport *t, struct zcache_pool *pool);
void zcache_pools_deactivate(void);
void zcache_shared_pools_flush(struct zcache_transport *t);
void zcache_dead_pools_forget(void);
void zcache_pools_exit(void);
int zcache_dead_pools_destroy(struct zcache_transport *t);
int zcache_pool_destroy_on(struct zcache_transport *t, u32 id);

/* session.c */
extern struct workqueue_struct *zcache_wq;

struct zcache_transport *zcache_current_locked(void);
enum zcache_state zcache_get_state(void);
unsigned long zcache_attach_seq(void);
bool zcache_wait_attach(unsigned long seq, unsigned int seconds);
void zcache_session_show(struct seq_file *m);
int zcache_session_init(void);
void zcache_session_exit(void);

/* heal.c */
void zcache_heal_schedule(void);

/* swapmap.c */

/**
 * enum zcache_page_state - where the only copy of a swap page is
 * @ZC_PAGE_NONE:	not with us
 * @ZC_PAGE_LIVE:	the device accepted it in the current session
 * @ZC_PAGE_STALE:	the kernel let go of it, the device was not told yet
 * @ZC_PAGE_LOST:	it was accepted, but no device has it any more
 * @ZC_PAGE_RESCUED:	in guest memory, copied there when its device left
 */
enum zcache_page_state {
	ZC_PAGE_NONE,
	ZC_PAGE_LIVE,
	ZC_PAGE_STALE,
	ZC_PAGE_LOST,
	ZC_PAGE_RESCUED,
	ZC_NR_PAGE_STATES
};

struct zcache_swapmap *zcache_swapmap_alloc(void);
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
bool zcache_swapmap_copy_rescued(struct zcache_swapmap *map,
				 unsigned long offset, struct page *page);
unsigned long zcache_swap_total(enum zcache_page_state state);

void zcache_swap_key(struct zcache_key *key, unsigned long offset);
unsigned long zcache_swap_object_end(unsigned long offset);

#ifdef ZCACHE_NATIVE_HOOKS
/* cleancache.c */
int zcache_cleancache_init(void);

/* frontswap.c */
void zcache_frontswap_init(void);

/* orphans.c */
void zcache_orphans_schedule(void);

/* shrink.c */
static inline bool zcache_swapin_offered(void)
{
	return true;
}

bool zcache_swapin_ended(void);
void zcache_swapin_start(unsigned long live);
void zcache_swapin_stop(void);
#else
static inline bool zcache_swapin_offered(void)
{
	return false;
}

static inline bool zcache_swapin_ended(void)
{
	return true;
}

static inline void zcache_swapin_start(unsigned long live)
{
}

static inline void zcache_swapin_stop(void)
{
}
#endif

/* drain.c */
void zcache_drain(struct zcache_transport *t);

/* stats.c */
void zcache_stats_init(void);
void zcache_stats_exit(void);
void zcache_stats_retire(struct zcache_pool *pool);
void zcache_count_unknown_pool(void);

#endif /* _ZCACHE_INTERNAL_H */
