// SPDX-License-Identifier: GPL-2.0
/*
 * Attach, detach and loss of the device.
 *
 *	UNATTACHED --attach--> ATTACHED --detach--> DRAINING ----> UNATTACHED
 *	    LOST   --attach-->  |  |  ^                |
 *	     ^---------lost-----+--)--)------lost------+
 *	     ^                     |  attach
 *	     +---------detach------ SUSPENDED
 *
 * One device is attached at a time; path.c is what others see of it.
 *
 * A device that is lost or suspended still has the swap pages, and gets its
 * turn before any other as long as its driver is bound.
 */
#include <linux/random.h>
#include "internal.h"

/* Runs while memory is being reclaimed, and behind it. */
struct workqueue_struct *zcache_wq;

/* Whose session it is, attached or not, until it is detached. */
static struct zcache_transport *zcache_owner;

static unsigned long zcache_detaches, zcache_losses;

/*
 * Tells a device that still has our pools from one that has another's or
 * none. Chosen when the module is loaded, that is with an empty pool table.
 */
static u8 zcache_instance[ZCACHE_ID_SIZE];

/* Epoch of the session in which the live swap pages were accepted. */
static u64 zcache_epoch;

static void zcache_lost_work(struct work_struct *work);
static DECLARE_WORK(zcache_lost_job, zcache_lost_work);

static void zcache_tell_away(void)
{
	unsigned long live = zcache_swap_total(ZC_PAGE_LIVE);

	if (live)
		pr_err("the device has %lu swap pages; swap_loss=%s\n",
		       live, zcache_swap_loss_text());
}

/*
 * Takes the device out of the data path's sight, which falls back to the
 * buffered state; @state says what for, if it is not lost. When this returns no
 * operation uses it any more.
 */
static void zcache_unpublish_locked(struct zcache_transport *t,
				    enum zcache_state state)
{
	lockdep_assert_held(&zcache_mutex);
	if (state == ZCACHE_SUSPENDED && !READ_ONCE(t->lost))
		/* Before: who does not find it must know why. */
		zcache_set_state(state);
	zcache_unpublish();

	if (READ_ONCE(t->lost)) {
		zcache_set_state(ZCACHE_LOST);
		zcache_losses++;
		pr_err("device lost; file cache falls back to misses\n");
	} else {
		zcache_set_state(state);
		zcache_detaches += state == ZCACHE_UNATTACHED;
		pr_info("%s\n", state == ZCACHE_UNATTACHED ? "detached" :
			"suspended");
	}
	zcache_pools_deactivate();
	if (zcache_get_state() != ZCACHE_SUSPENDED)
		zcache_tell_away();
}

/* A suspended device does not come back as it should. */
static void zcache_stay_away_locked(void)
{
	lockdep_assert_held(&zcache_mutex);
	if (zcache_get_state() != ZCACHE_SUSPENDED)
		return;
	zcache_set_state(ZCACHE_LOST);
	zcache_losses++;
	zcache_tell_away();
}

/* Leaves the device as it should be left, out of the data path's sight. */
static void zcache_leave_locked(struct zcache_transport *t,
				enum zcache_state state)
{
	zcache_unpublish_locked(t, state);
	zcache_shared_pools_flush(t);
	/* What was posted without waiting may be under way still. */
	t->ops->quiesce(t);
}

static int zcache_say_hello(struct zcache_transport *t, u32 features,
			    struct zcache_result *res)
{
	union zcache_req req = {
		.hello.hdr.opcode = cpu_to_le16(ZCACHE_OP_HELLO),
		.hello.version = cpu_to_le32(ZCACHE_VERSION),
		.hello.features = cpu_to_le32(features),
	};

	memcpy(req.hello.instance, zcache_instance, sizeof(zcache_instance));
	return t->ops->control(t, &req, res);
}

