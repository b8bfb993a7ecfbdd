// SPDX-License-Identifier: GPL-2.0
/*
 * What to do when a swap page is needed that the device had accepted, and no
 * device has: the parameter swap_loss.
 */
#include <linux/module.h>
#include <linux/string.h>
#include "internal.h"

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

/**
 * zcache_swap_loss_text - what the policy means, for the log
 *
 * Context: Any.
 */
const char *zcache_swap_loss_text(void)
{
	return zcache_swap_loss_texts[zcache_swap_loss];
}

/**
 * zcache_swap_loss_init - takes the parameter
 *
 * Context: Module init.
 * Return: 0; -EINVAL: it is none of the policies.
 */
int __init zcache_swap_loss_init(void)
{
	int policy = match_string(zcache_swap_loss_names,
				  ARRAY_SIZE(zcache_swap_loss_names), swap_loss);

	if (policy < 0) {
		pr_err("swap_loss=%s is none of wait, writethrough, panic\n",
		       swap_loss);
		return -EINVAL;
	}
	zcache_swap_loss = policy;
	return 0;
}
