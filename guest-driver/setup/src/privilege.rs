// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether this user may do it at all.

use crate::error::{Result, failed};

pub(crate) fn as_root() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(failed("must be root: try sudo")) }
}
