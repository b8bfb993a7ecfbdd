/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of zcache_virtio.ko share among themselves.
 */
#ifndef _ZCACHE_VIRTIO_H
#define _ZCACHE_VIRTIO_H

#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/workqueue.h>
#include "compat.h"
#include "zcache_core.h"

#define ZCV_MAX_QUEUES	8

struct zcv_queue;

/**
 * struct zcv_slot - buffers for one request
 * @node:	link in a free list, or in a list of its task
 * @page:	bounce page, or NULL in slots for requests without a page
 * @done:	called under the queue's lock when the request is answered: until
 *		then the slot is the device's, which may write to it, however
 *		long that takes; then it is @done's
 * @answered:	set when a task that waits for it may look at the answer
 * @seq:	number of the request on its queue
 * @used:	how many bytes the device says it wrote
 * @result:	the answer, copied from @in once
 * @out:	what the device reads, before the page if there is one
 * @in:		what the device writes, before the page if there is one
 */
struct zcv_slot {
	struct list_head node;
	struct page *page;
	void (*done)(struct zcv_queue *q, struct zcv_slot *slot);
	bool answered;
	u32 seq;
	u32 used;
	struct zcache_result result;
	struct {
		struct zcache_batch batch;
		union zcache_req req;
	} out ____cacheline_aligned;
	struct zcache_result in ____cacheline_aligned;
};

/**
 * struct zcv_late - a request that waits for a slot
 * @pool:	pool id; not a pointer, for it may outlive the pool
 * @opcode:	ZCACHE_OP_FLUSH_RANGE, also for one page, _OBJECT or PUT
 * @key:	object and, but for _OBJECT, first index
 * @count:	pages of a range; 1 for a put
 * @page:	what is put; NULL: not any more
 */
struct zcv_late {
	u32 pool;
	u16 opcode;
	struct zcache_key key;
	u64 count;
	struct page *page;
};

/**
 * struct zcv_backlog - requests that found no slot, oldest first
 * @ring:	the entries
 * @size:	their number, a power of two
 * @head:	number of the oldest
 * @tail:	number of the next to come; both run freely
 * @puts:	how many of them are puts
 * @max_puts:	how many may be
 */
struct zcv_backlog {
	struct zcv_late *ring;
	u32 size;
	u32 head;
	u32 tail;
	u32 puts;
	u32 max_puts;
};

static inline u16 zcv_opcode(const struct zcv_slot *slot)
{
	return le16_to_cpu(slot->out.req.hdr.opcode);
}

static inline bool zcv_backlog_empty(const struct zcv_backlog *b)
{
	return b->head == b->tail;
}

/* Whether all that was in the backlog when its tail was at @tail is sent. */
static inline bool zcv_backlog_sent(const struct zcv_backlog *b, u32 tail)
{
	return zcv_backlog_empty(b) || (s32)(b->head - tail) >= 0;
}

/**
 * struct zcv_queue - a virtqueue and its slots
 * @dev:	device
 * @vq:		virtqueue, while the device runs
 * @ring:	how many entries its ring has
 * @lock:	everything below, and every access to @vq but the notification.
 *		Taken with interrupts off; nests inside the page tree's lock and
 *		the swap locks
 * @free_pages:	free slots with a page
 * @free_small:	free slots without
 * @nr_pages:	slots with a page, free or not
 * @nr_free_pages: length of @free_pages
 * @reserve:	how many of them are kept for gets and stores
 * @posted:	requests made available so far
 * @answered:	requests answered so far
 * @progress:	jiffies of the last answer, or of the post that ended idleness
 * @looked:	jiffies when somebody last looked for silence, and
 * @seen:	@progress then
 * @silence:	how many looks in a row found an answer missing, and no progress
 * @unkicked:	requests the device was not notified of
 * @urgent:	a task waits for one of them
 * @gave_up_at:	@answered when a put last waited for a slot in vain, and
 * @gave_up_when: jiffies then
 * @put_waits:	puts that found no slot and waited for one
 * @backlog:	what waits for a slot
 * @put_late:	puts that had to
 * @refused:	puts nobody waited for that the device refused
 * @kicks:	notifications
 * @slots:	all slots
 * @nr_slots:	their number
 *
 * There are no more slots than the ring can carry at a time, so a free slot
 * always finds room in the ring.
 */
