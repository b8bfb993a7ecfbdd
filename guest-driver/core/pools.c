// SPDX-License-Identifier: GPL-2.0
/*
 * The pool table: which pools exist, whether or not a device does.
 *
 * Locking. zcache_mutex serialises everything that adds or removes a pool or
 * a device; all of that may sleep:
 *   cleancache init_fs, init_shared_fs, invalidate_fs	under s_umount
 *   frontswap init, invalidate_area			under swapon_mutex
 *   attach and detach					device lock
 * It is not taken by anything that reclaim calls, so allocating under it is
 * allowed.
 *
 * The data path holds zcache_srcu from looking up the pool to the end of the
 * operation. SRCU, because gets and stores sleep, and because entering a read
 * section is possible with interrupts off. A pool, or the transport, is taken
 * out of sight and freed after synchronize_srcu(), which is bounded because
 * no operation outlasts the transport's timeout.
 *
 * Ids are never used twice. A put that looked at sb->cleancache_poolid before
 * an unmount and arrives after it finds no pool, and not another filesystem's.
 */
#include <linux/slab.h>
#include "internal.h"

/* Adding and removing pools and devices, as above. */
DEFINE_MUTEX(zcache_mutex);
DEFINE_XARRAY(zcache_pools);
struct srcu_struct zcache_srcu;
EXPORT_SYMBOL_GPL(zcache_srcu);

/* Next pool id. 0 is HELLO's on the wire. Under zcache_mutex. */
static u32 zcache_next_id = 1;

/*
 * Persistent pools that were removed while no device was attached. A device
 * that resumes the session still has them. Under zcache_mutex.
 */
static LIST_HEAD(zcache_dead_pools);

static void zcache_pool_free(struct zcache_pool *pool)
{
	if (pool->map)
		zcache_swapmap_free(pool->map);
	free_percpu(pool->counters);
	kfree(pool);
}

static struct zcache_pool *zcache_pool_alloc(u16 flags, const u8 *uuid,
					     int swap_type,
					     unsigned long slots)
{
	struct zcache_pool *pool = kzalloc(sizeof(*pool), GFP_KERNEL);

	if (!pool)
		return NULL;
	pool->flags = flags;
	pool->swap_type = swap_type;
	if (uuid)
		memcpy(pool->uuid, uuid, sizeof(pool->uuid));
	atomic_long_set(&pool->poison, 0);
	INIT_LIST_HEAD(&pool->dead);

	pool->counters = alloc_percpu(struct zcache_counters);
	if (!pool->counters)
		goto fail;
	if (zcache_pool_persistent(pool)) {
		pool->map = zcache_swapmap_alloc(slots);
		if (!pool->map)
			goto fail;
	}
	return pool;
fail:
	zcache_pool_free(pool);
	return NULL;
}

/* Takes the pool over, NULL too: that is -ENOMEM. */
static struct zcache_pool *zcache_pool_insert(struct zcache_pool *pool)
{
	struct zcache_transport *t;
	int err;

	if (!pool)
		return ERR_PTR(-ENOMEM);

	mutex_lock(&zcache_mutex);
	if (zcache_next_id > INT_MAX) {
		/* The kernel keeps ids in an int. */
		err = -ENOSPC;
		goto fail;
	}
	pool->id = zcache_next_id;
	err = xa_insert(&zcache_pools, pool->id, pool, GFP_KERNEL);
	if (err)
		goto fail;
	zcache_next_id++;

	t = zcache_current_locked();
	if (t)
		zcache_pool_activate(t, pool);
	mutex_unlock(&zcache_mutex);
	return pool;
fail:
	mutex_unlock(&zcache_mutex);
	zcache_pool_free(pool);
	return ERR_PTR(err);
}

/**
 * zcache_pool_add - records a new pool and, if there is a device, creates it
 * @flags:	ZCACHE_POOL_*
 * @uuid:	of a shared pool, or NULL
 * @swap_type:	of a persistent pool, or -1
 *
 * That the device does not take the pool, or is lost meanwhile, is no error:
 * the pool is recorded and tried again on the next attach.
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: The pool or an ERR_PTR.
 */
