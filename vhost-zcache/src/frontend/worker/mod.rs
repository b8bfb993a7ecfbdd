// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads of the data path.

pub mod call;
pub mod queue;
pub mod stop;
