// SPDX-License-Identifier: GPL-2.0
/*
 * The way to the device, as those see it who have something to send.
 *
 * They see it through zcache_transport under SRCU, and what the pointer says is
 * the truth; the state is for those who need to know why. Who changes either is
 * session.c.
 *
 * Ephemeral pages never survive a change of this pointer: HELLO makes the
 * device destroy them. So a put or an invalidation that found no device needs
 * no record. See docs/ordering.md.
 */
#include <linux/wait.h>
#include "internal.h"

static struct zcache_transport __rcu *zcache_transport;
static enum zcache_state zcache_state;

/* Counts attaches, so that a waiter can tell a new device from the old. */
static atomic_long_t zcache_attaches = ATOMIC_LONG_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(zcache_attach_wait);

/**
 * zcache_current_locked - the attached device
 *
 * Context: zcache_mutex held, which keeps it attached.
 * Return: The transport or NULL. It may be lost already.
 */
struct zcache_transport *zcache_current_locked(void)
{
	return rcu_dereference_protected(zcache_transport,
					 lockdep_is_held(&zcache_mutex));
}

/**
 * zcache_transport_of - the way to the device for a pool
 * @pool:	the pool
 * @unattached:	what to count if there is no device
 * @inactive:	what to count if the device does not have the pool
 *
 * Context: Within zcache_srcu, which protects the result. Any.
 * Return: The transport or NULL.
 */
struct zcache_transport *zcache_transport_of(struct zcache_pool *pool,
					     enum zcache_counter unattached,
					     enum zcache_counter inactive)
{
	struct zcache_transport *t;

	t = srcu_dereference(zcache_transport, &zcache_srcu);
	if (!t || READ_ONCE(t->lost)) {
		zcache_count(pool, unattached);
		return NULL;
	}
	if (!READ_ONCE(pool->active)) {
		zcache_count(pool, inactive);
		return NULL;
	}
	return t;
}
EXPORT_SYMBOL_GPL(zcache_transport_of);

enum zcache_state zcache_get_state(void)
{
	return READ_ONCE(zcache_state);
}

/**
 * zcache_stores_wanted - whether the device is there to take pages
 *
 * Context: Any. Within zcache_srcu a drain waits for the store of a swap page.
 * Return: false if there is no device, or it is about to leave.
 */
bool zcache_stores_wanted(void)
{
	return zcache_get_state() == ZCACHE_ATTACHED;
}
EXPORT_SYMBOL_GPL(zcache_stores_wanted);

/**
 * zcache_comes_back - whether an operation that found no device was too early
 *
 * Context: Any.
 * Return: true if the device is suspended, or there again by now.
 */
bool zcache_comes_back(void)
{
	struct zcache_transport *t;
	bool there;
	int srcu;

	if (zcache_get_state() == ZCACHE_SUSPENDED)
		return true;
	srcu = srcu_read_lock(&zcache_srcu);
	t = srcu_dereference(zcache_transport, &zcache_srcu);
	there = t && !READ_ONCE(t->lost);
	srcu_read_unlock(&zcache_srcu, srcu);
	return there;
}

/**
 * zcache_attached - whether there is a device, be it about to leave
 *
 * Context: Any.
 */
bool zcache_attached(void)
{
	enum zcache_state state = zcache_get_state();

	return state == ZCACHE_ATTACHED || state == ZCACHE_DRAINING;
}
EXPORT_SYMBOL_GPL(zcache_attached);

/**
 * zcache_waits_for_lost - what a swap disk does about a page that is away
 *
 * What is no loss is waited for, whatever the policy says.
 *
 * Context: Any. Does not return if the policy is to panic.
 * Return: true: wait for its device; false: the page can't be read.
 */
bool zcache_waits_for_lost(void)
{
	if (zcache_comes_back())
		return true;
	if (zcache_swap_loss == ZCACHE_LOSS_PANIC)
		panic("zcache: swap page lost");
	return zcache_swap_loss == ZCACHE_LOSS_WAIT;
}
EXPORT_SYMBOL_GPL(zcache_waits_for_lost);

unsigned long zcache_attach_seq(void)
{
	return atomic_long_read(&zcache_attaches);
}
EXPORT_SYMBOL_GPL(zcache_attach_seq);

/**
 * zcache_wait_attach - waits for another device than the one that failed
 * @seq:	zcache_attach_seq() from before the failed attempt
 * @seconds:	how long
 *
 * Context: Process context. Sleeps in TASK_IDLE, so that neither the load
 *	    average nor the hung-task detector takes it for a bug.
 * Return: true if there was an attach since @seq was read.
 */
bool zcache_wait_attach(unsigned long seq, unsigned int seconds)
{
	return wait_event_idle_timeout(zcache_attach_wait,
				       zcache_attach_seq() != seq,
				       seconds * HZ);
}
EXPORT_SYMBOL_GPL(zcache_wait_attach);

/**
 * zcache_set_state - says why there is a device or not
 * @state:	why
 *
 * Context: zcache_mutex held.
 */
void zcache_set_state(enum zcache_state state)
{
	lockdep_assert_held(&zcache_mutex);
	WRITE_ONCE(zcache_state, state);
}

/**
 * zcache_publish - lets the data path see a device
 * @t:	the transport, whose session is open
 *
 * Context: zcache_mutex held.
 */
void zcache_publish(struct zcache_transport *t)
{
	lockdep_assert_held(&zcache_mutex);
	rcu_assign_pointer(zcache_transport, t);
	zcache_set_state(ZCACHE_ATTACHED);
	atomic_long_inc(&zcache_attaches);
	wake_up_all(&zcache_attach_wait);
}

/**
 * zcache_unpublish - takes the device out of the data path's sight
 *
 * When this returns no operation uses it any more.
 *
 * Context: Process context, zcache_mutex held; sleeps.
 */
void zcache_unpublish(void)
{
	lockdep_assert_held(&zcache_mutex);
	rcu_assign_pointer(zcache_transport, NULL);
	synchronize_srcu_expedited(&zcache_srcu);
}
