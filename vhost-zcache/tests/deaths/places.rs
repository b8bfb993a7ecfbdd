// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Death at each place after which somebody else could see something.

use rustix::process::Signal;
use vhost_zcache::crash::Place;

use crate::client::daemon::{Daemon, Start};
use crate::client::wire::status;
use crate::client::{Client, eventually, page};
use crate::model::{ALLOW, Model};

/// A worker dies when it passes a place for the `pass`th time; everything is as if it had not.
fn dies_at(place: Place, pass: u64) {
    // The first worker does not begin where another has ended.
    let workers = if [Place::Rebuilding, Place::Reopened, Place::PagesFound, Place::SessionRestored].contains(&place) {
        2
    } else {
        1
    };
    let die_at = format!("{}:{pass}:{workers}", place.name());
    let daemon = Daemon::start_as(&[ALLOW, ""], Start { die_at: Some(&die_at), ..Start::default() });
    let mut model = Model::attach(&daemon.socket(0), pass);
    for step in 0..60 {
        model.step();
        if step % 20 == 10 {
            // Another guest comes and goes, and leaves nothing.
            let mut other = Client::attach(&daemon.socket(1));
            other.create(1, 1);
            assert_eq!(other.get(1, 1, 1), Err(status::MISS), "a page of another connection");
            assert_eq!(other.put(1, 1, 1, &page(step)), status::OK);
        }
        if step == 30 {
            daemon.signal_worker(Signal::KILL);
        }
    }
    model.check();
    let deaths = daemon.deaths();
    assert!(deaths >= 2, "{}: no worker has died there, but {deaths} in all\n{}", place.name(), daemon.log());
    let ended = daemon.lines("connection ended");
    assert_eq!(ended, 0, "{}: a connection has ended\n{}", place.name(), daemon.log());
    drop(model);
    eventually("nothing is left", || daemon.stats()["store"]["pages"] == 0);
}

/// A part of the places, so that several go at once.
fn part(number: usize) {
    // A guest that moves has tests of its own.
    for place in Place::ALL.iter().filter(|place| !place.is_of_transfers()).skip(number).step_by(4) {
        println!("{}", place.name());
        dies_at(*place, 1);
    }
}

#[test]
fn a_death_is_a_pause_part_1() {
    part(0);
}

#[test]
fn a_death_is_a_pause_part_2() {
    part(1);
}

#[test]
fn a_death_is_a_pause_part_3() {
    part(2);
}

#[test]
fn a_death_is_a_pause_part_4() {
    part(3);
}

/// Not the first chain, where everything begins.
#[test]
fn a_death_later_on_is_a_pause() {
    for (place, pass) in [
        (Place::ChainTaken, 40),
        (Place::Executed, 61),
        (Place::PageWritten, 4),
        (Place::ResultNoted, 57),
        (Place::RequestDone, 58),
        (Place::ResultsWritten, 33),
        (Place::UsedPublished, 34),
        (Place::ChainForgotten, 35),
        (Place::Notified, 21),
        (Place::HalfARecord, 8),
        (Place::RecordValid, 9),
        (Place::AnswerPlanned, 3),
        (Place::PoolsDestroyed, 2),
    ] {
        println!("{}", place.name());
        dies_at(place, pass);
    }
}