struct zcv_queue {
	struct zcv_device *dev;
	struct virtqueue *vq;
	unsigned int ring;
	spinlock_t lock;		/* see above */
	struct list_head free_pages;
	struct list_head free_small;
	unsigned int nr_pages;
	unsigned int nr_free_pages;
	unsigned int reserve;
	u32 posted;
	u32 answered;
	unsigned long progress;
	unsigned long looked;
	unsigned long seen;
	unsigned int silence;
	unsigned int unkicked;
	bool urgent;
	u32 gave_up_at;
	unsigned long gave_up_when;
	unsigned long put_waits;
	struct zcv_backlog backlog;
	unsigned long put_late;
	unsigned long refused;
	unsigned long kicks;
	struct zcv_slot **slots;
	unsigned int nr_slots;
};

/**
 * struct zcv_device - a zcache device on virtio
 * @transport:	how the core sees it. While @transport.lost, nothing is sent
 *		and the device is not notified; but its answers are taken, and
 *		when it owes none any more it is attached anew
 * @broken:	what it answers is not believed any more, or it is stopped. Only a
 *		reset touches it. Implies lost
 * @alive:	it has answered something since it was lost
 * @was_reset:	it was found reset, by somebody else
 * @vdev:	virtio device
 * @wq:		for @tick and @attach
 * @tick:	reaps, sends the backlog and looks for silence, while anything
 *		is outstanding
 * @attach:	attaches the device anew, or when another one has left
 * @ticking:	@tick is scheduled
 * @hurried:	... for soon, because of a backlog or to notify the device
 * @shrinker:	holds up reclaim while queues are crowded
 * @throttled:	how often it did
 * @nr_queues:	in use
 * @queues:	the queues
 */
struct zcv_device {
	struct zcache_transport transport;
	bool broken;
	bool alive;
	bool was_reset;
	struct virtio_device *vdev;
	struct workqueue_struct *wq;
	struct delayed_work tick;
	struct delayed_work attach;
	bool ticking;
	bool hurried;
	struct zcache_shrinker shrinker;
	unsigned long throttled;
	unsigned int nr_queues;
	struct zcv_queue queues[ZCV_MAX_QUEUES];
};

static inline struct zcv_device *to_zcv(struct zcache_transport *t)
{
	return container_of(t, struct zcv_device, transport);
}

static inline bool zcv_is_lost(const struct zcv_device *dev)
{
	return READ_ONCE(dev->transport.lost);
}

static inline bool zcv_is_broken(const struct zcv_device *dev)
{
	return READ_ONCE(dev->broken);
}

/* device.c */

/* The time-out is so many looks without an answer. */
#define ZCV_SILENT_LOOKS	4

unsigned long zcv_timeout(void);
unsigned long zcv_look_time(void);
void zcv_arm(struct zcv_device *dev, bool soon);
void zcv_lost(struct zcv_device *dev, const char *why);
void zcv_broken(struct zcv_device *dev, const char *why);
void zcv_forget_memory(struct zcv_device *dev);

/* ring.c */

/* Ring entries that a request with and without a page takes. */
#define ZCV_DESCS_PAGE	3
#define ZCV_DESCS_SMALL	2

bool zcv_kick_prepare(struct zcv_queue *q);
void zcv_unlock(struct zcv_queue *q, unsigned long flags)
	__releases(&q->lock);
void zcv_reap(struct zcv_queue *q);
struct zcv_slot *zcv_take_page_slot(struct zcv_queue *q, unsigned int leave);
struct zcv_slot *zcv_take_small_slot(struct zcv_queue *q);
void zcv_free_slot(struct zcv_queue *q, struct zcv_slot *slot);
bool zcv_post(struct zcv_queue *q, struct zcv_slot *slot,
	      void (*done)(struct zcv_queue *q, struct zcv_slot *slot));
