/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of dm-zcache.ko share: the clean side of zcache on kernels
 * without cleancache. A block device is put under the filesystem; what the
 * page cache evicts of it goes to an ephemeral pool, keyed by block.
 */
#ifndef _DM_ZCACHE_H
#define _DM_ZCACHE_H

#include <linux/bio.h>
#include <linux/delay.h>
#include <linux/device-mapper.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include "compat.h"
#include "zcache_core.h"

#define DMZ_BLOCK_SECTORS	(ZCACHE_PAGE_SIZE >> SECTOR_SHIFT)

/* A frame's entry has 40 bits for the block. */
#define DMZ_MAX_BLOCKS		BIT_ULL(40)

/* Index into dmz_targets, in a byte of a frame's entry; 0 is no target. */
#define DMZ_MAX_TARGETS		256

/* One counter for each way a page can take. dmz_counter_names names them. */
enum dmz_counter {
	DMZ_HITS,		/* pages read from the pool */
	DMZ_MISSES,		/* pages read from the origin */
	DMZ_MAYBE_WRONG,	/* asked of the pool, which had it no more */
	DMZ_BYPASSED,		/* not asked of the pool: the origin is as fast */
	DMZ_PUTS,		/* pages handed to the pool */
	DMZ_PUT_KEPT,		/* evicted pages that the pool has kept */
	DMZ_PUT_NOT_WORTH,	/* pages that are not put: it does not pay */
	DMZ_PUT_DROPPED,	/* no device, or suspended */
	DMZ_PUT_BEYOND,		/* not put: too many pages of one folio */
	DMZ_PUT_REFUSED_CONTENT, /* not, or not surely, what the block holds */
	DMZ_INVALIDATES,	/* bios that change blocks */
	DMZ_FORGOTTEN,		/* entries that these removed */
	DMZ_REREADS,		/* pages that a reader did not take as they were */
	DMZ_NR_COUNTERS
};

struct dmz_counters {
	u64 n[DMZ_NR_COUNTERS];
};

/* Why nothing may be put into a target's pool: bits of dmz_target.held. */
enum dmz_held {
	DMZ_SUSPENDED,		/* what is below may change */
	DMZ_FLUSHING,		/* the pool is being flushed */
};

/**
 * enum dmz_reading - how pages are read, or written
 * @DMZ_SHORT:	few at once, and somebody waits for each
 * @DMZ_LONG:	many at once, or one after another
 */
enum dmz_reading {
	DMZ_SHORT,
	DMZ_LONG,
	DMZ_NR_READINGS
};

#define DMZ_STREAMS	8

/**
 * struct dmz_stream - transfers one after the other: see stream.c
 * @end:	the block behind the last one
 * @pages:	how many they were, if not many
 * @object_pages: pages that were read since it came to the present object
 * @object_hits: how many of them came from the pool
 * @object_end:	the block behind that object; 0: its time is not taken
 * @start:	when it came there
 */
struct dmz_stream {
	u64 end;
	u32 pages;
	u32 object_pages;
	u32 object_hits;
	u64 object_end;
	u64 start;
};

/**
 * struct dmz_worth - what is known of what pays: see worth.c
 * @origin_ns:	a page read from the origin takes so long; 0: not known
 * @get_ns:	one got from the pool; 0: not known
 * @lately:	pages that were read or written of late
 * @streams:	these, and
 * @next_stream: which of them is replaced next
 * @missing:	part of the pages that were asked of the pool without success
 * @take:	gets take pages out of the pool
 * @sample_puts: pages of the samples that were put
 * @sample_saved: ns that were saved by what was got of them
 */
struct dmz_worth {
	u32 origin_ns[DMZ_NR_READINGS];
	u32 get_ns[DMZ_NR_READINGS];
	u32 lately[DMZ_NR_READINGS];
	struct dmz_stream streams[DMZ_STREAMS];
	u32 next_stream;
	int missing;
	bool take;
	atomic64_t sample_puts;
	atomic64_t sample_saved;
};

