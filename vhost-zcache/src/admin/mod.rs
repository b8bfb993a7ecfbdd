// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What operators see: statistics, and where they ask for them.

pub mod stats;
pub mod stats_socket;
