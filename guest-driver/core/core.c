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

static int __init zcache_init(void)
{
	int err;

	BUILD_BUG_ON(PAGE_SIZE != ZCACHE_PAGE_SIZE);

	err = zcache_swap_loss_init();
	if (err)
		return err;
	err = zcache_session_init();
	if (err)
		return err;
	err = zcache_hibernate_init();
	if (err)
		goto exit_session;
	zcache_stats_init();

#ifdef ZCACHE_NATIVE_HOOKS
	/* Nothing may fail after the first registration: it can't be undone. */
	err = zcache_cleancache_init();
	if (err)
		goto exit_stats;
	zcache_frontswap_init();
#endif
	pr_info("loaded, swap_loss=%s\n", zcache_swap_loss_text());
	return 0;

#ifdef ZCACHE_NATIVE_HOOKS
exit_stats:
	zcache_stats_exit();
	zcache_hibernate_exit();
#endif
exit_session:
	zcache_session_exit();
	return err;
}
module_init(zcache_init);

#ifndef ZCACHE_NATIVE_HOOKS
static void __exit zcache_exit(void)
{
	zcache_stats_exit();
	zcache_hibernate_exit();
	zcache_session_exit();
	zcache_pools_exit();
}
module_exit(zcache_exit);
#endif

MODULE_DESCRIPTION("Transcendent memory kept by the host: pool table, cleancache and frontswap front-ends");
MODULE_LICENSE("GPL");
