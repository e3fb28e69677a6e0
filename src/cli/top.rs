//! `millrace top`: running nodes on one screen, refreshed each second.
//!
//! Each node is asked on a thread of its own, so that one that does not answer delays neither the others nor the keys.

mod frame;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use millrace_base::fault::{Fault, FaultKind};
use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal, backend::TestBackend};

use super::operator::{NodeAddress, OperatorClient};
use frame::{Pane, Screen, Snapshot};

/// Time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a key may wait for the next look at the keyboard.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Nodes on one screen at most.
const MAX_NODES: usize = 64;

/// Width of a frame that goes to no terminal.
const PRINTED_WIDTH: u16 = 140;

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace top --dir nodes/127.0.0.1/node0
  millrace top --url http://127.0.0.1:9545 --url http://127.0.0.1:9546    several nodes
  millrace top --url http://127.0.0.1:9545 --once                         one frame as text

Keys: q quits, tab shows peers and stages of the next node.")]
pub struct TopArguments {
    /// The node's directory: its config.ini names the operator port. Without --url, the present directory.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    dir: Option<std::path::PathBuf>,
    /// Operator ports of the nodes.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Print one frame and end.
    #[arg(long)]
    once: bool,
}

/// Shows the nodes until told to quit.
pub fn top(arguments: &TopArguments) -> Result<ExitCode, Fault> {
    if arguments.url.len() > MAX_NODES {
        let what = format!("{} nodes do not fit on one screen", arguments.url.len());
        return Err(Fault::new(FaultKind::Operation, what, format!("name {MAX_NODES} at most")));
    }
    let clients = if arguments.url.is_empty() {
        vec![NodeAddress::at(arguments.dir.clone()).client()?]
    } else {
        arguments.url.iter().map(|url| OperatorClient::new(url)).collect()
    };
    if arguments.once {
        return once(&clients);
    }
    if !io::stdout().is_terminal() {
        return Err(Fault::new(FaultKind::Operation, "standard output is no terminal", "use --once for one frame as text"));
    }
    let panes: Arc<[Mutex<Pane>]> = clients.iter().map(|client| Mutex::new(Pane::unread(client.url()))).collect();
    for (index, client) in clients.into_iter().enumerate() {
        let panes = Arc::clone(&panes);
        // Ends with the process.
        let started = thread::Builder::new().name(format!("top-{index}")).spawn(move || follow(&client, &panes[index]));
        started.map_err(|error| terminal_fault(&error))?;
    }
    let mut terminal = ratatui::try_init().map_err(|error| terminal_fault(&error))?;
    let shown = show(&mut terminal, &panes);
    ratatui::restore();
    shown.map(|()| ExitCode::SUCCESS).map_err(|error| terminal_fault(&error))
}

fn terminal_fault(error: &io::Error) -> Fault {
    Fault::new(FaultKind::Operation, format!("the terminal cannot be used: {error}"), "use --once for one frame as text")
}

/// Reads one node for ever.
fn follow(client: &OperatorClient, pane: &Mutex<Pane>) {
    loop {
        read(client, pane);
        thread::sleep(INTERVAL);
    }
}

fn read(client: &OperatorClient, pane: &Mutex<Pane>) {
    let answer = client.status().and_then(|status| Ok((status, client.topology()?)));
    let mut pane = pane.lock();
    match answer {
        Ok((status, topology)) => {
            let before = pane.snapshot.take().map(|before| (before.topology, before.read_at));
            pane.error = None;
            pane.snapshot = Some(Snapshot { status, topology, before, read_at: Instant::now() });
        }
        // What was seen last stays on the screen, marked.
        Err(fault) => pane.error = Some(fault.what),
    }
}

fn once(clients: &[OperatorClient]) -> Result<ExitCode, Fault> {
    let panes: Vec<Mutex<Pane>> = clients.iter().map(|client| Mutex::new(Pane::unread(client.url()))).collect();
    for round in 0..2 {
        if round > 0 {
            thread::sleep(INTERVAL);
        }
        thread::scope(|scope| {
            for (client, pane) in clients.iter().zip(&panes) {
                scope.spawn(|| read(client, pane));
            }
        });
    }
    let panes: Vec<Pane> = panes.into_iter().map(Mutex::into_inner).collect();
    let is_silent = panes.iter().all(|pane| pane.snapshot.is_none());
    let screen = Screen { panes: &panes, chosen: 0 };
    super::print(&printed(&screen))?;
    // As `node status`: nobody answered.
    Ok(if is_silent { ExitCode::from(FaultKind::Network.exit_code()) } else { ExitCode::SUCCESS })
}

/// A frame as text, without trailing blanks.
fn printed(screen: &Screen<'_>) -> String {
    let backend = TestBackend::new(PRINTED_WIDTH, screen.height());
    let mut terminal = Terminal::new(backend).expect("a buffer in memory takes every write");
    terminal.draw(|frame| screen.draw(frame)).expect("a buffer in memory takes every write");
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    let lines = buffer.content().chunks(width).map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

fn show(terminal: &mut DefaultTerminal, panes: &[Mutex<Pane>]) -> io::Result<()> {
    let mut chosen = 0;
    loop {
        let copies: Vec<Pane> = panes.iter().map(|pane| pane.lock().clone()).collect();
        terminal.draw(|frame| Screen { panes: &copies, chosen }.draw(frame))?;
        if !event::poll(KEY_WAIT)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
            KeyCode::Tab | KeyCode::Right | KeyCode::Down => chosen = (chosen + 1) % panes.len().max(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Up => chosen = (chosen + panes.len().max(1) - 1) % panes.len().max(1),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "top/tests.rs"]
mod tests;
