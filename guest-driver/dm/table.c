// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of the table of page frames: an entry of 20 bytes for each frame,
 * and the heads of the chains. One table for all targets, allocated with the
 * first of them and never in the I/O path. It comes in chunks, without those
 * that would be of holes in the memory, or of the kernel alone.
 *
 * Frames of memory that was plugged in after the table was made have no entry.
 */
#include <linux/log2.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "frames.h"

#define CHUNK_SIZE	(DMZ_CHUNK_FRAMES * sizeof(struct dmz_frame))

/* So many frames share a chain on average if all of them have entries: 2 to 4. */
#define CHAIN_SHIFT	1

struct dmz_lock dmz_locks[DMZ_NR_LOCKS];
struct dmz_frame **dmz_chunks;
unsigned long dmz_nr_chunks;
u32 *dmz_heads;
unsigned int dmz_head_bits;

static unsigned long dmz_used_chunks;

size_t dmz_frames_bytes(void)
{
	return dmz_nr_chunks * sizeof(*dmz_chunks) +
	       dmz_used_chunks * CHUNK_SIZE +
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

static int dmz_chunks_alloc(void)
{
	unsigned long i;

	dmz_chunks = kvcalloc(dmz_nr_chunks, sizeof(*dmz_chunks), GFP_KERNEL);
	if (!dmz_chunks)
		return -ENOMEM;
	for (i = 0; i < dmz_nr_chunks; i++) {
		if (!dmz_chunk_useful(i))
			continue;
		dmz_chunks[i] = vzalloc(CHUNK_SIZE);
		if (!dmz_chunks[i])
			return -ENOMEM;
		dmz_used_chunks++;
		cond_resched();
	}
	return 0;
}

/**
 * dmz_frames_get - makes the table
 *
 * Context: Process context.
 * Return: 0 or -ENOMEM.
 */
int dmz_frames_get(void)
{
	unsigned long end = 0;
	unsigned int i;
	int nid;

	/* vmalloc wastes nothing of whole pages. */
	BUILD_BUG_ON(CHUNK_SIZE % PAGE_SIZE);

	for_each_online_node(nid)
		end = max(end, node_end_pfn(nid));
	dmz_nr_chunks = DIV_ROUND_UP(end, DMZ_CHUNK_FRAMES);
	if (end >= DMZ_NO_FRAME || dmz_chunks_alloc())
		goto fail;
	dmz_head_bits = ilog2(dmz_used_chunks * DMZ_CHUNK_FRAMES) - CHAIN_SHIFT;
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
	unsigned long i;

	for (i = 0; dmz_chunks && i < dmz_nr_chunks; i++)
		vfree(dmz_chunks[i]);
	kvfree(dmz_chunks);
	kvfree(dmz_heads);
	dmz_chunks = NULL;
	dmz_heads = NULL;
	dmz_nr_chunks = 0;
	dmz_used_chunks = 0;
}
