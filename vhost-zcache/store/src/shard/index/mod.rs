// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a key to a location. Objects are found by hash in a table that grows one bucket at a
//! time ([`objects`]); each object has a tree of packed nodes over its indexes ([`tree`]); both
//! are made of cells from pages that are charged and given back one by one ([`nodes`]).

pub(crate) mod nodes;
pub(crate) mod objects;
pub(crate) mod tree;
