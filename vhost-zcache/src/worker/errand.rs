// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator wants to be done once: memory given back to the host, a guest's file pages
//! dropped.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use log::info;
use serde_json::json;
use zcache_store::{GivenBack, Guest, PoolId, PoolKind, Store};

use super::places::Places;
use crate::link::message::Errand;

/// Guests that a report names; what others have given is one number. A message is not longer.
const MOST_NAMES: usize = 100;

/// Does it; what has come of it, in a line.
///
/// # Errors
///
/// Why nothing has, in words.
pub fn run(errand: &Errand, store: &Store, guests: &Places) -> Result<String, String> {
    match errand {
        Errand::GiveBack { bytes } => {
            let report = report(store.give_back(*bytes));
            info!("Memory was given back: {report}");
            Ok(report)
        }
        Errand::Flush { guest, pool } => {
            let place = guests.get(*guest).ok_or("the guest has gone")?;
            let session = place.session().ok_or("the guest is not connected, and nothing of it is stored")?;
            flush(session.guest(), *pool)
        }
    }
}

/// A report as a line of JSON.
fn report(given: GivenBack) -> String {
    let GivenBack { asked, given, garbage, holes, ephemeral, wanted, milliseconds } = given;
    let (ephemeral, ephemeral_of_others) = largest(ephemeral);
    let (wanted, wanted_of_others) = largest(wanted);
    // Microseconds say enough.
    let milliseconds = (milliseconds * 1e3).round() / 1e3;
    json!({
        "asked": asked, "given": given, "garbage": garbage, "holes": holes, "ephemeral": ephemeral,
        "ephemeral_of_others": ephemeral_of_others, "wanted_pages": wanted,
        "wanted_pages_of_others": wanted_of_others, "milliseconds": milliseconds
    })
    .to_string()
}

/// The guests with the largest numbers, and the sum of all others'.
fn largest(by_guest: BTreeMap<String, u64>) -> (BTreeMap<String, u64>, u64) {
    let mut by_size: Vec<(String, u64)> = by_guest.into_iter().collect();
    by_size.sort_by_key(|(_, number)| Reverse(*number));
    let others = by_size.iter().skip(MOST_NAMES).map(|(_, number)| number).sum();
    by_size.truncate(MOST_NAMES);
    (by_size.into_iter().collect(), others)
}

/// Drops all pages of a guest's pool, or of all that are its own, if they can be dropped.
fn flush(guest: &Guest, pool: Option<u32>) -> Result<String, String> {
    let known = guest.pools();
    let pools: Vec<PoolId> = match pool {
        None => known.into_iter().filter(|(_, kind)| *kind == PoolKind::Ephemeral).map(|(id, _)| id).collect(),
        Some(number) => match known.into_iter().find(|(id, _)| *id == PoolId(number)) {
            None => return Err(format!("the guest has no pool {number}")),
            Some((_, PoolKind::Persistent)) => {
                return Err(format!("pool {number} is persistent: its pages are kept until the guest flushes them"));
            }
            Some((id, _)) => vec![id],
        },
    };
    // One that ends meanwhile is empty as well.
    let pages: u64 = pools.iter().filter_map(|id| guest.flush_pool(*id).ok()).sum();
    Ok(format!("{pages} pages of {} pools were dropped", pools.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_many_guests_is_a_line_that_fits_into_a_message() {
        let ephemeral: BTreeMap<String, u64> = (0..4096).map(|n| (format!("{n:064}"), 1 << 40)).collect();
        let wanted = ephemeral.clone();
        let line = report(GivenBack { ephemeral, wanted, asked: u64::MAX, ..GivenBack::default() });
        assert!(line.len() < 32 << 10 && !line.contains('\n'), "{} bytes", line.len());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        for others in ["ephemeral_of_others", "wanted_pages_of_others"] {
            assert_eq!(value[others], (4096 - MOST_NAMES as u64) << 40, "{others}");
        }
    }
}
