// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What operators see and ask for: statistics, upgrades, other settings.

pub mod ask;
mod figures;
pub mod stats;
pub mod stats_socket;
pub mod wish;
pub mod words;
