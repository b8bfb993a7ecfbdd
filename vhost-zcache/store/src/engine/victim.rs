// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whose ephemeral memory goes first when memory is short: the one policy of the store.
//!
//! What a guest has of ephemeral memory beyond its reservation is its *excess*. Guests are to have
//! excesses in the ratio of their weights, so the guest whose excess is the largest for its weight
//! gives first ([`Pressure`]). A guest within its reservation gives nothing to others, and
//! persistent pages are nobody's to give.
//!
//! Who puts a page while it is among the first to give makes room in its own shard; the others
//! have room made by the first. So shares come to be in the ratio of the weights, whoever puts how
//! much. Which guest gives which of its pages is [`evict`](crate::shard::evict)'s business.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use thiserror::Error;

use super::Engine;
use super::guest_state::GuestState;

/// How much ephemeral memory a guest is to have beside others: twice the weight, twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u16);

/// What is no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a weight is a number from {} to {}", Weight::LEAST, Weight::MOST)]
pub struct NoWeight;

impl Weight {
    /// The smallest.
    pub const LEAST: u16 = 1;
    /// The largest.
    pub const MOST: u16 = 10_000;
}

impl Default for Weight {
    /// That of a guest of which nothing is said.
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u16> for Weight {
    type Error = NoWeight;

    fn try_from(number: u16) -> Result<Self, NoWeight> {
        if (Self::LEAST..=Self::MOST).contains(&number) { Ok(Self(number)) } else { Err(NoWeight) }
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

/// A guest's weight, which can change.
#[derive(Debug)]
pub(crate) struct GuestWeight(AtomicU16);

impl GuestWeight {
    pub(crate) fn new(weight: Weight) -> Self {
        Self(AtomicU16::new(weight.0))
    }

    pub(crate) fn get(&self) -> Weight {
        Weight(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, weight: Weight) {
        self.0.store(weight.0, Relaxed);
    }
}

/// What a guest has that others can have, and what it is to have beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Bytes of ephemeral memory beyond its reservation.
    pub(super) excess: u64,
    pub(super) weight: Weight,
}

impl Claim {
    pub(super) fn of(guest: &GuestState) -> Self {
        Self { excess: guest.account.surplus(), weight: guest.weight.get() }
    }

    fn pressure(self) -> Pressure {
        Pressure(self.excess.saturating_mul(u64::from(Weight::MOST)) / u64::from(self.weight.0))
    }
}

/// A guest's excess for its weight: the highest gives first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pressure(u64);

impl Pressure {
    /// Whether this is as good as the highest. Were only the very highest meant, nearly every put
    /// would have another guest make room, which takes longer.
    fn is_about(self, highest: Self) -> bool {
        self.0 >= highest.0 - highest.0 / 32
    }
}

/// The highest pressure when somebody looked last.
#[derive(Debug, Default)]
pub(crate) struct Survey(AtomicU64);

impl Engine {
    /// The guest that gives first, if any has something to give.
    pub(super) fn first_to_give(&self) -> Option<Arc<GuestState>> {
        let guests = self.registry.guests().into_iter();
        let first = guests.map(|guest| (Claim::of(&guest), guest)).max_by_key(|(claim, _)| claim.pressure());
        let highest = first.as_ref().map_or(0, |(claim, _)| claim.pressure().0);
        self.survey.0.store(highest, Relaxed);
        first.filter(|(claim, _)| claim.excess > 0).map(|(_, guest)| guest)
    }

    /// Whether a guest was among the first to give when somebody looked last.
    pub(super) fn is_first_to_give(&self, guest: &GuestState) -> bool {
        Claim::of(guest).pressure().is_about(Pressure(self.survey.0.load(Relaxed)))
    }
}

/// What each guest gives so that it is `bytes` in all, if they have as much: as if one after the
/// other had given a little, always the first to give.
pub(super) fn split(claims: &[Claim], bytes: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|at| Reverse(claims[*at].pressure()));
    let mut given = vec![0; claims.len()];
    let (mut excess, mut weight) = (0u128, 0u128);
    for (n, at) in order.iter().enumerate() {
        excess += u128::from(claims[*at].excess);
        weight += u128::from(claims[*at].weight.0);
        // What those so far keep together, if they give all of it.
        let Some(kept) = excess.checked_sub(u128::from(bytes)) else { continue };
        let is_below = |claim: &Claim| u128::from(claim.excess) * weight <= kept * u128::from(claim.weight.0);
        if order.get(n + 1).is_none_or(|next| is_below(&claims[*next])) {
            for giver in &order[..=n] {
                let Claim { excess, weight: own } = claims[*giver];
                let keeps = u64::try_from(kept * u128::from(own.0) / weight).unwrap_or(u64::MAX);
                given[*giver] = excess.saturating_sub(keeps);
            }
            return given;
        }
    }
    claims.iter().map(|claim| claim.excess).collect()
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let claim = (0..1u64 << 40, Weight::LEAST..=Weight::MOST);
        let claim = claim.prop_map(|(excess, weight)| Claim { excess, weight: Weight(weight) });
        prop::collection::vec(claim, 0..12)
    }

    proptest! {
        #[test]
        fn a_split_is_what_was_asked_for_and_leaves_shares_by_weight(claims in claims(), asked in 0..1u64 << 42) {
            let given = split(&claims, asked);
            let (sum, all): (u64, u64) = (given.iter().sum(), claims.iter().map(|claim| claim.excess).sum());
            prop_assert!(sum >= asked.min(all), "{sum} bytes of {asked}");
            prop_assert!(sum <= asked.min(all) + claims.len() as u64, "{sum} bytes for {asked}");
            let left: Vec<Claim> = claims
                .iter()
                .zip(&given)
                .map(|(claim, given)| {
                    assert!(*given <= claim.excess, "{given} bytes are given of {claim:?}");
                    Claim { excess: claim.excess - given, ..*claim }
                })
                .collect();
            // Who gave is left with as much for its weight as all others, give or take a byte.
            let highest = left.iter().map(|claim| claim.pressure().0).max().unwrap_or(0);
            for (claim, given) in left.iter().zip(&given) {
                let byte = u64::from(Weight::MOST) / u64::from(claim.weight.0) + 1;
                let reach = claim.pressure().0 + 2 * byte;
                prop_assert!(*given == 0 || reach >= highest.min(u64::MAX - byte), "{claim:?} gave {given} too much");
            }
        }
    }

    #[test]
    fn numbers_that_are_no_weights_are_refused() {
        for number in [0, 10_001, u16::MAX] {
            assert_eq!(Weight::try_from(number), Err(NoWeight));
        }
        for number in [1, 100, 10_000] {
            assert_eq!(Weight::try_from(number).map(u16::from), Ok(number));
        }
    }
}
