// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker dies, at named places and at random, and a guest notices a pause.
//!
//! [`model`] is a guest that knows what each answer has to be. It asks as a driver does: several
//! chains at once, on two queues, and it sleeps until it is interrupted, so that an interrupt that
//! is lost is noticed as well.

#[path = "../client/mod.rs"]
mod client;

mod anytime;
mod damage;
mod frozen;
mod model;
mod pause;
mod places;
mod poison;
mod report;
mod singled_out;
mod upgrade;
