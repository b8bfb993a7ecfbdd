// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A terminal, keys and documents as they come.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use termion::event::Key;
use termion::input::TermRead;
use termion::raw::IntoRawMode;
use termion::screen::IntoAlternateScreen;
use zcache_report::Report;

use crate::model::{Input, Model, Wants};
use crate::view::{self, Look};

/// How soon a terminal of another size, or a signal, is noticed.
const TICK: Duration = Duration::from_millis(250);

/// What there is to wait for.
enum Event {
    Key(Key),
    /// Nobody types any more.
    Closed,
    Report(Box<Result<Report, String>>, Instant),
}

/// Shows a model until the operator has seen enough. The terminal is as before then.
pub(crate) fn show<S>(mut model: Model, look: Look, delay: Duration, source: S) -> io::Result<()>
where
    S: FnMut() -> Result<Report, String> + Send + 'static,
{
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    // Each of these undoes what it did when it is dropped, the last one first.
    let screen = io::stdout().into_raw_mode()?.into_alternate_screen()?;
    let mut terminal = Terminal::new(TermionBackend::new(screen))?;
    let (sender, events) = mpsc::sync_channel(16);
    ask(source, delay, sender.clone());
    read_keys(sender);
    while !is_over.load(Ordering::Relaxed) {
        // Only what has changed is sent to the terminal.
        terminal.draw(|frame| view::draw(frame, &model, look))?;
        match events.recv_timeout(TICK) {
            Ok(Event::Key(key)) => {
                if input(key).is_some_and(|input| model.press(input) == Wants::End) {
                    break;
                }
            }
            Ok(Event::Report(report, at)) => match *report {
                Ok(report) => model.update(&report, at),
                Err(error) => model.fail(error),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    terminal.show_cursor()
}

/// Asks for documents again and again, however long each takes.
fn ask<S>(mut source: S, delay: Duration, events: SyncSender<Event>)
where
    S: FnMut() -> Result<Report, String> + Send + 'static,
{
    thread::spawn(move || {
        loop {
            thread::sleep(delay);
            let report = Box::new(source());
            if events.send(Event::Report(report, Instant::now())).is_err() {
                return;
            }
        }
    });
}

fn read_keys(events: SyncSender<Event>) {
    thread::spawn(move || {
        for key in io::stdin().keys() {
            let Ok(key) = key else { break };
            if events.send(Event::Key(key)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Closed);
    });
}

/// A key that means something.
fn input(key: Key) -> Option<Input> {
    Some(match key {
        Key::Char('\n' | '\r') => Input::Enter,
        Key::Char(letter) => Input::Letter(letter),
        Key::Ctrl('c') => Input::Interrupt,
        Key::Esc => Input::Escape,
        Key::Backspace | Key::Ctrl('h') => Input::Backspace,
        Key::Up => Input::Up,
        Key::Down => Input::Down,
        Key::PageUp => Input::PageUp,
        Key::PageDown => Input::PageDown,
        Key::Home => Input::Home,
        Key::End => Input::End,
        _ => return None,
    })
}