static int zcache_hello(struct zcache_transport *t, bool *resumed,
			u32 *features)
{
	struct zcache_result res;
	u64 epoch;
	int err;

	*features = t->features & ZCACHE_FEATURES;
	err = zcache_say_hello(t, *features, &res);
	if (!err && *features &&
	    res.status == cpu_to_le16(ZCACHE_S_UNSUPPORTED)) {
		/* It is not the one whose configuration space was read. */
		*features = 0;
		err = zcache_say_hello(t, 0, &res);
	}
	if (err)
		return err;
	if (res.status != cpu_to_le16(ZCACHE_S_OK)) {
		pr_err("device refuses the session (status %u)\n",
		       le16_to_cpu(res.status));
		return -EPROTO;
	}
	epoch = le64_to_cpu(res.value);
	*resumed = (res.flags & cpu_to_le16(ZCACHE_HELLO_RESUMED)) &&
		   epoch == zcache_epoch;
	zcache_epoch = epoch;
	return 0;
}

/*
 * The device is not the one that has our swap pages: those it accepted are
 * lost, and those it was not told to drop are gone.
 */
static void zcache_session_over_locked(void)
{
	struct zcache_pool *pool;
	unsigned long id, lost;

	lockdep_assert_held(&zcache_mutex);
	zcache_dead_pools_forget();
	xa_for_each(&zcache_pools, id, pool) {
		pool->created = false;
		if (!pool->map)
			continue;
		zcache_swapmap_replace_all(pool->map, ZC_PAGE_STALE,
					   ZC_PAGE_NONE);
		zcache_swapmap_replace_all(pool->map, ZC_PAGE_LIVE,
					   pool->front && pool->front->copied ?
					   ZC_PAGE_NONE : ZC_PAGE_LOST);
	}
	lost = zcache_swap_total(ZC_PAGE_LOST);
	if (lost && zcache_swap_loss != ZCACHE_LOSS_WRITETHROUGH)
		pr_err("new device does not have the %lu swap pages of the old one: tasks that need them %s\n",
		       lost, zcache_swapin_offered() ? "stay blocked" :
		       "get an I/O error");
}

static bool zcache_free_for_locked(struct zcache_transport *t)
{
	if (zcache_current_locked())
		return false;
	return !zcache_owner || zcache_owner == t ||
	       (zcache_get_state() != ZCACHE_SUSPENDED &&
		!zcache_swap_total(ZC_PAGE_LIVE));
}

/**
 * zcache_attach - takes a device into use
 * @t:	the transport, which serves control requests already
 *
 * Opens the session, creates every recorded pool, and only then lets the data
 * path see the device. If that fails nothing has changed.
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: 0; -EALREADY: it is attached; -EBUSY: another device is, or has the
 *	   swap pages and may come back; -EPROTO: it refused the session; -EIO: it
 *	   does not answer.
 */
