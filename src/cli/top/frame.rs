//! One frame of `millrace top`: all nodes and groups, then peers and stages of the chosen node.
//!
//! A function of what was read, so that tests compare whole frames.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use crate::status::diagnosis::{Level, diagnose};
use crate::status::text::{ago, bytes, role};
use crate::status::topology::{StageReport, TopologyReport};
use crate::status::{GroupReport, NodeStatus, label};

/// Border above and below, and the line of names.
const TABLE_FRAME: u16 = 3;

/// Of the table of groups.
const COLUMNS: usize = 12;

/// What was read of a node.
#[derive(Clone)]
pub struct Snapshot {
    /// Its status.
    pub status: NodeStatus,
    /// Its stages.
    pub topology: TopologyReport,
    /// The reading before, and when it was taken.
    pub before: Option<(TopologyReport, Instant)>,
    /// When this one was taken.
    pub read_at: Instant,
}

/// A node on the screen.
#[derive(Clone)]
pub struct Pane {
    /// Its operator port.
    pub url: String,
    /// What was read last.
    pub snapshot: Option<Snapshot>,
    /// Why the last reading failed.
    pub error: Option<String>,
}

impl Pane {
    /// Before the first reading.
    pub fn unread(url: &str) -> Self {
        Self { url: url.into(), snapshot: None, error: None }
    }

    fn name(&self) -> &str {
        self.snapshot.as_ref().map_or(&self.url, |snapshot| &snapshot.status.name)
    }
}

/// See the module.
pub struct Screen<'a> {
    /// All nodes.
    pub panes: &'a [Pane],
    /// The one whose peers and stages are shown.
    pub chosen: usize,
}

impl Screen<'_> {
    /// Lines that the frame needs to show everything.
    pub fn height(&self) -> u16 {
        let (groups, peers, stages) = self.rows();
        1 + groups + peers + stages
    }

    fn chosen(&self) -> Option<&Snapshot> {
        self.panes.get(self.chosen)?.snapshot.as_ref()
    }

    /// Lines of the three tables.
    fn rows(&self) -> (u16, u16, u16) {
        let lines = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX / 8).min(u16::MAX / 8) + TABLE_FRAME;
        let of_pane = |pane: &Pane| {
            let groups = pane.snapshot.as_ref().map_or(0, |snapshot| snapshot.status.groups.len());
            groups.max(1) + usize::from(pane.error.is_some() && pane.snapshot.is_some())
        };
        let groups = self.panes.iter().map(of_pane).sum();
        let peers = self.chosen().map_or(0, |snapshot| snapshot.status.network.sessions.len());
        let stages = self.chosen().map_or(0, |snapshot| snapshot.topology.stages.len());
        (lines(groups), lines(peers.max(1)), lines(stages.max(1)))
    }

    /// Draws the frame.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let (groups, peers, stages) = self.rows();
        let parts =
            [Constraint::Length(1), Constraint::Max(groups), Constraint::Max(peers), Constraint::Length(stages), Constraint::Min(0)];
        let [title, top, middle, bottom, _] = Layout::vertical(parts).areas(frame.area());
        let line = format!("millrace top   {} of {} nodes answer   q quits, tab next node", self.answering(), self.panes.len());
        frame.render_widget(Paragraph::new(Line::from(line).bold()), title);
        self.draw_groups(frame, top);
        let name = self.panes.get(self.chosen).map_or("", Pane::name);
        draw_peers(self.chosen(), name, frame, middle);
        draw_stages(self.chosen(), name, frame, bottom);
    }

    fn answering(&self) -> usize {
        self.panes.iter().filter(|pane| pane.error.is_none() && pane.snapshot.is_some()).count()
    }

    fn draw_groups(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows: Vec<Row<'static>> =
            self.panes.iter().enumerate().flat_map(|(index, pane)| node_rows(pane, index == self.chosen)).collect();
        let widths: [Constraint; COLUMNS] = [
            Constraint::Length(14),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(14),
            Constraint::Length(14),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Min(16),
        ];
        let names =
            ["node", "group", "state", "height", "last block", "role", "view", "leader", "blocks/s", "tx/s", "pool", "sealers, waits for"];
        frame.render_widget(Table::new(rows, widths).header(Row::new(names).underlined()).block(titled("groups".into())), area);
    }
}

fn titled(title: String) -> Block<'static> {
    Block::default().borders(Borders::TOP | Borders::BOTTOM).title(title)
}

fn colour(level: Level) -> Style {
    match level {
        Level::Healthy => Style::default().fg(Color::Green),
        Level::Degraded => Style::default().fg(Color::Yellow),
        Level::Stuck => Style::default().fg(Color::Red),
    }
}

fn node_rows(pane: &Pane, is_chosen: bool) -> Vec<Row<'static>> {
    let mark = if is_chosen { ">" } else { " " };
    let name = format!("{mark}{}", pane.name());
    let error = pane.error.as_ref().map(|error| Row::new(silent_cells(&name, error)).red());
    let Some(snapshot) = &pane.snapshot else {
        let waiting = || Row::new(vec![name.clone(), String::new(), "asked".into()]);
        return vec![error.unwrap_or_else(waiting)];
    };
    let (status, found) = (&snapshot.status, diagnose(&snapshot.status));
    let groups = status.groups.iter().zip(&found.groups).map(|(group, found)| group_row(&name, group, found.level(), status));
    let mut rows: Vec<Row<'static>> = error.into_iter().chain(groups).collect();
    if status.groups.is_empty() {
        rows.push(Row::new(vec![name, "none".into()]));
    }
    rows
}