bool zcv_post_awaited(struct zcv_queue *q, struct zcv_slot *slot);
bool zcv_slot_answered(const struct zcv_slot *slot);
bool zcv_abandon(struct zcv_queue *q, struct zcv_slot *slot);

/* request.c */
struct zcv_queue *zcv_queue_of(struct zcv_device *dev, u32 pool,
			       const struct zcache_key *key);
union zcache_req zcv_key_req(u16 opcode, u16 flags, u32 pool,
			     const struct zcache_key *key, u64 count);
int zcv_put_answer(struct zcv_queue *q, struct zcv_slot *slot);
int zcv_get_answer(struct zcv_queue *q, struct zcv_slot *slot,
		   struct page *page);
int zcv_flush_answer(struct zcv_queue *q, struct zcv_slot *slot);
void zcv_posted_answer(struct zcv_queue *q, struct zcv_slot *slot);

/* backlog.c */
int zcv_backlog_init(struct zcv_backlog *b, unsigned int queues);
void zcv_backlog_free(struct zcv_backlog *b);
bool zcv_backlog_flush(struct zcv_backlog *b, const struct zcv_late *flush);
bool zcv_backlog_put(struct zcv_backlog *b, u32 pool,
		     const struct zcache_key *key, struct page *page);
struct zcv_late *zcv_backlog_first(struct zcv_backlog *b);
u32 zcv_backlog_after(struct zcv_backlog *b, u32 pool,
		      const struct zcache_key *key, unsigned int nr);
void zcv_backlog_cancel_puts(struct zcv_backlog *b, u32 pool);
void zcv_backlog_forget(struct zcv_backlog *b);

/* send.c */
bool zcv_post_flush(struct zcv_queue *q, u16 opcode, u32 pool,
		    const struct zcache_key *key, u64 count);
void zcv_backlog_send(struct zcv_queue *q);
void zcv_turn(struct zcv_queue *q);

/* wait.c */

/* Sleep of a task that waits for a free slot (us). */
#define ZCV_SLOT_SLEEP	50

/**
 * struct zcv_call - a request that a task waits for
 * @q:		its queue
 * @req:	the request, neither a PUT nor a GET
 */
struct zcv_call {
	struct zcv_queue *q;
	union zcache_req req;
};

struct zcv_slot *zcv_call_start(struct zcv_call *call);
struct zcv_slot *zcv_call(struct zcv_call *call);
int zcv_call_abandon(struct zcv_queue *q, struct zcv_slot *slot);
int zcv_call_wait(struct zcv_queue *q, struct zcv_slot *slot);
void zcv_call_end(struct zcv_queue *q, struct zcv_slot *slot);
bool zcv_wait_answer(struct zcv_queue *q, u64 until);
int zcv_quiesce(struct zcv_device *dev);

/* batch.c */
int zcv_get(struct zcache_transport *t, struct zcache_pool *pool, u16 flags,
	    const struct zcache_key *key, struct page *page);
void zcv_get_many(struct zcache_transport *t, struct zcache_pool *pool,
		  const struct zcache_key *key, struct zcache_get *gets,
		  unsigned int nr);
void zcv_swap_many(struct zcache_transport *t, struct zcache_pool *pool,
		   u16 opcode, struct zcache_io *io, unsigned int nr);

/* ops.c */
extern const struct zcache_transport_ops zcv_transport_ops;

/* throttle.c */
int zcv_throttle_start(struct zcv_device *dev);

/* watch.c */
void zcv_tick(struct work_struct *work);
void zcv_attach(struct work_struct *work);
void zcv_attach_later(struct zcv_device *dev);
bool zcv_last_chance(struct zcv_device *dev);

/* queue.c */
int zcv_queue_init(struct zcv_queue *q, struct zcv_device *dev,
		   unsigned int ring, unsigned int max_pages);
int zcv_queue_start(struct zcv_queue *q, struct virtqueue *vq);
void zcv_queue_free(struct zcv_queue *q);

#endif /* _ZCACHE_VIRTIO_H */