/**
 * struct dmz_target - a target of a device-mapper table
 * @ti:		the target
 * @origin:	the device below
 * @start:	first sector on it
 * @blocks:	length in pages, the last one rounded up
 * @bdev:	the mapped device, and
 * @mapping:	its page cache
 * @id:		index in dmz_targets
 * @on_evict:	put=evict, else put=read
 * @held:	enum dmz_held: nothing is put while a bit is set
 * @flush_lock:	one message "flush" at a time
 * @pool:	its pool
 * @present:	what may be in the pool: see present.c
 * @present_shift: log2 of the blocks that share a bit
 * @present_bits: how many bits there are
 * @worth:	what pays
 * @counters:	per cpu
 */
struct dmz_target {
	struct dm_target *ti;
	struct dm_dev *origin;
	sector_t start;
	u64 blocks;
	struct block_device *bdev;
	struct address_space *mapping;
	u8 id;
	bool on_evict;
	unsigned long held;
	struct mutex flush_lock;	/* see above */
	struct zcache_pool *pool;
	unsigned long *present;
	unsigned int present_shift;
	unsigned long present_bits;
	struct dmz_worth worth;
	struct dmz_counters __percpu *counters;
};

/* Widens, for a test, the moments in which another CPU can get in between. */
static inline void dmz_dawdle(void)
{
#ifdef ZCACHE_SABOTAGE_DAWDLE
	mdelay(2);
#endif
}

static inline void dmz_count(struct dmz_target *t, enum dmz_counter c, u64 n)
{
	this_cpu_add(t->counters->n[c], n);
}

static inline u64 dmz_block(struct dmz_target *t, sector_t sector)
{
	return dm_target_offset(t->ti, sector) / DMZ_BLOCK_SECTORS;
}

static inline bool dmz_aligned(sector_t sector)
{
	return !(sector & (DMZ_BLOCK_SECTORS - 1));
}

static inline unsigned int dmz_pages(const struct bio *bio)
{
	return DIV_ROUND_UP(bio->bi_iter.bi_size, ZCACHE_PAGE_SIZE);
}

/* registry.c */
extern struct dmz_target *dmz_targets[DMZ_MAX_TARGETS];
int dmz_target_add(struct dmz_target *t);
void dmz_target_remove(struct dmz_target *t);

/* bio.c */
int dmz_map(struct dm_target *ti, struct bio *bio);
int dmz_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error);
unsigned int dmz_io_size(void);
int dmz_bio_init(void);
void dmz_bio_exit(void);

/**
 * enum dmz_served - what has become of a read
 * @DMZ_NOT_SERVED:	it is to be sent to the origin
 * @DMZ_SERVED:		all its pages are filled
 * @DMZ_WOULD_WAIT:	nothing was done, for it must not wait
 */
enum dmz_served {
	DMZ_NOT_SERVED,
	DMZ_SERVED,
	DMZ_WOULD_WAIT,
};

/* read.c */
enum dmz_served dmz_read_from_pool(struct dmz_target *t, struct bio *bio,
				   struct dmz_stream *stream, bool pays);

/* change.c */
void dmz_change(struct dmz_target *t, u64 block, u64 count, unsigned long keep);
void dmz_change_range(struct dmz_target *t, u64 block, u64 count);

/* table.c */
int dmz_frames_get(void);
void dmz_frames_put(void);
size_t dmz_frames_bytes(void);

/**
 * enum dmz_known - what a frame's entry says of its content
 * @DMZ_UNKNOWN:	there is no entry
 * @DMZ_TRANSFER:	nothing yet
 * @DMZ_AHEAD:		the block's, for a part of a read that comes again
 * @DMZ_HOLDS:		the block's
 * @DMZ_KEPT:		the block's, which the pool has as well
 */
enum dmz_known {
	DMZ_UNKNOWN,
	DMZ_TRANSFER,
	DMZ_AHEAD,
	DMZ_HOLDS,
	DMZ_KEPT,
};

