// SPDX-License-Identifier: GPL-2.0
/*
 * Learns from the kernel's tracepoints when pages leave the page cache.
 *
 * mm_filemap_delete_from_page_cache is called for every page that goes, under
 * the lock of the page tree with interrupts off, before anything of the page is
 * taken apart. Reclaim has frozen the reference count to zero then: nobody has
 * the page, or can get it, so its content stays. Truncation and invalidation
 * hold references, and their pages are not put.
 *
 * mm_filemap_add_to_page_cache removes what is left over from an earlier use of
 * the frame. Migration passes neither: a probe at folio_migrate_flags() takes
 * the entry along. Without that probe migrated pages are not put, no more.
 *
 * writeback_dirty_folio is called when a clean page gets dirty. Whoever changes
 * a page for a user does that to it before he lets go of the page, which cannot
 * be evicted until then: by the system call that writes, by the fault that makes
 * a mapping writable, by the end of a transfer into pinned memory.
 *
 * All of it runs with preemption off and allocates nothing. On PREEMPT_RT that
 * is no place for the locks that are taken, so there it is not done at all.
 */
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/preempt.h>
#include <linux/tracepoint.h>
#include "dm_zcache.h"

static unsigned int folio_puts = 512;
module_param(folio_puts, uint, 0644);
MODULE_PARM_DESC(folio_puts, "Pages put of one folio at most, with interrupts off meanwhile (default: 512)");

static struct tracepoint *dmz_tp_delete, *dmz_tp_add, *dmz_tp_dirty;
static bool dmz_migrate_probed;

/*
 * Interrupts are off for a hash and a copy of each page. The puts wait for
 * slots until ZCACHE_PUT_WAIT is over, all pages together. The rest is bounded
 * by a number and not by the clock, which goes on while the host runs others.
 */
static void dmz_put_folio(struct folio *folio)
{
	unsigned long pfn = folio_pfn(folio), i;
	unsigned int puts = 0, most = READ_ONCE(folio_puts);
	u64 start = 0;

	for (i = 0; i < folio_nr_pages(folio); i++) {
		if (!dmz_frame_recorded(pfn + i))
			continue;
		if (!start)
			start = ktime_get_ns();
		puts += dmz_frame_evict(pfn + i, puts < most ?
					folio_page(folio, i) : NULL,
					start + ZCACHE_PUT_WAIT);
	}
	if (puts)
		dmz_puts_took(puts, ktime_get_ns() - start);
}

/* Who has read these pages may have found that they are wrong. */
static void dmz_distrust_folio(struct folio *folio)
{
	unsigned long pfn = folio_pfn(folio), i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		dmz_frame_distrust(pfn + i);
}

static void dmz_forget_folio(struct folio *folio)
{
	unsigned long pfn = folio_pfn(folio), i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		if (dmz_frame_recorded(pfn + i))
			dmz_frame_forget(pfn + i);
}

static void dmz_on_delete(void *data, struct folio *folio)
{
	if (zcache_stores_wanted() && !folio_ref_count(folio) &&
	    folio_test_uptodate(folio) && !folio_test_dirty(folio) &&
	    !folio_test_writeback(folio))
		dmz_put_folio(folio);
	else if (!folio_test_uptodate(folio))
		dmz_distrust_folio(folio);
	else
		dmz_forget_folio(folio);
}

static void dmz_on_add(void *data, struct folio *folio)
{
	dmz_forget_folio(folio);
}

/* Under the lock of the page tree. The page has the mark already. */
static void dmz_on_dirty(void *data, struct folio *folio,
			 struct address_space *mapping)
{
	dmz_forget_folio(folio);
}

#ifdef CONFIG_KPROBES
/*
 * At the entry of folio_migrate_flags(to, from); both folios are locked. On
 * kernels that distributions ship ftrace calls it. Where the probe is a
 * breakpoint it runs as in an NMI and may take no lock: the entry then stays
 * behind, and is forgotten with the next use of its frame.
 */
static int dmz_on_migrate(struct kprobe *probe, struct pt_regs *regs)
{
	struct folio *to = (void *)regs_get_kernel_argument(regs, 0);
	struct folio *from = (void *)regs_get_kernel_argument(regs, 1);
	unsigned long i;

	if (in_nmi())
		return 0;
	for (i = 0; i < folio_nr_pages(from); i++)
		dmz_frame_move(folio_pfn(to) + i, folio_pfn(from) + i);
	return 0;
}

#endif

/* Cannot be registered on kernels without probes. */
static struct kprobe dmz_migrate_probe = {
	.symbol_name = "folio_migrate_flags",
#ifdef CONFIG_KPROBES
	.pre_handler = dmz_on_migrate,
#endif
};

static void dmz_match(struct tracepoint *tp, void *unused)
{
	if (!strcmp(tp->name, "mm_filemap_delete_from_page_cache"))
		dmz_tp_delete = tp;
	else if (!strcmp(tp->name, "mm_filemap_add_to_page_cache"))
		dmz_tp_add = tp;
	else if (!strcmp(tp->name, "writeback_dirty_folio"))
		dmz_tp_dirty = tp;
}

/**
 * dmz_evict_possible - has the kernel what put=evict needs?
 *
 * Context: Process context.
 */
bool dmz_evict_possible(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return false;
	for_each_kernel_tracepoint(dmz_match, NULL);
	return dmz_tp_delete && dmz_tp_add && dmz_tp_dirty;
}

/**
 * dmz_evict_start - begins to watch the page cache
 *
 * Context: Process context. The table of frames exists.
 * Return: 0 or an error.
 */
int dmz_evict_start(void)
{
	int err;

	if (!dmz_evict_possible())
		return 0;
	err = tracepoint_probe_register(dmz_tp_delete, dmz_on_delete, NULL);
	if (err)
		return err;
	err = tracepoint_probe_register(dmz_tp_add, dmz_on_add, NULL);
	if (err)
		goto undo_delete;
	err = tracepoint_probe_register(dmz_tp_dirty, dmz_on_dirty, NULL);
	if (err)
		goto undo_add;
	dmz_migrate_probe.addr = NULL;
	dmz_migrate_probe.flags = 0;
	dmz_migrate_probed = !register_kprobe(&dmz_migrate_probe);
	if (!dmz_migrate_probed)
		pr_info("no probe at migration: migrated pages are not put\n");
	return 0;

undo_add:
	tracepoint_probe_unregister(dmz_tp_add, dmz_on_add, NULL);
undo_delete:
	tracepoint_probe_unregister(dmz_tp_delete, dmz_on_delete, NULL);
	tracepoint_synchronize_unregister();
	return err;
}

/**
 * dmz_evict_stop - ends watching; no probe runs any more when it returns
 *
 * Context: Process context; sleeps.
 */
void dmz_evict_stop(void)
{
	if (!dmz_evict_possible())
		return;
	if (dmz_migrate_probed)
		unregister_kprobe(&dmz_migrate_probe);
	tracepoint_probe_unregister(dmz_tp_dirty, dmz_on_dirty, NULL);
	tracepoint_probe_unregister(dmz_tp_add, dmz_on_add, NULL);
	tracepoint_probe_unregister(dmz_tp_delete, dmz_on_delete, NULL);
	tracepoint_synchronize_unregister();
}
