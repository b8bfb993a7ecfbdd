/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The seam of the zcache guest driver.
 *
 * Front-ends (cleancache, frontswap) own pools and turn the kernel's calls
 * into operations on keys; a transport carries operations to a device. They
 * meet in the pool table of pools.c and know nothing of each other.
 *
 * A transport comes and goes; pools and their ids stay. While no transport is
 * attached the table only records what exists.
 */
#ifndef _ZCACHE_CORE_H
#define _ZCACHE_CORE_H

#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>
#include <linux/srcu.h>
#include <linux/types.h>
#include <zcache.h>

struct zcache_transport;
struct zcache_swapmap;
struct zcache_swap_front;

/**
 * enum zcache_counter - what is counted for each pool
 *
 * One counter for each way an operation can end, so that "why was this page
 * not cached" has an answer. zcache_counter_names in stats.c names them.
 */
enum zcache_counter {
	ZC_PUTS,			/* ephemeral pages sent to the device */
	ZC_PUT_DROPPED_RING_FULL,	/* no free slot in the queue */
	ZC_PUT_DROPPED_POISONED,	/* the pool is about to be flushed */
	ZC_PUT_UNATTACHED,		/* no device */
	ZC_PUT_INACTIVE,		/* the device refused the pool */
	ZC_PUT_HUGE,			/* a huge page: only invalidated */
	ZC_GETS,			/* ephemeral gets asked of the device */
	ZC_GET_HITS,			/* ... answered with the page */
	ZC_GET_MISSES,			/* ... answered with a miss */
	ZC_GET_FAILED,			/* ... not answered: device lost */
	ZC_GET_POISONED,		/* missed: pool about to be flushed */
	ZC_GET_EMPTY,			/* missed: nothing was ever put */
	ZC_GET_UNATTACHED,		/* missed: no device */
	ZC_GET_INACTIVE,		/* missed: the device refused the pool */
	ZC_INVALIDATES,			/* pages, ranges and objects */
	ZC_INVALIDATE_UNATTACHED,	/* the device has nothing of the pool */
	ZC_INVALIDATE_BACKLOGGED,	/* ... waited in the backlog */
	ZC_INVALIDATE_DEFERRED,		/* swap: left to the collector */
	ZC_POOL_POISONED,		/* invalidations too many to queue */
	ZC_POOL_HEALED,			/* flushed as a whole and usable again */
	ZC_STORES,			/* swap pages the device accepted */
	ZC_STORE_REFUSED,		/* the device had no room */
	ZC_STORE_FULL,			/* ... a moment ago: it was not asked */
	ZC_STORE_FAILED,		/* no answer: device lost */
	ZC_STORE_UNATTACHED,		/* no device */
	ZC_STORE_DRAINING,		/* the device is being removed */
	ZC_STORE_INACTIVE,		/* the device refused the pool */
	ZC_STORE_NOMEM,			/* no memory to record the page */
	ZC_STORE_STALE,			/* older copy not collected yet */
	ZC_STORE_WANTED,		/* the host wants pages taken back */
	ZC_STORE_HUGE,			/* huge pages are not supported */
	ZC_LOADS,			/* swap pages that came back */
	ZC_LOAD_RESCUED,		/* ... from the driver's own copy */
	ZC_LOAD_UNATTACHED,		/* tries of a load without the device */
	ZC_LOAD_WAITED,			/* loads that had to wait for a device */
	ZC_LOAD_LOST,			/* loads of a page no device has */
	ZC_TAKEN_BACK,			/* swap pages that the host wanted taken */
	ZC_NR_COUNTERS
};

struct zcache_counters {
	u64 n[ZC_NR_COUNTERS];
};

