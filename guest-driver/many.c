// SPDX-License-Identifier: GPL-2.0
/*
 * Swap pages that are stored or got together.
 */
#include "internal.h"

/**
 * zcache_get_many - gets pages
 * @t:		the device
 * @pool:	their pool
 * @io:		the pages; sets err of each
 * @n:		how many
 *
 * Context: As &zcache_transport_ops.get.
 */
void zcache_get_many(struct zcache_transport *t, struct zcache_pool *pool,
		     struct zcache_io *io, unsigned int n)
{
	for (; n; n--, io++)
		io->err = t->ops->get(t, pool, 0, &io->key, io->page);
}
EXPORT_SYMBOL_GPL(zcache_get_many);

/**
 * zcache_store_many - stores pages
 * @t:		the device
 * @pool:	their pool
 * @io:		the pages; sets err of each
 * @n:		how many
 *
 * Context: As &zcache_transport_ops.store.
 */
void zcache_store_many(struct zcache_transport *t, struct zcache_pool *pool,
		       struct zcache_io *io, unsigned int n)
{
	for (; n; n--, io++)
		io->err = t->ops->store(t, pool, &io->key, io->page);
}
EXPORT_SYMBOL_GPL(zcache_store_many);
