// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is on a terminal of 80x24, and of other sizes.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use zcache_report::{QueueReport, Report, sample};
use zcache_top::format::Bars;
use zcache_top::model::{Input, Model};
use zcache_top::plain;
use zcache_top::view::{Look, draw};

const PLAIN: Look = Look { colour: false, bars: Bars::Blocks };

/// A model that has seen some documents, a second apart.
fn model(reports: impl IntoIterator<Item = Report>) -> Model {
    let mut model = Model::default();
    let start = Instant::now();
    for (second, report) in (0..).zip(reports) {
        model.update(&report, start + Duration::from_secs(second));
    }
    model
}

fn guests(number: u64) -> Model {
    model((0..30).map(|second| sample::report(number, 100 + second * second)))
}

fn terminal(model: &Model, look: Look, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, model, look)).expect("it is drawn");
    terminal
}

/// The lines of a terminal.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(model, PLAIN, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn keys(model: &mut Model, text: &str) {
    for letter in text.chars() {
        model.press(Input::Letter(letter));
    }
}

/// The guests of which there are lines.
fn shown(screen: &[String]) -> Vec<String> {
    let lines = screen.iter().filter_map(|line| line.split_whitespace().next());
    lines.filter(|word| word.starts_with("vm-")).map(str::to_owned).collect()
}