/**
 * struct zcache_pool - a set of pages with one purpose
 * @id:		the driver's choice, never used twice; the same for kernel and
 *		device, across any number of attaches
 * @flags:	ZCACHE_POOL_*
 * @uuid:	of a shared pool, else zero
 * @swap_type:	swap area of a persistent pool, else -1
 * @active:	exists on the attached device; changed under zcache_mutex
 * @filled:	something may have been put since it was created on the device
 * @created:	has been created on a device of the current session, or may have
 *		been, which keeps it if it is persistent; under zcache_mutex
 * @joined:	shared pools: pages that we put may be there, which nobody
 *		invalidated since; under zcache_mutex
 * @poison:	how many invalidations were given up on; while it is not zero
 *		nothing may be put or got, until the pool was flushed as a
 *		whole. See docs/ordering.md
 * @seen:	last round of the orphan search in which a mounted ext4 had it,
 *		0 if none ever did
 * @counters:	per cpu
 * @map:	state of each page of a persistent pool, else NULL
 * @front:	brings its pages back; NULL: they are copied to guest memory
 * @owner:	@front's
 * @take_next:	where to look for a page to take back; under zcache_mutex
 * @dead:	link in the list of pools to destroy on the next attach
 *
 * Found in the table under zcache_srcu, freed after a grace period of it.
 */
struct zcache_pool {
	u32 id;
	u16 flags;
	u8 uuid[ZCACHE_ID_SIZE];
	int swap_type;
	bool active;
	bool filled;
	bool created;
	bool joined;
	unsigned int seen;
	atomic_long_t poison;
	struct zcache_counters __percpu *counters;
	struct zcache_swapmap *map;
	const struct zcache_swap_front *front;
	void *owner;
	unsigned long take_next;
	struct list_head dead;
};

static inline bool zcache_pool_persistent(const struct zcache_pool *pool)
{
	return pool->flags & ZCACHE_POOL_PERSISTENT;
}

static inline void zcache_count(struct zcache_pool *pool, enum zcache_counter c)
{
	this_cpu_inc(pool->counters->n[c]);
}

/**
 * struct zcache_key - names a page within a pool
 * @object:	opaque to the device
 * @index:	page within the object
 */
struct zcache_key {
	u8 object[ZCACHE_OBJECT_SIZE];
	u64 index;
};

/**
 * struct zcache_get - one page of several that are got at once
 * @page:	where to
 * @flags:	ZCACHE_GET_*
 * @err:	set to 0, with the page filled, or to an error as of get
 */
struct zcache_get {
	struct page *page;
	u16 flags;
	int err;
};

/**
 * struct zcache_io - one of several pages that are stored or got together
 * @key:	its key
 * @page:	the page
 * @err:	set to: 0: accepted, or the page is filled; -ENOSPC: refused, and
 *		nothing is stored under the key; or an error as of get
 */
struct zcache_io {
	struct zcache_key key;
	struct page *page;
	int err;
};