struct zcache_pool *zcache_pool_add(u16 flags, const u8 *uuid, int swap_type)
{
	return zcache_pool_insert(zcache_pool_alloc(flags, uuid, swap_type, 0));
}
EXPORT_SYMBOL_GPL(zcache_pool_add);

/**
 * zcache_swap_pool_add - as zcache_pool_add(), for a swap area of known size
 * @slots:	its pages, all of whose states can be recorded from now on
 * @front:	brings them back, or NULL
 * @owner:	@front's
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: The pool or an ERR_PTR.
 */
struct zcache_pool *zcache_swap_pool_add(unsigned long slots,
					 const struct zcache_swap_front *front,
					 void *owner)
{
	struct zcache_pool *pool = zcache_pool_alloc(ZCACHE_POOL_PERSISTENT,
						     NULL, -1, slots);

	if (pool) {
		pool->front = front;
		pool->owner = owner;
	}
	return zcache_pool_insert(pool);
}
EXPORT_SYMBOL_GPL(zcache_swap_pool_add);

/*
 * Other guests stay in a shared pool that we leave. From then on nobody tells
 * them when a page changes that we put there, so all of it has to go.
 */
static int zcache_pool_leave(struct zcache_transport *t,
			     struct zcache_pool *pool)
{
	int err;

	if (!(pool->flags & ZCACHE_POOL_SHARED))
		return 0;
	err = t->ops->flush_wait(t, pool, ZCACHE_OP_FLUSH_POOL, NULL, 0);
	if (!err)
		pool->joined = false;
	return err;
}

/**
 * zcache_shared_pools_flush - leaves all shared pools
 * @t:	a device that is being detached, out of the data path's sight
 *
 * Context: Process context, zcache_mutex held.
 */
void zcache_shared_pools_flush(struct zcache_transport *t)
{
	struct zcache_pool *pool;
	unsigned long id;

	lockdep_assert_held(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool)
		if (zcache_pool_leave(t, pool))
			break;
}

/**
 * zcache_pool_remove - ends a pool, here and on the device
 * @id:	its id; may be unknown
 *
 * When this returns no operation on the pool is running any more. On the
 * device the pool is destroyed after everything that was sent for it.
 *
 * Context: Process context. Takes zcache_mutex.
 */
void zcache_pool_remove(u32 id)
{
	struct zcache_transport *t;
	struct zcache_pool *pool;

	mutex_lock(&zcache_mutex);
	pool = xa_erase(&zcache_pools, id);
	if (!pool) {
		mutex_unlock(&zcache_mutex);
		return;
	}
	synchronize_srcu_expedited(&zcache_srcu);

	t = zcache_current_locked();
	if (t && pool->created && !zcache_pool_leave(t, pool) &&
	    !t->ops->quiesce(t) && !zcache_pool_destroy_on(t, pool->id))
		pool->created = false;

	zcache_counters_retire(pool);
	if (pool->created && zcache_pool_persistent(pool))
		list_add(&pool->dead, &zcache_dead_pools);
	else
		zcache_pool_free(pool);
	mutex_unlock(&zcache_mutex);
}
EXPORT_SYMBOL_GPL(zcache_pool_remove);

/**
 * zcache_swap_pools_exist - whether there is a swap area that a device may serve
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: true if there is one, whether or not it has pages.
 */
bool zcache_swap_pools_exist(void)
{
	struct zcache_pool *pool;
	bool found = false;
	unsigned long id;

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool)
		found |= zcache_pool_persistent(pool);
	mutex_unlock(&zcache_mutex);
	return found;
}

/**
 * zcache_pool_find - looks up a pool
 * @id:	its id
 *
 * Context: Within zcache_srcu, which protects the result.
 * Return: The pool or NULL.
 */
struct zcache_pool *zcache_pool_find(u32 id)
{
	return xa_load(&zcache_pools, id);
}
EXPORT_SYMBOL_GPL(zcache_pool_find);