#[test]
fn all_of_it_is_there_at_80x24() {
    let screen = screen(&guests(12), 80, 24);
    let text = screen.join("\n");
    println!("{text}");
    for column in ["GUEST", "PUT/s", "GET/s", "HIT", "MEM", "RATIO", "GET50", "GET99", "PUT99", "REF/s", "HISTORY"] {
        assert!(screen[4].contains(column), "{column} is missing:\n{text}");
    }
    assert_eq!(shown(&screen).len(), 12, "{text}");
    for part in
        ["vhost-zcache 0.1.0", "guests 12 of 12", "ratio 3.25", "hits 75%", "no memory", "evicted/s", "99.9%", "swap"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(screen[23].ends_with("h help"), "the last line is cut off:\n{text}");
    // Figures of one guest: 57 and 35 or 40 times its number, see the sample.
    let line = screen.iter().find(|line| line.contains(" vm-012 ")).expect("the guest has a line");
    let figures: Vec<&str> = line.split_whitespace().skip(1).take(9).collect();
    assert_eq!(figures, ["24k", "27k", "75%", "12M", "3.9", "6.1us", "25us", "49us", "7.5k"], "{text}");
}

/// The longest figures that there are.
#[test]
fn nothing_is_cut_off_at_80x24() {
    let huge = |age: u64| {
        let mut report = sample::report(2, age);
        report.uptime_seconds = 999 * 86_400 + age;
        report.worker_restarts = 99_999;
        report.store.physical_bytes = 999 << 40;
        report.store.memory_limit = 1000 << 40;
        report.store.contents.pages = 1 << 40;
        for guest in &mut report.guests {
            guest.name = format!("/a/very/long/path/to/a/socket/of/{}", guest.name);
            guest.physical_bytes = 999 << 40;
            guest.memory_limit = Some(1000 << 40);
            guest.requests.values_mut().flat_map(|row| row.values_mut()).for_each(|count| *count *= 999_999_999);
            guest.refused.guest_limit *= 999_999_999;
            guest.refused.share *= 999_999_999;
            guest.refused.store_full *= 999_999_999;
            guest.refused.no_memory *= 999_999_999;
            guest.refused.frozen *= 999_999_999;
            guest.queues.push(QueueReport { stopped: true, ..QueueReport::default() });
        }
        report
    };
    let model = model([huge(10), huge(11)]);
    let (narrow, wide) = (screen(&model, 80, 24), screen(&model, 200, 24));
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (at, (narrow, wide)) in narrow.iter().zip(&wide).enumerate() {
        let is_row = (4..19).contains(&at);
        // Names and histories are longer in a wide one.
        let figures =
            |line: &String| if is_row { words(line).into_iter().skip(2).take(9).collect() } else { words(line) };
        assert_eq!(figures(narrow), figures(wide), "line {at} is cut off:\n{narrow}\n{wide}");
    }
}

#[test]
fn a_hundred_guests_are_scrolled_through() {
    let mut model = guests(100);
    keys(&mut model, "<<");
    let mut seen = shown(&screen(&model, 80, 24));
    assert_eq!(seen.first().map(String::as_str), Some("vm-001"));
    for _ in 0..100 {
        model.press(Input::Down);
        for name in shown(&screen(&model, 80, 24)) {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
    }
    assert_eq!(seen.len(), 100, "some were never shown");
    let screen = screen(&model, 80, 24);
    assert_eq!(shown(&screen).last().map(String::as_str), Some("vm-100"));
    assert!(
        screen.iter().any(|line| line.starts_with("= vm-100 =")),
        "the last one is looked at:\n{}",
        screen.join("\n")
    );
}

#[test]
fn any_size_will_do() {
    let mut model = guests(100);
    for mode in ["", "/", "\u{1b}"] {
        keys(&mut model, mode);
        for (width, height) in [(1, 1), (2, 3), (20, 5), (40, 12), (79, 17), (80, 18), (132, 43), (300, 100)] {
            let screen = screen(&model, width, height);
            assert!(height < 12 || !shown(&screen).is_empty(), "no guest at {width}x{height}");
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    let model = guests(3);
    let has_colours = |look| {
        let terminal = terminal(&model, look, 80, 24);
        let cells = terminal.backend().buffer().content();
        cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!has_colours(PLAIN));
    assert!(has_colours(Look { colour: true, ..PLAIN }));
}

#[test]
fn without_blocks_all_is_ascii() {
    let model = guests(3);
    let terminal = terminal(&model, Look { colour: false, bars: Bars::Ascii }, 80, 24);
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.symbol().is_ascii()));
}

#[test]
fn trouble_is_seen() {
    let troubled = |age| {
        let mut report = sample::report(4, age);
        report.guests[0].quarantined = true;
        report.guests[1].queues[0].stopped = true;
        report.guests[2].connected = false;
        report.guests[3].frozen = true;
        report
    };
    let mut model = model([troubled(10), troubled(11)]);
    keys(&mut model, "<<");
    let lines = screen(&model, 80, 24);
    for (line, start) in lines[5..].iter().zip(["Q vm-001", "S vm-002", "- vm-003", "f vm-004"]) {
        assert!(line.starts_with(start), "{line:?} should start with {start:?}");
    }
    assert!(lines.iter().any(|line| line.contains("quarantined: workers have died of it")));
    model.fail("The daemon at /run/x does not answer\nStart it".into());
    assert_eq!(screen(&model, 80, 24)[23], "The daemon at /run/x does not answer");
}

#[test]
fn the_help_fits_and_keys_are_told() {
    let mut model = guests(3);
    keys(&mut model, "h");
    let lines = screen(&model, 80, 24);
    assert!(lines.iter().any(|line| line.contains("nothing of nothing")), "{}", lines.join("\n"));
    keys(&mut model, "hp/web");
    assert!(screen(&model, 80, 24)[23].starts_with("filter: web_"));
    model.press(Input::Enter);
    assert!(screen(&model, 80, 24)[23].starts_with("PAUSED  q quit"));
}

#[test]
fn a_name_that_writes_to_terminals_does_not() {
    let named = |age| {
        let mut report = sample::report(1, age);
        report.guests[0].name = "a\u{1b}[2Jb\nc".into();
        report
    };
    let model = model([named(1), named(2)]);
    let text = plain::table(&model);
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    assert!(text.contains("a?[2Jb?c"));
    assert!(screen(&model, 80, 24).iter().any(|line| line.contains("a?[2Jb?c")));
}

#[test]
fn as_text_each_guest_has_a_line_of_its_own() {
    let text = plain::table(&guests(100));
    println!("{}", text.lines().take(3).collect::<Vec<_>>().join("\n"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 101);
    let width = lines[0].len();
    assert!(lines.iter().all(|line| line.len() == width && line.split_whitespace().count() == 10), "{text}");
}
