// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the table of page frames: an entry of 20 bytes for each frame,
 * and the heads of the chains. One table for all targets, allocated with the
 * first of them and never in the I/O path. It comes in chunks, without those
 * that would be of holes in the memory, or of the kernel alone.
 *
 * Memory that is plugged in later gets its chunks before it is used. It keeps
 * them when it leaves, for somebody may look at an entry. There are no more
 * chains then, so they are longer.
 */
#include <linux/atomic.h>
#include <linux/log2.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "frames.h"

#define CHUNK_SIZE	(DMZ_CHUNK_FRAMES * sizeof(struct dmz_frame))
#define TABLE_SIZE	(DMZ_TABLE_CHUNKS * sizeof(struct dmz_frame *))

/* So many frames share a chain on average if all of them have entries: 2 to 4. */
#define CHAIN_SHIFT	1

struct dmz_lock dmz_locks[DMZ_NR_LOCKS];
struct dmz_frame **dmz_tables[DMZ_NR_TABLES];
u32 *dmz_heads;
unsigned int dmz_head_bits;

static atomic_long_t dmz_used_chunks, dmz_used_tables;

size_t dmz_frames_bytes(void)
{
	return atomic_long_read(&dmz_used_tables) * TABLE_SIZE +
	       atomic_long_read(&dmz_used_chunks) * CHUNK_SIZE +
	       (sizeof(*dmz_heads) << dmz_head_bits);
}

/* Whether a chunk has memory that the page cache can use. */
static bool dmz_chunk_useful(unsigned long chunk)
{
	unsigned long pfn = chunk << DMZ_CHUNK_SHIFT;
	unsigned long end = pfn + DMZ_CHUNK_FRAMES;
	struct page *page;

	for (; pfn < end; pfn++) {
		page = pfn_to_online_page(pfn);
		if (page && !PageReserved(page))
			return true;
	}
	return false;
}

/* The table that a chunk is in, which is made if need be; or NULL. */
static struct dmz_frame **dmz_table(unsigned long chunk)
{
	struct dmz_frame ***at = &dmz_tables[chunk >> DMZ_TABLE_SHIFT];
	struct dmz_frame **table = READ_ONCE(*at), **other;

	if (table)
		return table;
	table = vzalloc(TABLE_SIZE);
	if (!table)
		return NULL;
	other = cmpxchg(at, NULL, table);
	if (other) {
		vfree(table);
		return other;
	}
	atomic_long_inc(&dmz_used_tables);
	return table;
}

static int dmz_chunk_alloc(unsigned long chunk)
{
	struct dmz_frame **table = dmz_table(chunk);
	struct dmz_frame **at, *frames;

	if (!table)
		return -ENOMEM;
	at = &table[chunk & (DMZ_TABLE_CHUNKS - 1)];
	if (READ_ONCE(*at))
		return 0;
	frames = vzalloc(CHUNK_SIZE);
	if (!frames)
		return -ENOMEM;
	if (cmpxchg(at, NULL, frames))
		vfree(frames);
	else
		atomic_long_inc(&dmz_used_chunks);
	return 0;
}

static int dmz_chunks_alloc(unsigned long end)
{
	unsigned long i;

	for (i = 0; i < DIV_ROUND_UP(end, DMZ_CHUNK_FRAMES); i++) {
		if (dmz_chunk_useful(i) && dmz_chunk_alloc(i))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

/* What there is no memory for is not cached; that is no reason to refuse it. */
static int dmz_memory_event(struct notifier_block *nb, unsigned long event,
			    void *data)
{
	const struct memory_notify *memory = data;
	unsigned long i, end;

	if (event != MEM_GOING_ONLINE)
		return NOTIFY_OK;
	end = memory->start_pfn + memory->nr_pages;
	if (end >= DMZ_NO_FRAME)
		return NOTIFY_OK;
	for (i = memory->start_pfn >> DMZ_CHUNK_SHIFT;
	     i < DIV_ROUND_UP(end, DMZ_CHUNK_FRAMES); i++)
		if (dmz_chunk_alloc(i))
			break;
	return NOTIFY_OK;
}

static struct notifier_block dmz_memory_notifier = {
	.notifier_call = dmz_memory_event,
};

/**
 * dmz_frames_get - makes the table
 *
 * Context: Process context.
 * Return: 0 or an error.
 */
int dmz_frames_get(void)
{
	unsigned long end = 0;
	int nid, err;
	unsigned int i;

	/* vmalloc wastes nothing of whole pages. */
	BUILD_BUG_ON(CHUNK_SIZE % PAGE_SIZE);

	/* Before the look at what there is: what comes meanwhile is not missed. */
	err = register_memory_notifier(&dmz_memory_notifier);
	if (err)
		return err;
	for_each_online_node(nid)
		end = max(end, node_end_pfn(nid));
	if (end >= DMZ_NO_FRAME || dmz_chunks_alloc(end))
		goto fail;
	dmz_head_bits = ilog2(atomic_long_read(&dmz_used_chunks) *
			      DMZ_CHUNK_FRAMES) - CHAIN_SHIFT;
	dmz_heads = kvmalloc(sizeof(*dmz_heads) << dmz_head_bits, GFP_KERNEL);
	if (!dmz_heads)
		goto fail;
	memset(dmz_heads, 0xff, sizeof(*dmz_heads) << dmz_head_bits);
	for (i = 0; i < DMZ_NR_LOCKS; i++)
		spin_lock_init(&dmz_locks[i].lock);
	return 0;
fail:
	dmz_frames_put();
	return -ENOMEM;
}

/**
 * dmz_frames_put - frees the table
 *
 * Context: Process context. No probe runs any more.
 */
void dmz_frames_put(void)
{
	unsigned long i, k;

	unregister_memory_notifier(&dmz_memory_notifier);
	for (i = 0; i < DMZ_NR_TABLES; i++) {
		for (k = 0; dmz_tables[i] && k < DMZ_TABLE_CHUNKS; k++)
			vfree(dmz_tables[i][k]);
		vfree(dmz_tables[i]);
		dmz_tables[i] = NULL;
	}
	kvfree(dmz_heads);
	dmz_heads = NULL;
	atomic_long_set(&dmz_used_chunks, 0);
	atomic_long_set(&dmz_used_tables, 0);
}
