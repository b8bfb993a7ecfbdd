// SPDX-License-Identifier: GPL-2.0
/*
 * Hibernation is refused while swap may be on the device.
 */
#include <linux/suspend.h>
#include "internal.h"

/*
 * A guest that hibernates ends, and the swap pages of its device with it; and
 * no disk of ours can take its image.
 */
static int zcache_pm_event(struct notifier_block *nb, unsigned long event,
			   void *data)
{
	if (event != PM_HIBERNATION_PREPARE || !zcache_swap_pools_exist())
		return NOTIFY_DONE;
	pr_err("no hibernation while swap may be on the device: swapoff first, and remove swap disks\n");
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block zcache_pm_notifier = {
	.notifier_call = zcache_pm_event,
};

int __init zcache_hibernate_init(void)
{
	return register_pm_notifier(&zcache_pm_notifier);
}

void zcache_hibernate_exit(void)
{
	unregister_pm_notifier(&zcache_pm_notifier);
}
