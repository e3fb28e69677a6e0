use super::*;
use crate::status::fixture::{NOW_MS, golden, id, lose, node, node_with};
use crate::status::{Deed, SyncPeerReport, text};

/// Level and texts of the first group.
fn of_group(status: &NodeStatus) -> (Level, Vec<String>) {
    let found = diagnose(status);
    (found.groups[0].level(), found.groups[0].findings.iter().map(|finding| finding.text.clone()).collect())
}

#[test]
fn single_node_and_four_connected_ones_are_healthy_and_nothing_is_said() {
    for count in [1, 4] {
        let status = node(count);
        assert_eq!(of_group(&status), (Level::Healthy, Vec::new()));
        assert_eq!(diagnose(&status).level().exit_code(), 0);
    }
}

#[test]
fn loss_of_quorum_comes_first_and_names_who_is_missing_since_when_and_why() {
    let status = node_with(4, |group| {
        lose(group, 1, 35_000);
        lose(group, 3, 200_000);
        group.consensus.sealers[3].name = Some("node3".into());
        (group.consensus.to_view, group.consensus.leader) = (5, None);
        group.consensus.waits_for = "view 5: 2 of 3 view changes; missing a0b1c2d1, a0b1c2d3".into();
        group.consensus.waiting_ms = 34_000;
    });
    let (level, texts) = of_group(&status);
    assert_eq!(level, Level::Stuck);
    assert!(texts[0].starts_with("No quorum: 3 of 4 sealers are needed, 2 are connected, this node included."), "{texts:#?}");
    for part in [
        "one of these is back",
        "a0b1c2d1 at 10.0.0.1:30300 is not reachable, last heard 35 s ago (connection refused",
        "node3 at 10.0.0.3:30300 is not reachable, last heard 3 min 20 s ago",
    ] {
        assert!(texts[0].contains(part), "{part}: {}", texts[0]);
    }
    assert!(texts[1].contains("Without a quorum it cannot end"), "{texts:#?}");
    assert_eq!(diagnose(&status).level().exit_code(), 2);
    golden("why-no-quorum.txt", &text::why(&status, &diagnose(&status)));
}

