// SPDX-License-Identifier: GPL-2.0
/*
 * The entry of a page that a bio carries.
 */
#include "dm_zcache.h"

/**
 * dmz_record_page - records that a transfer of a page begins, if it may be
 * @t:		the target
 * @bv:		the page, a segment of a bio
 * @sector:	where it goes to, on the mapped device
 * @write:	the direction
 *
 * If not, what was known of its frame is forgotten: after the transfer it would
 * be of the past, or of a page that somebody else writes to.
 *
 * Context: Any.
 * Return: whether it was recorded.
 */
bool dmz_record_page(struct dmz_target *t, const struct bio_vec *bv,
		     sector_t sector, bool write)
{
	unsigned long pfn = page_to_pfn(bv->bv_page);

	/*
	 * Who makes the page dirty after the second look finds the entry and
	 * removes it: dmz_frame_record() has the barrier between the two.
	 */
	if (dmz_page_is_cache(t, bv, sector, write) &&
	    dmz_frame_record(t, pfn, dmz_block(t, sector)) &&
	    dmz_page_is_cache(t, bv, sector, write))
		return true;
	dmz_frame_forget(pfn);
	return false;
}
