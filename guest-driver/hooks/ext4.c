// SPDX-License-Identifier: GPL-2.0
/*
 * ext4 writes pages that it has not read.
 *
 * When it zeroes a part of a block (FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE,
 * a truncate), ext4 makes a page for it, fills and changes the buffer, and
 * leaves the page not up to date. The copy that was put of that page stays: it
 * is invalidated when the page leaves the page cache. But reclaim frees the
 * buffers first, and when somebody else holds the page then, it stays without
 * them. The next read finds a page that is not up to date and has no buffers,
 * asks cleancache for it, and gets what the block held before it was zeroed.
 *
 * So the copy goes when the buffers do. ext4 tells of that in a tracepoint, with
 * the page locked, which orders this with the gets and puts of the page.
 */
#include <linux/cleancache.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/tracepoint.h>
#include "../core/internal.h"

/* Why ext4 is not watched; 0: it is, or is not there. */
static int zcache_ext4_err;

/* Its module is there, or is just loaded. */
static bool zcache_ext4_there;

/* The arguments of ext4_releasepage in include/trace/events/ext4.h. */
static void zcache_ext4_releasepage(void *private, struct page *page)
{
	if (!PageUptodate(page))
		cleancache_invalidate_page(page->mapping, page);
}

static bool zcache_ext4_wanted(struct tracepoint *tp)
{
	return !strcmp(tp->name, "ext4_releasepage");
}

static void zcache_ext4_watch(struct tracepoint *tp, void *unused)
{
	int err;

	if (!zcache_ext4_wanted(tp))
		return;
	err = tracepoint_probe_register(tp, zcache_ext4_releasepage, NULL);
	if (err)
		pr_err("can't watch ext4 (%d): no more pools for file pages\n",
		       err);
	WRITE_ONCE(zcache_ext4_err, err);
	WRITE_ONCE(zcache_ext4_there, true);
}

static void zcache_ext4_unwatch(struct tracepoint *tp, void *unused)
{
	if (!zcache_ext4_wanted(tp))
		return;
	tracepoint_probe_unregister(tp, zcache_ext4_releasepage, NULL);
	WRITE_ONCE(zcache_ext4_there, false);
}

static int zcache_ext4_module(struct notifier_block *nb, unsigned long state,
			      void *data)
{
	struct module *module = ((struct tp_module *)data)->mod;
	struct tracepoint *tp;
	unsigned int i;

	for (i = 0; i < module->num_tracepoints; i++) {
		tp = tracepoint_ptr_deref(&module->tracepoints_ptrs[i]);
		if (state == MODULE_STATE_COMING)
			zcache_ext4_watch(tp, NULL);
		else if (state == MODULE_STATE_GOING)
			zcache_ext4_unwatch(tp, NULL);
	}
	return NOTIFY_OK;
}

static struct notifier_block zcache_ext4_modules = {
	.notifier_call = zcache_ext4_module,
};

/**
 * zcache_ext4_watched - is it safe to cache pages of ext4's files
 */
bool zcache_ext4_watched(void)
{
	return !READ_ONCE(zcache_ext4_err);
}

/**
 * zcache_ext4_present - is ext4 there, in the kernel or as a module
 */
bool zcache_ext4_present(void)
{
	return READ_ONCE(zcache_ext4_there);
}

/**
 * zcache_ext4_init - begins to watch ext4, now or when its module comes
 *
 * Context: Process context; sleeps.
 * Return: 0 or an error; after one, cleancache must not be registered with.
 */
int __init zcache_ext4_init(void)
{
	int err;

	for_each_kernel_tracepoint(zcache_ext4_watch, NULL);
	err = register_tracepoint_module_notifier(&zcache_ext4_modules);
	return err ?: zcache_ext4_err;
}

/* Undoes zcache_ext4_init(), for when cleancache would not have us. */
void __init zcache_ext4_exit(void)
{
	unregister_tracepoint_module_notifier(&zcache_ext4_modules);
	for_each_kernel_tracepoint(zcache_ext4_unwatch, NULL);
	tracepoint_synchronize_unregister();
}