#[test]
fn raft_group_is_judged_by_its_majority_and_speaks_of_terms_and_elections() {
    let status = node_with(3, |group| {
        (group.consensus.kind, group.consensus.quorum) = ("raft".into(), 2);
        (group.consensus.view, group.consensus.to_view, group.consensus.leader) = (4, 5, None);
        lose(group, 1, 5_000);
        group.consensus.sealers[2].view = 5;
    });
    let (level, texts) = of_group(&status);
    assert_eq!(level, Level::Degraded);
    let said = texts.join("\n");
    for part in [
        "2 of 3 sealers are connected, 2 are needed",
        "no leader in term 4",
        "With a majority connected",
        "Terms differ: this node is in term 4",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(text::why(&status, &diagnose(&status)).contains(", term 4)"));
}

#[test]
fn alone_among_two_or_four_says_how_many_must_come_back() {
    let alone = |count: usize| {
        let status = node_with(count, |group| (1..count).for_each(|node| lose(group, node, 1_000)));
        of_group(&status).1.remove(0)
    };
    assert!(
        alone(2).contains("2 of 2 sealers are needed, only this node is there. Nothing is committed until this one is back"),
        "{}",
        alone(2)
    );
    assert!(alone(4).contains("until 2 of these are back"), "{}", alone(4));
}

#[test]
fn missing_sealer_that_is_not_needed_degrades() {
    let status = node_with(4, |group| {
        lose(group, 2, 5_000);
        group.consensus.sealers[2].heard_ms = 0;
    });
    let (level, texts) = of_group(&status);
    assert_eq!((level, texts.len()), (Level::Degraded, 1));
    assert!(texts[0].starts_with("3 of 4 sealers are connected, 3 are needed, none may fail besides. Missing: a0b1c2d2"), "{texts:#?}");
    assert!(texts[0].contains("was not heard since this node started"), "{texts:#?}");
    assert_eq!(diagnose(&status).level().exit_code(), 1);
}

#[test]
fn connected_node_that_does_not_run_the_group_counts_as_missing() {
    let status = node_with(4, |group| group.consensus.sealers[1].link = Link::NotShared);
    let (level, texts) = of_group(&status);
    assert_eq!(level, Level::Degraded);
    assert!(texts[0].contains("node1 at 10.0.0.1:30300 is connected but does not run the group"), "{texts:#?}");
}

#[test]
fn sealer_that_is_behind_is_named_with_its_height_but_not_within_the_window() {
    let status = node_with(4, |group| {
        group.consensus.sealers[2].height = 20;
        group.consensus.sealers[3].height = 120 - WINDOW;
    });
    let expected = "node2 is 100 blocks behind (height 20 of 120), so its vote is missing until it has caught up.";
    assert_eq!(of_group(&status), (Level::Degraded, vec![expected.to_owned()]));
}

#[test]
fn own_backlog_says_who_sends_how_fast_and_how_long_it_takes() {
    let peer = |node: usize, held_for_ms: u64| SyncPeerReport {
        node_id: id(node),
        name: Some(format!("node{node}")),
        height: Some(5_000),
        bytes_per_s: 1_000,
        held_for_ms,
        lies: u32::from(held_for_ms > 0),
        last_lie: if held_for_ms > 0 { "wrong transactions root".into() } else { String::new() },
    };
    let status = node_with(4, |group| {
        (group.sync.is_syncing, group.sync.known_height, group.sync.blocks_per_s) = (true, 5_000, 610);
        group.sync.remaining_s = Some(8);
        group.sync.peers = vec![peer(1, 0), peer(3, 8_500)];
    });
    let (level, texts) = of_group(&status);
    assert_eq!(level, Level::Degraded);
    assert!(
        texts[0].contains("4880 blocks behind (height 120 of 5000): it downloads them from node1 at 610 blocks/s, 8 s left"),
        "{texts:#?}"
    );
    assert!(
        texts[1].starts_with("node3 is not asked for blocks for another 9 s") && texts[1].contains("wrong transactions root"),
        "{texts:#?}"
    );
    let silent = node_with(4, |group| group.sync.known_height = 5_000);
    assert!(of_group(&silent).1[0].contains("no member that has them is connected"));
}

#[test]
fn view_change_degrades_at_first_and_is_stuck_when_it_does_not_end() {
    let changing = |waiting_ms: u64| {
        node_with(4, |group| {
            group.consensus.to_view = 4;
            group.consensus.waits_for = "view 4: 2 of 3 view changes; missing a0b1c2d1, a0b1c2d3".into();
            group.consensus.waiting_ms = waiting_ms;
        })
    };
    let (level, texts) = of_group(&changing(2_000));
    assert_eq!(level, Level::Degraded);
    assert!(texts[0].contains("from view 3 to view 4") && texts[0].contains("ends within seconds"), "{texts:#?}");
    assert_eq!(texts[1], "The next step waits for view 4: 2 of 3 view changes; missing node1, node3; for 2 s so far.");
    assert_eq!(of_group(&changing(45_000)).0, Level::Stuck);
}

#[test]
fn short_wait_is_a_remark_and_differing_views_matter_only_while_a_step_waits() {
    let waiting = |waiting_ms: u64| {
        node_with(4, |group| {
            group.consensus.waits_for = "height 121: 2 of 3 commits in view 3; missing a0b1c2d1".into();
            group.consensus.waiting_ms = waiting_ms;
            group.consensus.sealers[1].view = 2;
        })
    };
    let (level, texts) = of_group(&waiting(300));
    assert_eq!((level, texts.len()), (Level::Healthy, 2));
    assert_eq!(texts[1], "Views differ: this node is in view 3, node1 is in view 2.");
    assert_eq!(of_group(&waiting(12_000)).0, Level::Degraded);
    assert_eq!(of_group(&waiting(30_000)).0, Level::Stuck);
}

#[test]
fn halted_group_says_why_and_nothing_else() {
    let status = node_with(4, |group| {
        group.halted = Some("this node computed another state than a quorum signed".into());
        lose(group, 1, 1_000);
    });
    let (level, texts) = of_group(&status);
    assert_eq!((level, texts.len()), (Level::Stuck, 1));
    assert!(texts[0].starts_with("The group has halted at height 120: this node computed another state"), "{texts:#?}");
}

#[test]
fn observer_says_what_it_sees_and_a_stranger_what_to_do() {
    let observing = |lost: usize| {
        node_with(4, |group| {
            group.role = Role::Observer;
            group.consensus.sealers[0].link = Link::Connected;
            (0..lost).for_each(|node| lose(group, node, 1_000));
        })
    };
    assert_eq!(of_group(&observing(0)).0, Level::Healthy);
    assert_eq!(of_group(&observing(3)).0, Level::Degraded);
    assert_eq!(of_group(&observing(4)).0, Level::Stuck);
    let (level, texts) = of_group(&node_with(4, |group| group.role = Role::NotMember));
    assert_eq!(level, Level::Degraded);
    assert!(texts[0].contains("addObserver"), "{texts:#?}");
}

#[test]
fn refusals_count_while_they_are_recent_and_evidence_always() {
    let deed = |at_ms: u64| Some(Deed { node_id: id(2), what: "a vote for another epoch".into(), at_ms });
    let refused = |at_ms: u64| node_with(4, |group| (group.conduct.refusals, group.conduct.last_refusal) = (7, deed(at_ms)));
    let expected = "7 messages of other nodes were refused; the last, 5.0 s ago, of node2: a vote for another epoch.";
    assert_eq!(of_group(&refused(NOW_MS - 5_000)), (Level::Degraded, vec![expected.to_owned()]));
    assert_eq!(of_group(&refused(NOW_MS - 600_000)).0, Level::Healthy);
    let caught = node_with(4, |group| (group.conduct.evidence, group.conduct.last_evidence) = (1, deed(NOW_MS - 600_000)));
    let (level, texts) = of_group(&caught);
    assert_eq!(level, Level::Degraded);
    assert!(texts[0].starts_with("node2 signed two statements that contradict each other"), "{texts:#?}");
}

#[test]
fn full_pool_stopped_groups_certificates_and_doubled_identities_are_named() {
    let full = node_with(1, |group| group.pool.transactions = 140_000);
    assert!(of_group(&full).1[0].contains("140000 of 150000"));
    let mut status = node(1);
    status.groups.push(GroupReport { group: 2, state: GroupState::Stopped, error: None, running: None });
    assert_eq!(diagnose(&status).level(), Level::Healthy);
    status.certificates[1].days_left = 29;
    status.certificates[0].days_left = -2;
    let texts: Vec<String> = diagnose(&status).node.into_iter().map(|finding| finding.text).collect();
    assert!(texts[0].contains("conf/channel_cert/node.crt ended 2 days ago") && texts[1].contains("conf/p2p.crt ends in 29 days"));
    assert_eq!(diagnose(&status).level(), Level::Degraded);
    status.network.own_duplicate = Some("10.0.0.9:1".into());
    assert_eq!(diagnose(&status).level(), Level::Stuck);
}
