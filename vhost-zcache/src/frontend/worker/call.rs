// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The interrupt of a ring, which the VMM may exchange while the ring is served.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Event that tells the driver of used chains; `None` when the VMM wants none.
#[derive(Debug, Default)]
pub struct Call(Mutex<Option<File>>);

impl Call {
    /// Uses another event from now on.
    pub fn replace(&self, event: Option<File>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = event;
    }

    /// Notifies the driver.
    pub fn signal(&self) {
        let event = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut event) = event.as_ref() {
            // A VMM that passes a bad event gets no interrupts; the results are in its ring all
            // the same.
            let _ = event.write_all(&1u64.to_ne_bytes());
        }
    }
}