/// The reason in the last column, which has the most room.
fn silent_cells(name: &str, error: &str) -> Vec<String> {
    let mut cells = vec![String::new(); COLUMNS];
    (cells[0], cells[2], cells[COLUMNS - 1]) = (name.to_owned(), "SILENT".into(), error.to_owned());
    cells
}

fn group_row(name: &str, group: &GroupReport, level: Level, status: &NodeStatus) -> Row<'static> {
    let Some(running) = &group.running else {
        return Row::new(vec![name.to_owned(), group.group.to_string(), format!("{:?}", group.state).to_lowercase()]);
    };
    let consensus = &running.consensus;
    let sealer = |id: &String| consensus.sealers.iter().find(|sealer| &sealer.node_id == id).map(crate::status::SealerReport::label);
    let leader = consensus.leader.as_ref().map_or_else(|| "-".into(), |id| sealer(id).unwrap_or_else(|| label(None, id)));
    let view =
        if consensus.to_view > consensus.view { format!("{}>{}", consensus.view, consensus.to_view) } else { consensus.view.to_string() };
    let mut last = format!("{}/{}", running.present(), consensus.sealers.len());
    if running.sync.is_syncing {
        let sync = &running.sync;
        last += &format!(" downloading to {} at {} blocks/s", sync.known_height.max(sync.target_height), sync.blocks_per_s);
    } else if !consensus.waits_for.is_empty() {
        last += &format!(" {}", consensus.waits_for);
    }
    let cells = vec![
        name.to_owned(),
        group.group.to_string(),
        level.name().to_owned(),
        running.height.to_string(),
        ago(status.now_ms, running.head_time_ms),
        role(&running.role),
        view,
        leader,
        format!("{:.1}", running.blocks_per_s),
        format!("{:.0}", running.transactions_per_s),
        running.pool.transactions.to_string(),
        last,
    ];
    Row::new(cells).style(colour(level))
}

fn draw_peers(chosen: Option<&Snapshot>, name: &str, frame: &mut Frame<'_>, area: Rect) {
    let sessions = chosen.map(|snapshot| &snapshot.status.network.sessions[..]).unwrap_or_default();
    let mut rows: Vec<Row<'static>> = sessions
        .iter()
        .map(|session| {
            let groups: Vec<String> = session.groups.iter().map(u16::to_string).collect();
            Row::new(vec![
                label(Some(&session.name), &session.node_id),
                session.address.clone(),
                if session.is_outgoing { "called" } else { "calls" }.to_owned(),
                session.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.1} ms")),
                format!("{} ({})", session.queued_frames, bytes(session.queued_bytes as u64)),
                bytes(session.bytes_in),
                bytes(session.bytes_out),
                groups.join(","),
            ])
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row::new(vec!["none connected"]));
    }
    let widths = [18, 22, 7, 10, 16, 10, 10, 20].map(Constraint::Length);
    let names = ["peer", "address", "", "rtt", "queued", "in", "out", "groups"];
    frame.render_widget(Table::new(rows, widths).header(Row::new(names).underlined()).block(titled(format!("peers of {name}"))), area);
}

fn draw_stages(chosen: Option<&Snapshot>, name: &str, frame: &mut Frame<'_>, area: Rect) {
    let rows: Vec<Row<'static>> =
        chosen.into_iter().flat_map(|snapshot| snapshot.topology.stages.iter().map(move |stage| stage_row(stage, snapshot))).collect();
    let widths = [10, 8, 20, 8, 9, 9, 12, 40].map(Constraint::Length);
    let names = ["stage", "threads", "", "busy %", "starved", "blocked", "items/s", "reads: waiting (high)"];
    frame.render_widget(Table::new(rows, widths).header(Row::new(names).underlined()).block(titled(format!("stages of {name}"))), area);
}

fn stage_row(stage: &StageReport, snapshot: &Snapshot) -> Row<'static> {
    let before = snapshot.before.as_ref();
    let earlier = before.and_then(|(topology, _)| topology.stage(&stage.name));
    let shares = stage.shares_since(earlier);
    let passed = before.map_or(Duration::from_secs(snapshot.status.uptime_s.max(1)), |(_, at)| snapshot.read_at.duration_since(*at));
    let items = stage.items().saturating_sub(earlier.map_or(0, StageReport::items));
    let waiting = stage.reads.iter().filter_map(|name| snapshot.topology.queue(name)).map(|queue| {
        let total = queue.total();
        format!("{} {} ({})", queue.name, total.depth, total.high_water)
    });
    let state = if stage.workers.iter().all(|worker| worker.state == "runs") { Style::default() } else { Style::default().fg(Color::Red) };
    Row::new(vec![
        stage.name.clone(),
        stage.workers.len().to_string(),
        "#".repeat((shares.busy / 5.0).round().clamp(0.0, 20.0) as usize),
        format!("{:.1}", shares.busy),
        format!("{:.1}", shares.starved),
        format!("{:.1}", shares.blocked),
        format!("{:.0}", items as f64 / passed.as_secs_f64().max(0.001)),
        waiting.collect::<Vec<_>>().join("  "),
    ])
    .style(state)
}
