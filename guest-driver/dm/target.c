// SPDX-License-Identifier: GPL-2.0
/*
 * The device-mapper target: tables, suspension, status and messages.
 */
#include <linux/module.h>
#include "dm_zcache.h"

static const char * const dmz_counter_names[DMZ_NR_COUNTERS] = {
	[DMZ_HITS] = "hits",
	[DMZ_MISSES] = "misses",
	[DMZ_MAYBE_WRONG] = "maybe_wrong",
	[DMZ_BYPASSED] = "bypassed",
	[DMZ_PUTS] = "puts",
	[DMZ_PUT_KEPT] = "put_kept",
	[DMZ_PUT_NOT_WORTH] = "put_not_worth",
	[DMZ_PUT_DROPPED] = "put_dropped",
	[DMZ_PUT_BEYOND] = "put_beyond",
	[DMZ_PUT_REFUSED_CONTENT] = "put_refused_content",
	[DMZ_INVALIDATES] = "invalidates",
	[DMZ_FORGOTTEN] = "forgotten",
	[DMZ_REREADS] = "rereads",
};

static const char * const dmz_reading_names[DMZ_NR_READINGS] = {
	[DMZ_SHORT] = "short",
	[DMZ_LONG] = "long",
};

static void dmz_free(struct dmz_target *t)
{
	if (t->id)
		dmz_target_remove(t);
	if (t->pool)
		zcache_pool_remove(t->pool->id);
	dmz_present_exit(t);
	if (t->origin)
		dm_put_device(t->ti, t->origin);
	free_percpu(t->counters);
	kfree(t);
}

static int dmz_parse_options(struct dmz_target *t, struct dm_arg_set *args)
{
	static const struct dm_arg count_arg = { 0, 1, "Bad number of options" };
	unsigned int count;
	const char *option;

	t->on_evict = true;
	if (!args->argc)
		return 0;
	if (dm_read_arg_group(&count_arg, args, &count, &t->ti->error))
		return -EINVAL;
	while (count--) {
		option = dm_shift_arg(args);
		if (!strcmp(option, "put=read")) {
			t->on_evict = false;
		} else if (strcmp(option, "put=evict")) {
			t->ti->error = "Unknown option";
			return -EINVAL;
		}
	}
	return 0;
}

static int dmz_parse(struct dmz_target *t, unsigned int argc, char **argv)
{
	struct dm_arg_set args = { .argc = argc, .argv = argv };
	struct dm_target *ti = t->ti;
	unsigned long long start;
	const char *device;
	int err;
	char dummy;

	if (argc < 2) {
		ti->error = "Device and offset are needed";
		return -EINVAL;
	}
	device = dm_shift_arg(&args);
	if (sscanf(dm_shift_arg(&args), "%llu%c", &start, &dummy) != 1 ||
	    start != (sector_t)start) {
		ti->error = "Bad offset";
		return -EINVAL;
	}
	t->start = start;
	err = dmz_parse_options(t, &args);
	if (err)
		return err;
	err = dm_get_device(ti, device, dm_table_get_mode(ti->table),
			    &t->origin);
	if (err)
		ti->error = "Origin not found";
	return err;
}

static int dmz_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dmz_target *t;
	int err;

	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	t->ti = ti;
	mutex_init(&t->flush_lock);
	err = dmz_parse(t, argc, argv);
	if (err)
		goto fail;

	err = -EINVAL;
	t->blocks = DIV_ROUND_UP_ULL(ti->len, DMZ_BLOCK_SECTORS);
	if (!dmz_aligned(ti->begin) || t->blocks > DMZ_MAX_BLOCKS) {
		ti->error = "Not on a page's boundary, or too large";
		goto fail;
	}
	t->bdev = dm_disk(dm_table_get_md(ti->table))->part0;
	t->mapping = zcache_bdev_mapping(t->bdev);
	if (t->on_evict && !dmz_evict_possible()) {
		pr_info("this kernel does not tell of evictions: put=read\n");
		t->on_evict = false;
	}

	ti->error = "Out of memory";
	err = -ENOMEM;
	t->counters = alloc_percpu(struct dmz_counters);
	if (!t->counters)
		goto fail;
	err = dmz_present_init(t);
	if (err)
		goto fail;
	t->pool = zcache_pool_add(0, NULL, -1);
	if (IS_ERR(t->pool)) {
		err = PTR_ERR(t->pool);
		t->pool = NULL;
		goto fail;
	}
	err = dmz_target_add(t);
	if (err)
		goto fail;

	ti->error = NULL;
	ti->private = t;
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_secure_erase_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = dmz_io_size();
	return 0;
