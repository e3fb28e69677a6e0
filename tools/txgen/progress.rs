//! A live line on a terminal's standard error; silent elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::setup::Group;

/// Time between two refreshes.
const REFRESH: Duration = Duration::from_millis(200);

/// Says what goes on now.
pub fn say(text: &str) {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        eprintln!("{text}");
    }
}

/// Shows committed transactions of `total` until `is_done`.
pub fn show(groups: &[Group], total: u64, is_done: &AtomicBool) {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} [{elapsed_precise}]").expect("a constant template");
    bar.set_style(style);
    let (start, before) = (Instant::now(), committed(groups));
    while !is_done.load(Ordering::Acquire) {
        std::thread::sleep(REFRESH);
        let done = committed(groups) - before;
        let acknowledged: u64 = groups.iter().map(|group| group.tracker.with_record(|record| record.counts.acknowledged)).sum();
        bar.set_position(done);
        bar.set_message(format!("committed, {acknowledged} acknowledged, {:.0} tx/s", done as f64 / start.elapsed().as_secs_f64()));
    }
    bar.finish_and_clear();
}

fn committed(groups: &[Group]) -> u64 {
    groups.iter().map(|group| group.tracker.with_record(|record| record.counts.committed)).sum()
}
