// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `zcachectl`: shows and changes what a vhost-zcache daemon does, by what `zcache-admin` answers
//! beside it. `docs/admin.md` has examples.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`client`] | HTTP over the socket |
//! | [`error`] | what is told when something is not done, and the exit status |
//! | [`run`] | what each command does |
//! | [`show`] | documents as tables for people |
//! | [`units`] | sizes for people |

pub mod args;
pub mod client;
pub mod error;
pub mod run;
pub mod show;
pub mod units;