fail:
	dmz_free(t);
	return err;
}

static void dmz_dtr(struct dm_target *ti)
{
	dmz_free(ti->private);
}

/*
 * From now on nothing is put, and nothing of what is in memory will be. No put
 * is under way when this returns.
 */
static void dmz_hold(struct dmz_target *t, enum dmz_held why)
{
	set_bit(why, &t->held);
	dmz_frames_forget_target(t);
}

/* No I/O is under way. What is below may be changed until dmz_resume(). */
static void dmz_postsuspend(struct dm_target *ti)
{
	dmz_hold(ti->private, DMZ_SUSPENDED);
}

static void dmz_resume(struct dm_target *ti)
{
	struct dmz_target *t = ti->private;

	dmz_flush_all(t);
	clear_bit(DMZ_SUSPENDED, &t->held);
}

static u64 dmz_counter_sum(struct dmz_target *t, enum dmz_counter c)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(t->counters, cpu)->n[c]);
	return sum;
}

static void dmz_status(struct dm_target *ti, status_type_t type,
		       unsigned int flags, char *result, unsigned int maxlen)
{
	struct dmz_target *t = ti->private;
	const char *put = t->on_evict ? "evict" : "read";
	unsigned int sz = 0;
	int i;

	switch (type) {
	case STATUSTYPE_INFO:
		DMEMIT("state=%s put=%s", READ_ONCE(t->pool->active) ?
		       "attached" : "unattached", put);
		for (i = 0; i < DMZ_NR_COUNTERS; i++)
			DMEMIT(" %s=%llu", dmz_counter_names[i],
			       dmz_counter_sum(t, i));
		for (i = 0; i < DMZ_NR_READINGS; i++)
			DMEMIT(" %s_origin_ns=%u %s_get_ns=%u",
			       dmz_reading_names[i],
			       READ_ONCE(t->worth.origin_ns[i]),
			       dmz_reading_names[i],
			       READ_ONCE(t->worth.get_ns[i]));
		DMEMIT(" put_ns=%u sample_puts=%lld sample_saved_ns=%lld gets_take=%d",
		       dmz_worth_put_ns(),
		       (long long)atomic64_read(&t->worth.sample_puts),
		       (long long)atomic64_read(&t->worth.sample_saved),
		       dmz_gets_take(t));
		DMEMIT(" memory=%zu", dmz_frames_bytes() +
		       dmz_present_bytes(t));
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %llu 1 put=%s", t->origin->name,
		       (unsigned long long)t->start, put);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",origin=%s,offset=%llu,put=%s;", t->origin->name,
		       (unsigned long long)t->start, put);
		break;
	}
}

static int dmz_message(struct dm_target *ti, unsigned int argc, char **argv,
		       char *result, unsigned int maxlen)
{
	struct dmz_target *t = ti->private;

	if (argc != 1 || strcmp(argv[0], "flush"))
		return -EINVAL;
	mutex_lock(&t->flush_lock);
	dmz_hold(t, DMZ_FLUSHING);
	dmz_flush_all(t);
	clear_bit(DMZ_FLUSHING, &t->held);
	mutex_unlock(&t->flush_lock);
	return 0;
}

static int dmz_iterate_devices(struct dm_target *ti,
			       iterate_devices_callout_fn fn, void *data)
{
	struct dmz_target *t = ti->private;

	return fn(ti, t->origin, t->start, ti->len, data);
}

static struct target_type dmz_type = {
	.name = "zcache",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = dmz_ctr,
	.dtr = dmz_dtr,
	.map = dmz_map,
	.end_io = dmz_end_io,
	.postsuspend = dmz_postsuspend,
	.resume = dmz_resume,
	.status = dmz_status,
	.message = dmz_message,
	.iterate_devices = dmz_iterate_devices,
};

static int __init dmz_init(void)
{
	int err = dmz_content_init();

	if (err)
		return err;
	err = dmz_bio_init();
	if (err)
		return err;
	err = dm_register_target(&dmz_type);
	if (err)
		dmz_bio_exit();
	return err;
}
module_init(dmz_init);

static void __exit dmz_exit(void)
{
	dm_unregister_target(&dmz_type);
	dmz_bio_exit();
}
module_exit(dmz_exit);

MODULE_DESCRIPTION("Transcendent memory kept by the host: device-mapper target for clean pages");
MODULE_LICENSE("GPL");
