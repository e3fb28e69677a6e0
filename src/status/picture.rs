//! The pipeline as a picture with live figures: `millrace topology --live`.
//!
//! Two readings make one picture: shares of time and items a second are of the time in between.

use std::fmt::Write;
use std::time::Duration;

use super::topology::{QueueReport, StageReport, TopologyReport};

/// Draws what happened between two readings.
pub fn picture(now: &TopologyReport, before: &TopologyReport, passed: Duration) -> String {
    let threads: usize = now.stages.iter().map(|stage| stage.workers.len()).sum();
    let mut text = format!("{}: {} stages, {} queues, {threads} threads\n", now.name, now.stages.len(), now.queues.len());
    for stage in &now.stages {
        draw_stage(stage, (now, before), passed, &mut text);
    }
    let lossy: Vec<String> = now.queues.iter().filter_map(losses).collect();
    if !lossy.is_empty() {
        let _ = writeln!(text, "\nsince the start");
        lossy.iter().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    text
}

fn draw_stage(stage: &StageReport, (now, before): (&TopologyReport, &TopologyReport), passed: Duration, text: &mut String) {
    let earlier = before.stage(&stage.name);
    let items = stage.items().saturating_sub(earlier.map_or(0, StageReport::items));
    let per_s = items as f64 / passed.as_secs_f64().max(0.001);
    let shares = stage.shares_since(earlier);
    let threads = if stage.workers.len() == 1 { "1 thread".into() } else { format!("{} threads", stage.workers.len()) };
    let troubled: Vec<&str> = stage.workers.iter().map(|worker| worker.state.as_str()).filter(|state| *state != "runs").collect();
    let state = if troubled.is_empty() { String::new() } else { format!("   {}", troubled.join(", ").to_uppercase()) };
    let head = format!("{}  ({threads})   {per_s:.0} items/s{state}", stage.name);
    let times = format!(
        "[{}] busy {:.1} %, starved {:.1} %, blocked {:.1} %, timers {:.1} %",
        bar(shares.busy, shares.blocked),
        shares.busy,
        shares.starved,
        shares.blocked,
        shares.tick
    );
    let width = [&head, &stage.what, &times].into_iter().map(|line| line.chars().count()).max().unwrap_or(0);
    text.push('\n');
    for queue in stage.reads.iter().filter_map(|name| now.queue(name)) {
        let _ = writeln!(text, "  {} --[{}]-->", queue.from.join(", "), level(queue));
    }
    let rule = "-".repeat(width + 2);
    let _ = writeln!(text, "  +{rule}+");
    for line in [&head, &stage.what, &times] {
        let _ = writeln!(text, "  | {line:<width$} |");
    }
    let _ = writeln!(text, "  +{rule}+");
    for queue in stage.writes.iter().filter_map(|name| now.queue(name)) {
        let _ = writeln!(text, "      --[{}]--> {}", level(queue), queue.to.join(", "));
    }
}

/// Twenty places: `#` busy, `!` blocked.
fn bar(busy: f64, blocked: f64) -> String {
    let places = |share: f64| (share / 5.0).round().clamp(0.0, 20.0) as usize;
    let (busy, blocked) = (places(busy), places(blocked));
    let blocked = blocked.min(20 - busy);
    format!("{}{}{}", "#".repeat(busy), "!".repeat(blocked), ".".repeat(20 - busy - blocked))
}

fn level(queue: &QueueReport) -> String {
    let total = queue.total();
    format!("{} {} of {}, high {}", queue.name, total.depth, total.capacity, total.high_water)
}

fn losses(queue: &QueueReport) -> Option<String> {
    let total = queue.total();
    let kinds = [
        (total.rejected, "refused"),
        (total.dropped, "dropped"),
        (total.lost, "lost by a failed reader"),
        (total.blocked_sends, "sends had to wait"),
    ];
    let lost: Vec<String> = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    (!lost.is_empty()).then(|| format!("{:<15} {} ({})", queue.name, lost.join(", "), queue.policy))
}

#[cfg(test)]
#[path = "picture/tests.rs"]
mod tests;
