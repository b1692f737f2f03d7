//! How far a command has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use hookwell_common::lifecycle::Clock;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often a bar that does not move is drawn.
const TICK: Duration = Duration::from_millis(200);

/// How far a command has come; on standard error, for the answer goes to standard output.
pub(crate) struct Progress {
    what: &'static str,
    length: u64,
    clock: Clock,
    begun: Duration,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Duration },
}

impl Progress {
    /// Nothing of `length` is done yet.
    pub(crate) fn begin(what: &'static str, length: u64, clock: Clock) -> Self {
        let begun = clock.mono();
        let shown = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(length);
            let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what);
            bar.enable_steady_tick(TICK);
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: begun }
        };
        Self { what, length, clock, begun, shown }
    }

    /// So much is done.
    pub(crate) fn at(&mut self, position: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(position),
            Shown::Lines { last } => {
                let now = self.clock.mono();
                if LINE_EVERY <= now.saturating_sub(*last) {
                    *last = now;
                    let left = time_left(now.saturating_sub(self.begun), position, self.length);
                    write_line(&line(self.what, position, self.length, left));
                }
            }
        }
    }

    /// It is over.
    pub(crate) fn end(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Tells whoever watches; nothing that a program would read.
pub(crate) fn write_line(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

fn line(what: &str, position: u64, length: u64, left: Option<Duration>) -> String {
    match left {
        Some(left) => format!("{what} {position} of {length}, {} left", humantime::format_duration(left)),
        None => format!("{what} {position} of {length}"),
    }
}

/// At the rate so far, in whole seconds.
fn time_left(passed: Duration, position: u64, length: u64) -> Option<Duration> {
    let share = length.saturating_sub(position) as f64 / position as f64;
    (0 < position).then(|| Duration::from_secs(passed.mul_f64(share).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_time_that_is_left() {
        let left = time_left(Duration::from_secs(10), 100, 400);
        assert_eq!(line("replayed", 100, 400, left), "replayed 100 of 400, 30s left");
        assert_eq!(line("read", 0, 400, time_left(Duration::from_secs(10), 0, 400)), "read 0 of 400");
        assert_eq!(time_left(Duration::from_secs(10), 400, 400), Some(Duration::ZERO));
    }
}
