// SPDX-License-Identifier: GPL-2.0
/*
 * Transfers that follow one another, and how fast reads of that kind move.
 *
 * Who reads in order waits for no single read: the kernel has begun it before.
 * So how long one takes says little of what it costs. What a page costs is how
 * long the stream needs from one object to the next, by the pages between, and
 * that is measured: of objects that the pool had, and of those that it had
 * nothing of. Both are there whatever is decided (worth.c).
 *
 * All values are estimates, as those of worth.c.
 */
#include "dm_zcache.h"

/* Transfers of so many pages or more are long, in one or one after another: */
#define LONG_READ	8
/* if they begin no more than so many pages from the end of an earlier one. */
#define STREAM_GAP	64
/* An object of which fewer pages were read says nothing. */
#define OBJECT_PAGES	32

static void dmz_stream_begin(struct dmz_stream *s, u64 block)
{
	WRITE_ONCE(s->end, block);
	WRITE_ONCE(s->pages, 0);
	WRITE_ONCE(s->object_end, 0);
}

/* The stream that a transfer belongs to, which may be a new one. */
static struct dmz_stream *dmz_stream(struct dmz_worth *w, u64 block)
{
	struct dmz_stream *s;
	unsigned int i;

	for (i = 0; i < DMZ_STREAMS; i++) {
		s = &w->streams[i];
		if (block + STREAM_GAP - READ_ONCE(s->end) <= 2 * STREAM_GAP)
			return s;
	}
	i = READ_ONCE(w->next_stream);
	WRITE_ONCE(w->next_stream, (i + 1) % DMZ_STREAMS);
	s = &w->streams[i];
	dmz_stream_begin(s, block);
	return s;
}

/* A stream of reads comes to another object. */
static void dmz_next_object(struct dmz_target *t, struct dmz_stream *s,
			    u64 block)
{
	u64 now = ktime_get_ns();
	u32 pages = READ_ONCE(s->object_pages);

	if (READ_ONCE(s->object_end) && pages >= OBJECT_PAGES)
		dmz_object_took(t, pages, READ_ONCE(s->object_hits),
				now - READ_ONCE(s->start));
	WRITE_ONCE(s->object_end, dmz_object_end(block));
	WRITE_ONCE(s->object_pages, 0);
	WRITE_ONCE(s->object_hits, 0);
	WRITE_ONCE(s->start, now);
}

/**
 * dmz_follow - somebody reads or writes
 * @t:		the target
 * @block:	the first block
 * @pages:	how many
 * @write:	he writes
 *
 * What has been seen before, as part of a longer read or of one that must not
 * wait, counts once.
 *
 * Context: Any.
 * Return: The stream that this belongs to.
 */
struct dmz_stream *dmz_follow(struct dmz_target *t, u64 block,
			      unsigned int pages, bool write)
{
	struct dmz_stream *s = dmz_stream(&t->worth, block);
	u64 end = READ_ONCE(s->end);
	u32 more = 0;

	if (block + pages > end) {
		more = min_t(u64, block + pages - end, pages);
		WRITE_ONCE(s->end, block + pages);
	}
	if (write)
		WRITE_ONCE(s->object_end, 0);
	else if (dmz_object_end(block) > READ_ONCE(s->object_end))
		dmz_next_object(t, s, block);
	WRITE_ONCE(s->object_pages, READ_ONCE(s->object_pages) + more);
	WRITE_ONCE(s->pages, min_t(u32, READ_ONCE(s->pages) + more, LONG_READ));
	dmz_lately(t, dmz_reading(s), more);
	return s;
}

/**
 * dmz_reading - how long the reads of a stream are
 * @s:	the stream
 *
 * Context: Any.
 */
enum dmz_reading dmz_reading(const struct dmz_stream *s)
{
	return READ_ONCE(s->pages) < LONG_READ ? DMZ_SHORT : DMZ_LONG;
}

/**
 * dmz_stream_hits - pages of a stream came from the pool
 * @s:		the stream
 * @hits:	how many
 *
 * Context: Any.
 */
void dmz_stream_hits(struct dmz_stream *s, unsigned int hits)
{
	WRITE_ONCE(s->object_hits, READ_ONCE(s->object_hits) + hits);
}