/* frames.c */
bool dmz_frame_record(struct dmz_target *t, unsigned long pfn, u64 block);
void dmz_frame_know(struct dmz_target *t, unsigned long pfn, u64 block,
		    enum dmz_known known, u64 hash);
void dmz_frame_put(struct dmz_target *t, unsigned long pfn, u64 block,
		   struct page *page);
void dmz_frame_forget(unsigned long pfn);
void dmz_frame_distrust(unsigned long pfn);
void dmz_frame_move(unsigned long to, unsigned long from);
bool dmz_frame_evict(unsigned long pfn, struct page *page, u64 until);
enum dmz_known dmz_frame_look(struct dmz_target *t, unsigned long pfn,
			      u64 block, u64 *hash);
bool dmz_frame_recorded(unsigned long pfn);

/* chains.c */
void dmz_frames_shut(struct dmz_target *t, u64 block, u64 count,
		     unsigned long keep);
void dmz_frames_shut_range(struct dmz_target *t, u64 block, u64 count);
void dmz_frames_open(struct dmz_target *t, u64 block, u64 count);
void dmz_frames_forget_target(struct dmz_target *t);

/* No frame has this number. */
#define DMZ_NO_FRAME	U32_MAX

/* evict.c */
int dmz_evict_start(void);
void dmz_evict_stop(void);
bool dmz_evict_possible(void);

/* owner.c */
bool dmz_page_is_cache(struct dmz_target *t, const struct bio_vec *bv,
		       sector_t sector, bool write);

/* record.c */
bool dmz_record_page(struct dmz_target *t, const struct bio_vec *bv,
		     sector_t sector, bool write);

/* stream.c */
struct dmz_stream *dmz_follow(struct dmz_target *t, u64 block,
			      unsigned int pages, bool write);
enum dmz_reading dmz_reading(const struct dmz_stream *s);
void dmz_stream_hits(struct dmz_stream *s, unsigned int hits);

/* worth.c */
void dmz_lately(struct dmz_target *t, enum dmz_reading reading,
		unsigned int pages);
void dmz_origin_took(struct dmz_target *t, unsigned int pages, u64 ns);
void dmz_object_took(struct dmz_target *t, unsigned int pages,
		     unsigned int hits, u64 ns);
void dmz_gets_took(struct dmz_target *t, u64 block, enum dmz_reading reading,
		   unsigned int pages, unsigned int hits, u64 ns);
void dmz_puts_took(unsigned int pages, u64 ns);
void dmz_put_counts(struct dmz_target *t, u64 block);
bool dmz_gets_take(struct dmz_target *t);
bool dmz_get_pays(struct dmz_target *t, u64 block, enum dmz_reading reading);
bool dmz_put_pays(struct dmz_target *t, u64 block);
unsigned int dmz_worth_put_ns(void);

/* content.c */
int dmz_content_init(void);
u64 dmz_content_hash(struct page *page);
bool dmz_content_same(u64 recorded, u64 now);

/* present.c */
int dmz_present_init(struct dmz_target *t);
void dmz_present_exit(struct dmz_target *t);
size_t dmz_present_bytes(const struct dmz_target *t);
void dmz_present_set(struct dmz_target *t, u64 block);
bool dmz_present_test(struct dmz_target *t, u64 block);
void dmz_present_clear(struct dmz_target *t, u64 block);
void dmz_present_clear_all(struct dmz_target *t);
u64 dmz_present_next(struct dmz_target *t, u64 block, u64 end);

/* pool.c */
void dmz_put(struct dmz_target *t, u64 block, struct page *page, u64 until);
void dmz_get(struct dmz_target *t, u64 block, struct zcache_get *gets,
	     unsigned int nr);
u64 dmz_object_end(u64 block);
void dmz_flush(struct dmz_target *t, u64 block, u64 count);
void dmz_flush_all(struct dmz_target *t);

#endif /* _DM_ZCACHE_H */
