//! Draws a wired graph as text, and compares the drawing with a golden file.
//!
//! Invariant: the picture depends on nothing but the wiring. Called by `millrace topology` and by the topology's golden test.

use std::fmt::Write as _;
use std::path::Path;

use super::graph::{Graph, QueueKind, QueueNode};

/// Set to 1 to write golden files instead of comparing them.
const BLESS: &str = "MILLRACE_BLESS";

pub(crate) fn render(graph: &Graph) -> String {
    let threads: usize = graph.stages.iter().map(|stage| stage.workers).sum();
    let mut text = format!("{}: {} stages, {} queues, {threads} threads\n", graph.name, graph.stages.len(), graph.queues.len());
    for group in graph.stop_order() {
        for stage in group {
            render_stage(graph, stage, &mut text);
        }
    }
    text.push_str("\nqueues\n");
    for queue in &graph.queues {
        let _ = writeln!(text, "  {:<15} {} of {}; {}", queue.name, shape(queue), queue.item, queue.policy.name());
        let _ = writeln!(text, "  {:<15} why: {}", "", queue.why);
    }
    text
}

/// A box with the stage, arrows in on the left margin, arrows out below.
fn render_stage(graph: &Graph, stage: usize, text: &mut String) {
    let node = &graph.stages[stage];
    let threads = if node.workers == 1 { "1 thread".to_owned() } else { format!("{} threads", node.workers) };
    let scope = if graph.is_pinned(stage) { "each group pinned to one" } else { "all groups" };
    let head = format!("{}  ({threads}, {scope}, batches of {})", node.name, node.max_batch);
    let width = head.chars().count().max(node.what.chars().count());
    let rule = "-".repeat(width + 2);
    text.push('\n');
    for &queue in &node.reads {
        let queue = &graph.queues[queue];
        let writers = queue
            .ingresses
            .iter()
            .map(|name| format!("({name})"))
            .chain(queue.writers.iter().map(|&writer| graph.stages[writer].name.to_owned()));
        let _ = writeln!(text, "  {} --{}--> ", writers.collect::<Vec<_>>().join(", "), label(queue));
    }
    let _ = writeln!(text, "  +{rule}+\n  | {head:<width$} |\n  | {:<width$} |\n  +{rule}+", node.what);
    for &queue in &node.writes {
        let queue = &graph.queues[queue];
        let readers: Vec<_> = queue.readers.iter().map(|&reader| graph.stages[reader].name).collect();
        let _ = writeln!(text, "      --{}--> {}", label(queue), readers.join(", "));
    }
}

fn label(queue: &QueueNode) -> String {
    format!("[{} {}, {}]", queue.name, shape(queue), queue.policy.name())
}

fn shape(queue: &QueueNode) -> String {
    match queue.kind {
        QueueKind::Shared => queue.depth.to_string(),
        QueueKind::Pinned { workers, .. } => format!("{workers} x {}", queue.depth),
        QueueKind::Lanes { quantum, max_lanes } => format!("{} a group, {max_lanes} groups, {quantum} a turn", queue.depth),
    }
}

/// The picture is not the one in the golden file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} line {line} differs:\n  file:  {expected}\n  wired: {found}\nIf the change is meant, run again with {BLESS}=1 and commit the file."
)]
pub struct GoldenMismatch {
    /// The file.
    pub path: String,
    /// First line that differs, from 1.
    pub line: usize,
    /// That line of the file.
    pub expected: String,
    /// That line of the picture.
    pub found: String,
}

/// Compares `text` with the file at `path`; with `MILLRACE_BLESS=1` in the environment writes the file instead. For tests.
///
/// # Errors
/// [`GoldenMismatch`] with the first line that differs; a file that cannot be read counts as empty, one that cannot be written differs.
pub fn check_golden(path: &Path, text: &str) -> Result<(), GoldenMismatch> {
    if std::env::var_os(BLESS).is_some_and(|value| value == "1") && std::fs::write(path, text).is_ok() {
        return Ok(());
    }
    compare(path, &std::fs::read_to_string(path).unwrap_or_default(), text)
}

fn compare(path: &Path, expected: &str, found: &str) -> Result<(), GoldenMismatch> {
    if expected == found {
        return Ok(());
    }
    let line_of = |text: &str, line: usize| text.lines().nth(line).unwrap_or("(end)").to_owned();
    let most = expected.lines().count().max(found.lines().count());
    let line = (0..most).find(|&line| line_of(expected, line) != line_of(found, line)).unwrap_or(most);
    Err(GoldenMismatch { path: path.display().to_string(), line: line + 1, expected: line_of(expected, line), found: line_of(found, line) })
}
