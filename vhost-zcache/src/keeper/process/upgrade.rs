// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another program takes the worker's place.

use log::{error, info, warn};

use super::Worker;
use crate::keeper::running::Running;
use crate::link::message::{Build, FromWorker, ToWorker};
use crate::spawner::Program;

/// Beats that a process may take to say what it is.
const BUILD_PATIENCE: u32 = 20;

/// A process of another program, which is to be the next worker.
pub(super) struct Next {
    pub(super) running: Running,
    /// Release of its build, if it is one that goes on where this one ends.
    fits: Option<String>,
}

impl Worker {
    /// Starts a process of the program that has the recipe's path now, which takes the worker's
    /// place if it fits. What comes of it is said by [`Worker::upgraded`].
    ///
    /// # Errors
    ///
    /// Why nothing can come of it, which was logged.
    pub fn upgrade(&mut self) -> Result<(), String> {
        if self.next.is_some() || self.on_trial.is_some() {
            warn!("No upgrade: one is under way");
            return Err("one is under way".into());
        }
        let path = self.recipe.path.display().to_string();
        match self.spawn(Program::Newest) {
            Ok(running) => {
                info!("Upgrading to {path}");
                self.next = Some(Next { running, fits: None });
                Ok(())
            }
            Err(error) => {
                error!("No upgrade: {path} cannot be started: {error}");
                Err(format!("{path} cannot be started: {error}"))
            }
        }
    }

    /// What has come of the last upgrade, once, when it is known: the release that serves, or why
    /// it is another one.
    pub fn upgraded(&mut self) -> Option<Result<String, String>> {
        self.upgraded.take()
    }

    /// The process that is to be the next worker says something, or ends.
    pub fn look_at_next(&mut self) {
        let Some(next) = &mut self.next else { return };
        let said = next.running.receive();
        match said {
            Some((FromWorker::Build(build), _)) if next.fits.is_none() => match Build::this().misfit(&build) {
                None => {
                    info!("The new program is release {}, and fits", build.release);
                    next.fits = Some(build.release);
                    self.send(ToWorker::Leave, Vec::new());
                }
                Some(what) => {
                    self.refuse(&format!("its release {} has another version of {what}", build.release));
                }
            },
            Some(_) => self.refuse("it says what nobody has asked for"),
            None => {
                if next.running.exit_status().is_some() {
                    self.refuse("it does not start");
                }
            }
        }
    }

    /// A beat has passed.
    pub(super) fn beat_of_next(&mut self) {
        if let Some(next) = &mut self.next {
            next.running.unanswered += 1;
            if next.fits.is_none() && next.running.unanswered > BUILD_PATIENCE {
                self.refuse("it does not say what it is");
            }
        }
    }

    /// The process that is to be the worker now, if there is one that fits; it is on trial.
    pub(super) fn take_next(&mut self) -> Option<Running> {
        let Next { running, fits } = self.next.take_if(|next| next.fits.is_some())?;
        self.on_trial = fits;
        Some(running)
    }

    /// The worker is ready. If it was on trial, those that follow are of its program, too.
    pub(super) fn trial_is_passed(&mut self) {
        let Some(release) = self.on_trial.take() else { return };
        info!("Worker {} is of the new program and has taken over", self.number);
        if let Err(error) = self.recipe.spawner.keep() {
            error!("The workers that follow are not of the new program: {error}");
        }
        self.upgraded = Some(Ok(release));
    }

    /// The worker has died. If it was on trial, that was all.
    pub(super) fn trial_is_over(&mut self) {
        if self.on_trial.take().is_some() {
            error!("The new program's worker has died before it was ready: the program stays as it was");
            self.upgraded = Some(Err("its worker has died before it was ready; the program stays as it was".into()));
        }
    }

    /// Does without the process that was to be the next worker.
    fn refuse(&mut self, why: &str) {
        let Some(Next { mut running, .. }) = self.next.take() else { return };
        error!("No upgrade to {}: {why}; the worker stays", self.recipe.path.display());
        self.upgraded = Some(Err(format!("{}: {why}; the worker stays", self.recipe.path.display())));
        running.kill();
        self.gone.push((running, None));
        self.look_at_gone();
    }
}