/**
 * struct zcache_transport_ops - what a transport does for the pool table
 *
 * For each (pool, object) operations take effect in the order of the calls.
 * All are called within zcache_srcu or under zcache_mutex. "Lost" below means
 * that the device did not answer in time: the transport has then called
 * zcache_transport_lost() and fails everything. The device may do what it was
 * asked for still, but not later than the next zcache_attach() begins, which the
 * transport calls again when it has answered all of it.
 *
 * @put: Ephemeral pool: hands over a copy of the page. May drop it; the device
 *	then serves nothing under the key, if @older says that it could have
 *	before and somebody could ask for it. Waits for room in the queue if there
 *	is hope, but not longer than until ktime_get_ns() is @until.
 *	Context: any, interrupts may be off. Does not sleep.
 *	Return: false if it has dropped it.
 * @flush: ZCACHE_OP_FLUSH_PAGE, _RANGE (@count pages) or _OBJECT.
 *	Context: any, interrupts may be off. Does not sleep.
 *	Return: false if there is no room for it, which happens for persistent
 *	pools only. For ephemeral ones it has taken effect.
 * @get: Context: process, sleeps.
 *	Return: 0, and the page is filled; -ENOENT: a miss; -EBADMSG: the device
 *	has it no more, or damaged; -EIO: lost.
 * @get_many: Gets of @nr consecutive pages of one object, @key being the first.
 *	All are asked for before any is waited for.
 *	Context: process, sleeps.
 * @flush_wait: As @flush and ZCACHE_OP_FLUSH_POOL, but waits for it.
 *	Context: process, sleeps. Return: 0 or -EIO: lost.
 * @control: HELLO, POOL_CREATE, POOL_DESTROY and WANTED. Fills *@res.
 *	Context: process, sleeps. Return: 0 or -EIO: lost.
 * @quiesce: Waits until the device has answered all that was sent before.
 *	Context: process, sleeps. Return: 0 or -EIO: lost.
 * @show: Prints "key value" lines about itself.
 *	Context: process.
 * @swap_many: Persistent pool: @nr stores (ZCACHE_OP_PUT) or gets
 *	(ZCACHE_OP_GET). All are sent before any is waited for, if there is
 *	room. Context: process, sleeps; reclaim: allocates nothing.
 */
struct zcache_transport_ops {
	bool (*put)(struct zcache_transport *t, struct zcache_pool *pool,
		    const struct zcache_key *key, struct page *page, bool older,
		    u64 until);
	bool (*flush)(struct zcache_transport *t, struct zcache_pool *pool,
		      u16 opcode, const struct zcache_key *key, u64 count);
	int (*get)(struct zcache_transport *t, struct zcache_pool *pool,
		   u16 flags, const struct zcache_key *key, struct page *page);
	void (*get_many)(struct zcache_transport *t, struct zcache_pool *pool,
			 const struct zcache_key *key, struct zcache_get *gets,
			 unsigned int nr);
	int (*flush_wait)(struct zcache_transport *t, struct zcache_pool *pool,
			  u16 opcode, const struct zcache_key *key, u64 count);
	int (*control)(struct zcache_transport *t, const union zcache_req *req,
		       struct zcache_result *res);
	int (*quiesce)(struct zcache_transport *t);
	void (*show)(struct zcache_transport *t, struct seq_file *m);
	void (*swap_many)(struct zcache_transport *t, struct zcache_pool *pool,
			  u16 opcode, struct zcache_io *io, unsigned int nr);
};

/**
 * struct zcache_transport - a device, as the pool table sees it
 * @ops:	how to talk to it
 * @features:	ZCACHE_F_* that it offers
 * @lost:	it stopped answering; set by the transport, and cleared by it only
 *		after zcache_suspend()
 */
struct zcache_transport {
	const struct zcache_transport_ops *ops;
	u32 features;
	bool lost;
};

/*
 * A put may wait so long with interrupts off (ns): a device that works frees a
 * slot within microseconds, and a put that is dropped costs a read of the disk.
 */
#define ZCACHE_PUT_WAIT	(500 * NSEC_PER_USEC)

/* For transports: session.c */
int zcache_attach(struct zcache_transport *t);
void zcache_detach(struct zcache_transport *t);
void zcache_suspend(struct zcache_transport *t);
bool zcache_is_needed(struct zcache_transport *t);
void zcache_transport_lost(struct zcache_transport *t);
void zcache_pool_poison(struct zcache_pool *pool);

/* For front-ends: pools.c and path.c */
extern struct srcu_struct zcache_srcu;

struct zcache_pool *zcache_pool_add(u16 flags, const u8 *uuid, int swap_type);
void zcache_pool_remove(u32 id);
struct zcache_pool *zcache_pool_find(u32 id);
bool zcache_stores_wanted(void);
struct zcache_transport *zcache_transport_of(struct zcache_pool *pool,
					     enum zcache_counter unattached,
					     enum zcache_counter inactive);

#endif /* _ZCACHE_CORE_H */