int zcache_attach(struct zcache_transport *t)
{
	unsigned int created = 0, total = 0;
	struct zcache_pool *pool;
	bool resumed;
	unsigned long id;
	u32 features;
	int err;

	mutex_lock(&zcache_mutex);
	if (!zcache_free_for_locked(t)) {
		err = zcache_current_locked() == t ? -EALREADY : -EBUSY;
		goto unlock;
	}
	err = zcache_hello(t, &resumed, &features);
	if (err)
		goto away;
	if (resumed)
		err = zcache_dead_pools_destroy(t);
	else
		zcache_session_over_locked();
	if (err)
		goto deactivate;

	xa_for_each(&zcache_pools, id, pool) {
		err = zcache_pool_activate(t, pool);
		if (err)
			goto deactivate;
		total++;
		created += pool->active;
	}

	zcache_owner = t;
	zcache_publish(t);
	pr_info("attached: %s session %llu, %u of %u pools replayed\n",
		resumed ? "resumed" : "new", zcache_epoch, created, total);
	zcache_heal_schedule();
	zcache_take_back_begin(features & ZCACHE_F_TAKE_BACK);
	goto unlock;

deactivate:
	zcache_pools_deactivate();
away:
	zcache_stay_away_locked();
unlock:
	mutex_unlock(&zcache_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(zcache_attach);

/**
 * zcache_detach - gives a device up, in an orderly way if it still answers
 * @t:	the transport
 *
 * Brings the swap pages back, and returns every pool to the buffered state.
 * When it returns nothing uses the transport any more, or will.
 *
 * Context: Process context. Takes zcache_mutex. Takes as long as reading all
 *	    accepted swap pages takes.
 */
void zcache_detach(struct zcache_transport *t)
{
	bool drain;

	mutex_lock(&zcache_mutex);
	drain = zcache_current_locked() == t && !READ_ONCE(t->lost);
	if (drain)
		zcache_set_state(ZCACHE_DRAINING);
	mutex_unlock(&zcache_mutex);

	if (drain) {
		/* A store that did not see DRAINING is on record after this. */
		synchronize_srcu_expedited(&zcache_srcu);
		zcache_drain(t);
	}

	mutex_lock(&zcache_mutex);
	if (zcache_current_locked() == t)
		zcache_leave_locked(t, ZCACHE_UNATTACHED);
	if (zcache_owner == t) {
		zcache_owner = NULL;
		zcache_stay_away_locked();
	}
	mutex_unlock(&zcache_mutex);
}
EXPORT_SYMBOL_GPL(zcache_detach);

/**
 * zcache_suspend - stops using a device, which keeps the swap pages
 * @t:	the transport, attached, lost or neither
 *
 * When it returns nothing uses the transport any more, or will before the next
 * zcache_attach(), which resumes the session.
 *
 * Context: Process context. Takes zcache_mutex.
 */
void zcache_suspend(struct zcache_transport *t)
{
	mutex_lock(&zcache_mutex);
	if (zcache_current_locked() == t)
		zcache_leave_locked(t, ZCACHE_SUSPENDED);
	mutex_unlock(&zcache_mutex);
}
EXPORT_SYMBOL_GPL(zcache_suspend);

/**
 * zcache_is_needed - whether swap pages would be lost with a device
 * @t:	the transport
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: true if it has pages that are nowhere else.
 */
bool zcache_is_needed(struct zcache_transport *t)
{
	bool needed;

	mutex_lock(&zcache_mutex);
	needed = (!zcache_owner || zcache_owner == t) &&
		 zcache_swap_total(ZC_PAGE_LIVE);
	mutex_unlock(&zcache_mutex);
	return needed;
}
EXPORT_SYMBOL_GPL(zcache_is_needed);

/**
 * zcache_transport_lost - the device stopped answering
 * @t:	the transport, with its lost flag set
 *
 * Context: Any, interrupts may be off, locks may be held.
 */
void zcache_transport_lost(struct zcache_transport *t)
{
	queue_work(zcache_wq, &zcache_lost_job);
}
EXPORT_SYMBOL_GPL(zcache_transport_lost);

static void zcache_lost_work(struct work_struct *work)
{
	struct zcache_transport *t;

	mutex_lock(&zcache_mutex);
	t = zcache_current_locked();
	if (t && READ_ONCE(t->lost))
		zcache_unpublish_locked(t, ZCACHE_LOST);
	mutex_unlock(&zcache_mutex);
}

/**
 * zcache_session_show - prints the state as "key value" lines
 * @m:	where to
 *
 * Context: Process context, zcache_mutex held.
 */
void zcache_session_show(struct seq_file *m)
{
	static const char * const names[] = {
		[ZCACHE_UNATTACHED] = "unattached",
		[ZCACHE_ATTACHED] = "attached",
		[ZCACHE_DRAINING] = "draining",
		[ZCACHE_LOST] = "lost",
		[ZCACHE_SUSPENDED] = "suspended",
	};

	seq_printf(m, "state %s\n", names[zcache_get_state()]);
	seq_printf(m, "attaches %lu\n", zcache_attach_seq());
	seq_printf(m, "detaches %lu\n", zcache_detaches);
	seq_printf(m, "losses %lu\n", zcache_losses);
}

int __init zcache_session_init(void)
{
	int err = init_srcu_struct(&zcache_srcu);

	if (err)
		return err;
	zcache_wq = alloc_workqueue("zcache", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!zcache_wq) {
		err = -ENOMEM;
		goto exit_srcu;
	}
	get_random_bytes(zcache_instance, sizeof(zcache_instance));
	return 0;
exit_srcu:
	cleanup_srcu_struct(&zcache_srcu);
	return err;
}

/* The jobs that wait in the queue are carried out first. */
void zcache_session_exit(void)
{
	zcache_take_back_exit();
	destroy_workqueue(zcache_wq);
	cleanup_srcu_struct(&zcache_srcu);
}
