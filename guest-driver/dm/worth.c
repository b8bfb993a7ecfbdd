// SPDX-License-Identifier: GPL-2.0
/*
 * What pays: which pages are got from the pool, and which are put there.
 *
 * The origin has every page, and it may be faster than the pool: a disk in the
 * host's page cache hands over a long read in less time than it takes to
 * decompress it. So what each way takes is measured as it goes: for short reads,
 * each of which somebody waits for, how long that is; and apart for long ones,
 * and those that follow one another, how fast they move (stream.c).
 *
 * Of the objects, one in so many is always put and got, and another one never,
 * so that both ways are known whatever is done with the others. A page of these
 * is read from the pool if that is not slower. It is put if that pays once it is
 * read as pages are read and written now, so much by short transfers and so much
 * by long ones; and if puts of the first kind save more than they take, which
 * does not matter at first, when nothing can have come back.
 *
 * A page that is read from the origin though the pool may have it is not
 * recorded: what the pool has stays right without that.
 *
 * Who reads from a pool that has room leaves its page there, and need not put it
 * when it is evicted. Where pages are missing that were put, there is no room
 * for two copies: a page that is got is taken, and comes back by a put.
 *
 * All values are estimates. CPUs change them at the same time, and may lose
 * what another one has measured.
 */
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include "dm_zcache.h"

/* Of 2^so many objects one is put and got always, and one never. */
#define SAMPLE_BITS	6
/* How far what is believed moves each time: one part in so many, */
#define STEP_DOWN	16
/* and so much less if it took longer: what is believed is the lower quartile. */
#define STEP_UP		(3 * STEP_DOWN)
/* So many times the memory is put before it matters what that has saved. */
#define PATIENCE	6
/* What was seen before counts for half when so many times the memory was put. */
#define HISTORY		24
/* A page of a stream that took so many times as long has waited for the reader. */
#define PAUSE		4
/* How pages came and went counts for half when this part of the memory has. */
#define LATELY		64
/* A copy stays in the pool while fewer of so many pages are missing there. */
#define MISSING_OF	1024
#define MISSING_FEW	20
#define MISSING_MANY	60
/* The last so many times that pages were asked for count. */
#define MISSING_WEIGHT	64

/* What is believed of a page until it was measured, in ns: a disk that is fast. */
static const u32 dmz_origin_usual[DMZ_NR_READINGS] = {
	[DMZ_SHORT] = 20000,
	[DMZ_LONG] = 10000,
};

static const u32 dmz_get_usual[DMZ_NR_READINGS] = {
	[DMZ_SHORT] = 15000,
	[DMZ_LONG] = 8000,
};

static bool always;
module_param(always, bool, 0644);
MODULE_PARM_DESC(always, "Put and get pages even if the origin is as fast (default: N)");

/* Of a put, in ns. It is the device's, whatever the target. */
static u32 dmz_put_ns;

enum dmz_sample {
	DMZ_NO_SAMPLE,
	DMZ_WITH,
	DMZ_WITHOUT,
};

static enum dmz_sample dmz_sample(u64 block)
{
	switch (hash_64(dmz_object_end(block), SAMPLE_BITS)) {
	case 0:
		return DMZ_WITH;
	case 1:
		return DMZ_WITHOUT;
	default:
		return DMZ_NO_SAMPLE;
	}
}

/* Pages of the samples in so many times the memory. */
static s64 dmz_sample_pages(unsigned int times)
{
	return (s64)(totalram_pages() >> SAMPLE_BITS) * times;
}

/* Whether figures decide about a block. If not, @pays is what is done. */
static bool dmz_figures_decide(u64 block, bool *pays)
{
	enum dmz_sample sample = dmz_sample(block);

	*pays = READ_ONCE(always) || sample == DMZ_WITH;
	return !*pays && sample == DMZ_NO_SAMPLE;
}

/*
 * A transfer takes longer if the guest has no processor for its end: of all
 * things while it puts pages, which must not look like a reason to do so.
 */
static void dmz_learn(u32 *believed, u64 ns, unsigned int pages)
{
	u32 now = min_t(u64, div_u64(ns, pages), U32_MAX / 2);
	u32 old = READ_ONCE(*believed);

	if (!old)
		old = now;
	else if (now > old)
		old += old / STEP_UP + 1;
	else if (now < old)
		old -= old / STEP_DOWN;
	WRITE_ONCE(*believed, old);
}

/* The mean of what a page took in the last objects, without the pauses. */
static void dmz_learn_mean(u32 *believed, u64 ns, unsigned int pages)
{
	s64 now = min_t(u64, div_u64(ns, pages), U32_MAX / (2 * PAUSE));
	s64 old = READ_ONCE(*believed);

	if (old)
		now = old + div_s64(min(now, old * PAUSE) - old, STEP_DOWN);
	WRITE_ONCE(*believed, now);
}

/**
 * dmz_lately - pages are read or written
 * @t:		the target
 * @reading:	how
 * @pages:	how many
 *
 * Context: Any.
 */
void dmz_lately(struct dmz_target *t, enum dmz_reading reading,
		unsigned int pages)
{
	struct dmz_worth *w = &t->worth;
	u32 lately = READ_ONCE(w->lately[reading]) + pages;
	unsigned int i;

	WRITE_ONCE(w->lately[reading], lately);
	if (lately >= totalram_pages() / LATELY)
		for (i = 0; i < DMZ_NR_READINGS; i++)
			WRITE_ONCE(w->lately[i], READ_ONCE(w->lately[i]) / 2);
}

