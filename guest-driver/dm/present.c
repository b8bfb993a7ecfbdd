// SPDX-License-Identifier: GPL-2.0
/*
 * What may be in the pool, so that what surely is not costs no round trip.
 *
 * A bit for each block, or for a group of blocks if the device is so large that
 * this would take more than 1/1024 of memory. A bit is set before its block is
 * put. It is cleared when the block is invalidated or taken; that of a group
 * stays until the whole pool is flushed, for it speaks of other blocks too.
 *
 * A clear bit with a page in the pool, which invalidations and puts on other
 * CPUs can leave behind, is a page that nobody asks for until the next put of
 * this block, which replaces or removes it. docs/ordering.md goes through it.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include "dm_zcache.h"

#define PRESENT_PART	1024

int dmz_present_init(struct dmz_target *t)
{
	u64 most = (u64)totalram_pages() * PAGE_SIZE / PRESENT_PART *
		   BITS_PER_BYTE;

	while ((t->blocks >> t->present_shift) > most)
		t->present_shift++;
	t->present_bits = (t->blocks >> t->present_shift) + 1;
	t->present = vzalloc(dmz_present_bytes(t));
	return t->present ? 0 : -ENOMEM;
}

void dmz_present_exit(struct dmz_target *t)
{
	vfree(t->present);
}

size_t dmz_present_bytes(const struct dmz_target *t)
{
	return BITS_TO_LONGS(t->present_bits) * sizeof(long);
}

void dmz_present_set(struct dmz_target *t, u64 block)
{
	unsigned long bit = block >> t->present_shift;

	if (!test_bit(bit, t->present))
		set_bit(bit, t->present);
}

bool dmz_present_test(struct dmz_target *t, u64 block)
{
	return test_bit(block >> t->present_shift, t->present);
}

void dmz_present_clear(struct dmz_target *t, u64 block)
{
	if (!t->present_shift)
		clear_bit(block, t->present);
}

void dmz_present_clear_all(struct dmz_target *t)
{
	unsigned long i;

	for (i = 0; i < BITS_TO_LONGS(t->present_bits); i++)
		WRITE_ONCE(t->present[i], 0);
}

/**
 * dmz_present_next - the next block that may be in the pool
 * @t:		the target
 * @block:	where to begin
 * @end:	where to end
 *
 * Return: The block, or @end.
 */
u64 dmz_present_next(struct dmz_target *t, u64 block, u64 end)
{
	unsigned long bit;

	if (block >= end)
		return end;
	bit = find_next_bit(t->present, ((end - 1) >> t->present_shift) + 1,
			    block >> t->present_shift);
	return clamp((u64)bit << t->present_shift, block, end);
}
