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
#include "zcache_swap.h"

/**
 * enum zcache_state - is there a device, and what may be asked of it
 * @ZCACHE_UNATTACHED:	none, and none was lost: the buffered state
 * @ZCACHE_ATTACHED:	in use
 * @ZCACHE_DRAINING:	in use, but no swap page is stored any more
 * @ZCACHE_LOST:	none, because it stopped answering; else as UNATTACHED
 * @ZCACHE_SUSPENDED: none, because it is stopped for a while; it keeps the swap
 *		pages, and will be back
 */
enum zcache_state {
	ZCACHE_UNATTACHED,
	ZCACHE_ATTACHED,
	ZCACHE_DRAINING,
	ZCACHE_LOST,
	ZCACHE_SUSPENDED,
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

/* policy.c */
extern enum zcache_swap_loss zcache_swap_loss;
const char *zcache_swap_loss_text(void);
int zcache_swap_loss_init(void);

/* counters.c */
void zcache_count_unknown_pool(void);
unsigned long zcache_unknown_pools(void);
void zcache_counters_retire(struct zcache_pool *pool);
u64 zcache_counter_retired(int counter);

/* pools.c */
extern struct mutex zcache_mutex;
extern struct xarray zcache_pools;

int zcache_pool_activate(struct zcache_transport *t, struct zcache_pool *pool);
void zcache_pools_deactivate(void);
bool zcache_swap_pools_exist(void);
void zcache_shared_pools_flush(struct zcache_transport *t);
void zcache_dead_pools_forget(void);
void zcache_pools_exit(void);
int zcache_dead_pools_destroy(struct zcache_transport *t);
int zcache_pool_destroy_on(struct zcache_transport *t, u32 id);

/* path.c */
struct zcache_transport *zcache_current_locked(void);
enum zcache_state zcache_get_state(void);
bool zcache_comes_back(void);
void zcache_set_state(enum zcache_state state);
void zcache_publish(struct zcache_transport *t);
void zcache_unpublish(void);

/* hibernate.c */
int zcache_hibernate_init(void);
void zcache_hibernate_exit(void);

/* session.c */
extern struct workqueue_struct *zcache_wq;

void zcache_session_show(struct seq_file *m);
int zcache_session_init(void);
void zcache_session_exit(void);

#ifdef ZCACHE_NATIVE_HOOKS
/* hooks/cleancache.c */
int zcache_cleancache_init(void);

/* hooks/ext4.c */
#ifdef CONFIG_TRACEPOINTS
bool zcache_ext4_watched(void);
bool zcache_ext4_present(void);
int zcache_ext4_init(void);
void zcache_ext4_exit(void);
#else
static inline bool zcache_ext4_watched(void)
{
	return false;
}

static inline bool zcache_ext4_present(void)
{
	return false;
}

static inline int zcache_ext4_init(void)
{
	return -EOPNOTSUPP;
}

static inline void zcache_ext4_exit(void)
{
}
#endif

/* hooks/frontswap.c */
void zcache_frontswap_init(void);

/* hooks/orphans.c */
void zcache_orphans_schedule(void);

/* hooks/swapin.c */
static inline bool zcache_swapin_offered(void)
{
	return true;
}

bool zcache_swapin_ended(void);
void zcache_swapin_start(unsigned long live);
void zcache_swapin_stop(void);

/* frontswap has nowhere else to put a page that it takes back. */
#define ZCACHE_FEATURES		0

static inline void zcache_take_back_begin(bool takes_back)
{
}

static inline void zcache_take_back_exit(void)
{
}
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

/* What a session asks for if the device offers it. */
#define ZCACHE_FEATURES		ZCACHE_F_TAKE_BACK

/* take_back.c */
void zcache_take_back_begin(bool takes_back);
void zcache_take_back_exit(void);
#endif

/* drain.c */
void zcache_drain(struct zcache_transport *t);
unsigned int zcache_take_some(struct zcache_transport *t,
			      struct zcache_pool *pool, unsigned int most);

/* stats.c */
void zcache_stats_init(void);
void zcache_stats_exit(void);

#endif /* _ZCACHE_INTERNAL_H */
