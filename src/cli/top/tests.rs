use std::time::{Duration, Instant};

use super::*;
use crate::status::fixture::{golden, lose, node, node_with, topology};
use crate::status::{GroupReport, GroupState};

fn pane(status: crate::status::NodeStatus) -> Pane {
    let read_at = Instant::now();
    let before = read_at.checked_sub(Duration::from_secs(2)).map(|at| (topology(10), at));
    Pane { url: "http://10.0.0.1:9545".into(), snapshot: Some(Snapshot { status, topology: topology(12), before, read_at }), error: None }
}

#[test]
fn frame_of_two_nodes_and_one_that_is_silent_is_as_in_the_golden_file() {
    let mut first = node(4);
    first.groups.push(GroupReport { group: 2, state: GroupState::Stopped, error: None, running: None });
    let second = node_with(4, |group| {
        lose(group, 1, 5_000);
        lose(group, 3, 5_000);
        group.consensus.to_view = 4;
        group.consensus.waits_for = "view 4: 2 of 3 view changes".into();
    });
    let silent = Pane { error: Some("http://10.0.0.3:9545/status cannot be read: timeout".into()), ..Pane::unread("http://10.0.0.3") };
    let panes = [pane(first), pane(second), silent];
    golden("top.txt", &printed(&Screen { panes: &panes, chosen: 0 }));
}

#[test]
fn frame_fits_any_screen_and_any_choice() {
    let panes = [pane(node(4)), Pane::unread("http://10.0.0.2")];
    for (width, height) in [(1, 1), (20, 5), (300, 100)] {
        for chosen in 0..4 {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| Screen { panes: &panes, chosen }.draw(frame)).unwrap();
        }
    }
    assert!(Screen { panes: &[], chosen: 0 }.height() > 0);
}
