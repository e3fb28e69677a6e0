use super::*;
use crate::status::diagnosis::diagnose;
use crate::status::fixture::{golden, lose, node, node_with};

#[test]
fn healthy_single_node_looks_as_in_the_golden_file() {
    let one = node(1);
    golden("status-one.txt", &status(&one, &diagnose(&one)));
    golden("why-healthy.txt", &why(&one, &diagnose(&one)));
}

#[test]
fn four_nodes_with_one_missing_and_a_download_look_as_in_the_golden_file() {
    let mut four = node_with(4, |group| {
        lose(group, 2, 95_000);
        group.consensus.to_view = 4;
        (group.sync.is_syncing, group.sync.known_height, group.sync.blocks_per_s) = (true, 900, 260);
        (group.sync.bytes_per_s, group.sync.held_blocks, group.sync.remaining_s) = (5_200_000, 40, Some(3));
    });
    four.network.dropped.insert("queue_full".into(), 9);
    golden("status-four.txt", &status(&four, &diagnose(&four)));
}

#[test]
fn durations_ages_and_sizes_are_short() {
    let durations = [119, 120, 7_199, 7_200, 172_800].map(duration);
    assert_eq!(durations, ["119 s", "2 min 0 s", "119 min 59 s", "2 h 0 min", "2 days 0 h"]);
    assert_eq!([ago(10_000, 6_770), ago(100_000, 1_000), ago(0, 5)], ["3.2 s ago", "99 s ago", "0.0 s ago"]);
    assert_eq!([0, 999, 1_000, 1_550, 12_345_678, u64::MAX].map(bytes), ["0 B", "999 B", "1.0 kB", "1.5 kB", "12.3 MB", "18446744.0 TB"]);
}
