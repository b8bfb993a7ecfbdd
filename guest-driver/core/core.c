// SPDX-License-Identifier: GPL-2.0
/*
 * zcache: transcendent memory kept by the host, front-ends and pool table.
 *
 * A kernel with cleancache and frontswap offers no way to take their operations
 * back, so there this module is never unloaded. On others the front-ends are
 * modules of their own, and it goes when none of them uses it. It works without
 * a device, by doing nothing; devices come and go with a transport module such
 * as zcache_virtio.
 */
#include <linux/module.h>
#include "internal.h"

#if defined(ZCACHE_NATIVE_HOOKS) && !defined(CONFIG_CLEANCACHE) && !defined(CONFIG_FRONTSWAP)
#error "this kernel was configured without cleancache and frontswap"
#endif

static char *swap_loss = "wait";
module_param(swap_loss, charp, 0444);
MODULE_PARM_DESC(swap_loss,
		 "When the device is lost, a swap page that it accepted: wait blocks the task until the page is back (default), writethrough has a copy of every page on the swap disk, panic stops the system");

enum zcache_swap_loss zcache_swap_loss;

static const char * const zcache_swap_loss_names[] = {
	[ZCACHE_LOSS_WAIT] = "wait",
	[ZCACHE_LOSS_WRITETHROUGH] = "writethrough",
	[ZCACHE_LOSS_PANIC] = "panic",
};

static const char * const zcache_swap_loss_texts[] = {
	[ZCACHE_LOSS_WAIT] =
		"wait: tasks that need one are blocked until it is back",
	[ZCACHE_LOSS_WRITETHROUGH] =
		"writethrough: they are read from the swap disk",
	[ZCACHE_LOSS_PANIC] =
		"panic: the system stops when one is needed",
};

/* What the policy for lost swap pages means, for the log. */
const char *zcache_swap_loss_text(void)
{
	return zcache_swap_loss_texts[zcache_swap_loss];
}

static int __init zcache_init(void)
{
	int err, policy;

	BUILD_BUG_ON(PAGE_SIZE != ZCACHE_PAGE_SIZE);

	policy = match_string(zcache_swap_loss_names,
			      ARRAY_SIZE(zcache_swap_loss_names), swap_loss);
	if (policy < 0) {
		pr_err("swap_loss=%s is none of wait, writethrough, panic\n",
		       swap_loss);
		return -EINVAL;
	}
	zcache_swap_loss = policy;

	err = zcache_session_init();
	if (err)
		return err;
	zcache_stats_init();

#ifdef ZCACHE_NATIVE_HOOKS
	/* Nothing may fail after the first registration: it can't be undone. */
	err = zcache_cleancache_init();
	if (err) {
		zcache_stats_exit();
		zcache_session_exit();
		return err;
	}
	zcache_frontswap_init();
#endif
	pr_info("loaded, swap_loss=%s\n", zcache_swap_loss_text());
	return 0;
}
module_init(zcache_init);

#ifndef ZCACHE_NATIVE_HOOKS
static void __exit zcache_exit(void)
{
	zcache_stats_exit();
	zcache_session_exit();
	zcache_pools_exit();
}
module_exit(zcache_exit);
#endif

MODULE_DESCRIPTION("Transcendent memory kept by the host: pool table, cleancache and frontswap front-ends");
MODULE_LICENSE("GPL");
