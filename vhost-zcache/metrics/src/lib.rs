// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The statistics of a daemon as metrics, in the OpenMetrics text format, for Prometheus and others
//! that scrape it. `docs/metrics.md` says what each is.
//!
//! [`catalogue`] has each metric with where it is found in the statistics' document, and
//! [`exposition`] writes them.

pub mod catalogue;
mod exposition;
pub mod metric;

pub use exposition::{CONTENT_TYPE, render};
