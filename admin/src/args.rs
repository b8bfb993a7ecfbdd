// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::path::PathBuf;

use clap::Parser;
use vhost_zcache::args::AdminPath;

/// Answers HTTP on a Unix socket for operators and orchestrators of a vhost-zcache daemon
///
/// It is a process beside the daemon, and talks to its two sockets for operators. Nothing is lost
/// when it ends. `zcachectl` asks it; docs/admin.md says how else it can be asked.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Listen at PATH; peer=USER, mode=MODE, owner=USER and group=GROUP may follow, separated by
    /// commas, as for the daemon's sockets [default: the socket that a service manager has given]
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub socket: Option<AdminPath>,

    /// The daemon's --stats-socket
    #[arg(long, value_name = "PATH", default_value = "/run/zcache/stats.sock")]
    pub stats_socket: PathBuf,

    /// The daemon's --control-socket
    #[arg(long, value_name = "PATH", default_value = "/run/zcache/control.sock")]
    pub control_socket: PathBuf,
}