/* What a read from the pool saves, in ns a page. */
static s64 dmz_gain(struct dmz_target *t, enum dmz_reading reading)
{
	s64 origin = READ_ONCE(t->worth.origin_ns[reading]) ?:
		     dmz_origin_usual[reading];
	s64 get = READ_ONCE(t->worth.get_ns[reading]) ?: dmz_get_usual[reading];

	/*
	 * What is measured of short gets, if only samples are got, is that the
	 * device has to wake up; if all are, it is awake.
	 */
	return (reading == DMZ_SHORT ? origin * 2 : origin) - get;
}

/* What a page in the pool saves, if it is read as pages came and went of late. */
static s64 dmz_hope(struct dmz_target *t)
{
	s64 saves = 0, pages = 0;
	enum dmz_reading i;

	for (i = 0; i < DMZ_NR_READINGS; i++) {
		u32 lately = READ_ONCE(t->worth.lately[i]);

		saves += max_t(s64, dmz_gain(t, i), 0) * lately;
		pages += lately;
	}
	return pages ? div64_s64(saves, pages) : 0;
}

/**
 * dmz_origin_took - a short read from the origin is done
 * @t:		the target
 * @pages:	how many
 * @ns:		how long it took
 *
 * Context: Any.
 */
void dmz_origin_took(struct dmz_target *t, unsigned int pages, u64 ns)
{
	dmz_learn(&t->worth.origin_ns[DMZ_SHORT], ns, pages);
}

/**
 * dmz_object_took - a stream has passed through an object
 * @t:		the target
 * @pages:	how many were read
 * @hits:	how many of them the pool had
 * @ns:		how long it took
 *
 * Context: Any.
 */
void dmz_object_took(struct dmz_target *t, unsigned int pages,
		     unsigned int hits, u64 ns)
{
	if (!hits)
		dmz_learn_mean(&t->worth.origin_ns[DMZ_LONG], ns, pages);
	else if (hits >= pages / 4 * 3)
		dmz_learn_mean(&t->worth.get_ns[DMZ_LONG], ns, pages);
}

/**
 * dmz_gets_took - pages were asked of the pool
 * @t:		the target
 * @block:	the first
 * @reading:	how they are read
 * @pages:	how many
 * @hits:	how many of them it had
 * @ns:		how long it took
 *
 * Context: Any.
 */
void dmz_gets_took(struct dmz_target *t, u64 block, enum dmz_reading reading,
		   unsigned int pages, unsigned int hits, u64 ns)
{
	struct dmz_worth *w = &t->worth;
	int missing = READ_ONCE(w->missing);

	if (reading == DMZ_SHORT)
		dmz_learn(&w->get_ns[DMZ_SHORT], ns, pages);
	if (dmz_sample(block) == DMZ_WITH)
		atomic64_add(max_t(s64, dmz_gain(t, reading), 0) * hits,
			     &w->sample_saved);
	missing += (int)((pages - hits) * MISSING_OF / pages) -
		   missing / MISSING_WEIGHT;
	WRITE_ONCE(w->missing, missing);
	if (missing > MISSING_MANY * MISSING_WEIGHT)
		WRITE_ONCE(w->take, true);
	else if (missing < MISSING_FEW * MISSING_WEIGHT)
		WRITE_ONCE(w->take, false);
}

/**
 * dmz_puts_took - reclaim has put pages
 * @pages:	how many
 * @ns:		how long it took
 *
 * Context: Any.
 */
void dmz_puts_took(unsigned int pages, u64 ns)
{
	dmz_learn(&dmz_put_ns, ns, pages);
}

/**
 * dmz_put_counts - a page is put
 * @t:		the target
 * @block:	its block
 *
 * Context: Any.
 */
void dmz_put_counts(struct dmz_target *t, u64 block)
{
	struct dmz_worth *w = &t->worth;
	s64 many = dmz_sample_pages(HISTORY);

	if (dmz_sample(block) != DMZ_WITH ||
	    atomic64_inc_return(&w->sample_puts) < many)
		return;
	atomic64_set(&w->sample_puts, many / 2);
	atomic64_set(&w->sample_saved, atomic64_read(&w->sample_saved) / 2);
}

/**
 * dmz_gets_take - does a get take the page out of the pool?
 * @t:	the target
 *
 * Context: Any.
 */
bool dmz_gets_take(struct dmz_target *t)
{
	return t->on_evict && READ_ONCE(t->worth.take);
}

/**
 * dmz_get_pays - are pages got from the pool if it has them?
 * @t:		the target
 * @block:	the first
 * @reading:	how they are read
 *
 * Who takes a page out has to put it again.
 *
 * Context: Any.
 */
bool dmz_get_pays(struct dmz_target *t, u64 block, enum dmz_reading reading)
{
	bool pays;

	if (!dmz_figures_decide(block, &pays))
		return pays;
	return dmz_gain(t, reading) >=
	       (dmz_gets_take(t) ? READ_ONCE(dmz_put_ns) : 0);
}

/**
 * dmz_put_pays - is a page put when it is evicted?
 * @t:		the target
 * @block:	its block
 *
 * Context: Any.
 */
bool dmz_put_pays(struct dmz_target *t, u64 block)
{
	s64 puts = atomic64_read(&t->worth.sample_puts);
	u32 put_ns = READ_ONCE(dmz_put_ns);
	bool pays;

	if (!dmz_figures_decide(block, &pays))
		return pays;
	if (dmz_hope(t) <= put_ns)
		return false;
	return puts < dmz_sample_pages(PATIENCE) ||
	       atomic64_read(&t->worth.sample_saved) >= puts * put_ns;
}

/**
 * dmz_worth_put_ns - what a put takes, in ns; 0: not known
 */
unsigned int dmz_worth_put_ns(void)
{
	return READ_ONCE(dmz_put_ns);
}