/**
 * zcache_pool_activate - creates a pool on a device
 * @t:		the device
 * @pool:	the pool
 *
 * Context: Process context, zcache_mutex held.
 * Return: 0, even if the device refused the pool; -EIO: the device is lost.
 */
int zcache_pool_activate(struct zcache_transport *t, struct zcache_pool *pool)
{
	union zcache_req req = {
		.pool.hdr.opcode = cpu_to_le16(ZCACHE_OP_POOL_CREATE),
		.pool.hdr.flags = cpu_to_le16(pool->flags),
		.pool.hdr.pool = cpu_to_le32(pool->id),
	};
	struct zcache_result res;
	int err;

	lockdep_assert_held(&zcache_mutex);

	memcpy(req.pool.uuid, pool->uuid, sizeof(pool->uuid));
	err = t->ops->control(t, &req, &res);
	if (err) {
		/* The answer may come late. */
		pool->created = true;
		return err;
	}

	/* After a loss others may have kept what we put, and then changed. */
	atomic_long_set(&pool->poison, pool->joined);
	WRITE_ONCE(pool->filled, false);
	if (res.status == cpu_to_le16(ZCACHE_S_OK)) {
		pool->created = true;
		pool->joined = pool->flags & ZCACHE_POOL_SHARED;
		WRITE_ONCE(pool->active, true);
	} else {
		pr_warn("device refuses pool %u (status %u), which stays unused\n",
			pool->id, le16_to_cpu(res.status));
	}
	return 0;
}

/**
 * zcache_pools_deactivate - no pool is on a device any more
 *
 * Persistent pools stay marked as created: a device that resumes the session
 * has them still.
 *
 * Context: Process context, zcache_mutex held.
 */
void zcache_pools_deactivate(void)
{
	struct zcache_pool *pool;
	unsigned long id;

	lockdep_assert_held(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool) {
		WRITE_ONCE(pool->active, false);
		if (!zcache_pool_persistent(pool))
			pool->created = false;
	}
}

/**
 * zcache_pool_destroy_on - destroys a pool on a device
 * @t:	the device, which has answered every request for this pool
 * @id:	the pool's id
 *
 * Context: Process context, zcache_mutex held.
 * Return: 0; -EIO: the device is lost.
 */
int zcache_pool_destroy_on(struct zcache_transport *t, u32 id)
{
	union zcache_req req = {
		.pool.hdr.opcode = cpu_to_le16(ZCACHE_OP_POOL_DESTROY),
		.pool.hdr.pool = cpu_to_le32(id),
	};
	struct zcache_result res;

	lockdep_assert_held(&zcache_mutex);
	return t->ops->control(t, &req, &res);
}

/**
 * zcache_dead_pools_forget - the session is over, and its pools with it
 *
 * Context: Process context, zcache_mutex held.
 */
void zcache_dead_pools_forget(void)
{
	struct zcache_pool *pool, *next;

	lockdep_assert_held(&zcache_mutex);
	list_for_each_entry_safe(pool, next, &zcache_dead_pools, dead) {
		list_del(&pool->dead);
		zcache_pool_free(pool);
	}
}

/**
 * zcache_pools_exit - forgets what only a device would still have asked for
 *
 * Context: Process context; no front-end and no device is left.
 */
void zcache_pools_exit(void)
{
	mutex_lock(&zcache_mutex);
	zcache_dead_pools_forget();
	mutex_unlock(&zcache_mutex);
}

/**
 * zcache_dead_pools_destroy - makes up for what was removed while unattached
 * @t:	a device that resumed the session
 *
 * Context: Process context, zcache_mutex held.
 * Return: 0; -EIO: the device is lost.
 */
int zcache_dead_pools_destroy(struct zcache_transport *t)
{
	struct zcache_pool *pool;
	int err;

	lockdep_assert_held(&zcache_mutex);
	list_for_each_entry(pool, &zcache_dead_pools, dead) {
		err = zcache_pool_destroy_on(t, pool->id);
		if (err)
			return err;
	}
	zcache_dead_pools_forget();
	return 0;
}
