// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! fio in a guest.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use zcache_tests::Vm;

/// Longest that one run may take: TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// What fio says of its reads.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) reads: u64,
    pub(crate) iops: f64,
    /// Half of the reads took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// 99 % of the reads took no longer.
    pub(crate) p99_us: f64,
}

/// Runs one job with these options.
pub(crate) fn run(vm: &Vm, options: &str) -> Result<Reads> {
    let script = format!("fio --name=set --ioengine=psync --invalidate=0 --output-format=json {options}");
    let output = vm.guest().sh_within(&script, LIMIT * vm.options().patience())?;
    // Notes may precede the document.
    let document = &output[output.find('{').context("fio printed no figures")?..];
    let document: Value = serde_json::from_str(document).context("fio's figures are not JSON")?;
    let read = &document["jobs"][0]["read"];
    // A job that only writes has none.
    let percentile = |name: &str| read["clat_ns"]["percentile"][name].as_f64().unwrap_or(f64::NAN) / 1e3;
    Ok(Reads {
        p50_us: percentile("50.000000"),
        p99_us: percentile("99.000000"),
        reads: read["total_ios"].as_u64().context("fio says nothing of reads")?,
        iops: read["iops"].as_f64().context("fio says nothing of a rate")?,
    })
}
