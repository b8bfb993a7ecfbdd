// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What operators and orchestrators ask of a vhost-zcache daemon, by HTTP over a Unix socket.
//!
//! This is a process beside the daemon: the processes that hold guests' swap have no HTTP server.
//! It knows what anybody knows who may open the daemon's two sockets for operators, and can do what
//! they can; when it ends nothing is lost. `docs/admin.md` says how to use it.
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | what is said in both directions: types, of which the OpenAPI file is made |
//! | [`openapi`] | that file |
//! | [`routes`] | what is done for each request |
//! | [`daemon`] | the daemon's sockets |
//! | [`server`] | the own socket, and how much of it anybody gets |
//! | [`confine`] | what the process may still do |
//! | [`args`] | the command line |

pub mod api;
pub mod args;
pub mod confine;
pub mod daemon;
pub mod extract;
pub mod openapi;
pub mod routes;
pub mod server;
