// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use vhost_zcache::args::AdminPath;
use vhost_zcache::sandbox::SeccompMode;

/// Answers HTTP on a Unix socket for operators and orchestrators of a vhost-zcache daemon
///
/// It is a process beside the daemon, and talks to its two sockets for operators. Nothing is lost
/// when it ends. `zcachectl` asks it; docs/admin.md says how else it can be asked.
#[derive(Debug, Parser)]
#[command(name = "zcache-admin", version)]
pub struct Args {
    /// Listen at PATH; peer=USER, mode=MODE, owner=USER and group=GROUP may follow, separated by
    /// commas, as for the daemon's sockets [default: the socket that a service manager has given]
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub socket: Option<AdminPath>,

    /// The daemon's --stats-socket
    #[arg(long, value_name = "PATH", default_value = "/run/zcache/stats.sock")]
    pub stats_socket: PathBuf,

    /// Answer GET /metrics on this address as well, such as 127.0.0.1:9464: of this machine only,
    /// where any of its users may ask
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub metrics_address: Option<SocketAddr>,

    /// The daemon's --control-socket
    #[arg(long, value_name = "PATH", default_value = "/run/zcache/control.sock")]
    pub control_socket: PathBuf,

    /// What happens when it makes a system call that it has no rule for
    #[arg(long, value_name = "ACTION", value_enum, default_value = "kill")]
    pub seccomp: SeccompMode,
}

/// An address that only this machine can reach.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not an address with a port, such as 127.0.0.1:9464")?;
    if !address.ip().is_loopback() {
        return Err("not an address of this machine alone (127.0.0.1 or [::1]): what is there has no encryption".into());
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_stay_on_this_machine() {
        for right in ["127.0.0.1:9464", "127.1.2.3:1", "[::1]:9464"] {
            assert!(loopback(right).is_ok(), "{right} was refused");
        }
        for wrong in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "localhost:9464", "127.0.0.1", "9464", ""] {
            assert!(loopback(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
