// SPDX-License-Identifier: GPL-2.0
/*
 * Has the kernel take accepted swap pages back: frontswap_shrink() faults them
 * into their owners and frees the slots, as swapoff does. In 5.10 it has to be
 * watched:
 *  - it ends when enough pages were brought back, or a signal is pending, or
 *    no slot at all is in use, on disk included; so on its own it can go round
 *    for ever. It runs in a kthread, which gets a signal when it has done
 *    enough or does nothing any more, and looks for it between two processes.
 *  - slots that are free already can wait for a while in the swap slot cache
 *    (64 for each CPU) and count as in use.
 *  - with several swap areas it looks at the first one only.
 *  - where memory is short it is slow: each page it brings back is preceded by
 *    its neighbours, and pushes others out.
 */
#include <linux/frontswap.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include "../core/internal.h"

/*
 * The shrinking thread. It may outlive a drain: when it is told to end it first
 * finishes the process it is at, and in it can wait for a page of a device that
 * was lost. Only one drain runs at a time, and it alone uses these.
 */
static struct task_struct *zcache_swapin_task;
static DECLARE_COMPLETION(zcache_swapin_done);

static int zcache_swapin_thread(void *target)
{
	allow_signal(SIGTERM);
	frontswap_shrink((unsigned long)target);
	complete(&zcache_swapin_done);
	return 0;
}

/* Whether none is running. */
bool zcache_swapin_ended(void)
{
	if (zcache_swapin_task && completion_done(&zcache_swapin_done)) {
		put_task_struct(zcache_swapin_task);
		zcache_swapin_task = NULL;
	}
	return !zcache_swapin_task;
}

/**
 * zcache_swapin_start - has the kernel bring pages back
 * @live:	how many the device has; more than wait in the slot cache
 *
 * Context: Process context, no thread is running.
 */
void zcache_swapin_start(unsigned long live)
{
	unsigned long total = frontswap_curr_pages();
	struct task_struct *task;
	unsigned long target;

	/* One more than ours stays: to ask for all of an area means forever. */
	target = total > live ? total - live + 1 : 1;
	reinit_completion(&zcache_swapin_done);
	task = kthread_create(zcache_swapin_thread, (void *)target,
			      "zcache-drain");
	if (IS_ERR(task))
		return;
	get_task_struct(task);
	zcache_swapin_task = task;
	wake_up_process(task);
}

/* Tells the thread to end, without waiting for it. */
void zcache_swapin_stop(void)
{
	if (!zcache_swapin_ended())
		send_sig(SIGTERM, zcache_swapin_task, 1);
}
