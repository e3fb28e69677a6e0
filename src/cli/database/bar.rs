//! Progress of long work: a bar on a terminal, nothing elsewhere; and the wish of the user to stop.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_base::fault::Fault;

use crate::cli::run::StopSignals;

/// Time between two looks at signals, and two redraws.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// See the module.
pub struct Bar {
    bar: ProgressBar,
    unit: &'static str,
}

impl Bar {
    /// A bar for work of this name.
    pub fn new(name: &str) -> Self {
        Self { bar: ProgressBar::new(0).with_message(name.to_owned()), unit: "" }
    }

    /// So many units are done, of how many; 0 is not known.
    pub fn show(&mut self, unit: &'static str, done: u64, all: u64) {
        if unit != self.unit {
            self.unit = unit;
            let (position, length) = if unit == "bytes" { ("{bytes}", "{total_bytes}") } else { ("{human_pos}", "{human_len}") };
            let template = if all > 0 {
                format!("{{msg}} [{{wide_bar}}] {position}/{length} {unit}, {{eta}} left")
            } else {
                format!("{{msg}} {{spinner}} {position} {unit}, {{per_sec}}")
            };
            self.bar.set_style(ProgressStyle::with_template(&template).expect("the templates have known fields"));
            self.bar.reset();
        }
        self.bar.set_length(all);
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar of work that SIGINT and SIGTERM stop in order; a second SIGINT ends the process at once.
pub struct Watched {
    bar: Bar,
    signals: StopSignals,
    next_look: Instant,
    is_stopped: bool,
}

impl Watched {
    /// As [`Bar::new`].
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub fn new(name: &str) -> Result<Self, Fault> {
        Ok(Self { bar: Bar::new(name), signals: StopSignals::listen()?, next_look: Instant::now(), is_stopped: false })
    }

    /// As [`Bar::show`]; `Break` when the work is to stop.
    pub fn show(&mut self, unit: &'static str, done: u64, all: u64) -> ControlFlow<()> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_INTERVAL;
            self.bar.show(unit, done, all);
            self.is_stopped |= self.signals.has_come();
        }
        if self.is_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.end();
    }
}
