//! Seeds that run with every test run: some of each kind, those that once failed, one run twice, and bugs that must be found.

use super::*;

/// Runs the seeds; none may fail, and no faulty member may fall over what it is told.
fn check(seeds: impl IntoIterator<Item = u64>, overrides: Overrides) {
    for seed in seeds {
        let outcome = run(seed, overrides, false);
        let command = Options::of(seed, overrides).command(overrides);
        assert_eq!((outcome.violation, outcome.faulty_halt), (None, None), "run again with: {command}");
    }
}

fn nodes(nodes: usize) -> Overrides {
    Overrides { nodes: Some(nodes), ..Overrides::default() }
}

/// Seeds until the planted bug is found.
fn seeds_to_find(bug: Bug, most: u64) -> Option<u64> {
    let overrides = Overrides { planted: Some(bug), ..Overrides::default() };
    (0..most).find(|seed| run(*seed, overrides, false).violation.is_some()).map(|seed| seed + 1)
}

#[test]
fn same_seed_gives_the_same_events() {
    for seed in [2, 5, 9, 14] {
        let (first, second) = (run(seed, Overrides::default(), false), run(seed, Overrides::default(), false));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn clusters_of_all_sizes_keep_their_promises() {
    check(0..60, Overrides::default());
}

#[test]
fn clusters_of_four_keep_their_promises() {
    check(1_000..1_060, nodes(4));
}

#[test]
fn clusters_of_seven_keep_their_promises() {
    check(2_000..2_025, nodes(7));
}

#[test]
fn clusters_of_one_to_three_keep_their_promises() {
    check(3_000..3_040, nodes(1));
    check(3_100..3_140, nodes(2));
    check(3_200..3_240, nodes(3));
}

#[test]
fn several_groups_on_the_same_nodes_keep_their_promises() {
    check(4_000..4_025, Overrides { groups: Some(3), ..Overrides::default() });
}

fn raft(nodes: Option<usize>, groups: Option<usize>) -> Overrides {
    Overrides { nodes, groups, ordering: GroupOrdering::Raft, ..Overrides::default() }
}

#[test]
fn raft_clusters_keep_their_promises() {
    check(5_000..5_060, raft(None, None));
    check(5_100..5_130, raft(Some(3), None));
    check(5_200..5_225, raft(Some(5), None));
    check(5_300..5_310, raft(Some(1), None));
}

#[test]
fn raft_and_pbft_groups_on_the_same_nodes_keep_their_promises() {
    check(5_400..5_420, raft(None, Some(3)));
}

#[test]
fn same_seed_gives_the_same_events_with_raft() {
    for seed in [2, 5, 9] {
        let overrides = raft(None, Some(2));
        assert_eq!(run(seed, overrides, false), run(seed, overrides, false), "seed {seed}");
    }
}

/// The order stage voided heights above the block that ended an epoch before it had heard of that end; the execute stage forgot the end
/// and was handed a height whose predecessor it had dropped.
#[test]
fn void_above_the_end_of_an_epoch_leaves_that_end_standing() {
    check([223], Overrides::default());
}

/// Two processes with one key: one was asked for a proposal, heard of the other's in its own name, saw that one ordered, and then put its
/// own content into the ordered height.
#[test]
fn sealed_content_never_replaces_what_is_ordered() {
    check([1_042], nodes(4));
}

/// A faulty sealer proved a proposal that had been prepared on another block than the one that became final below it; the new view took it
/// up, and a block became final whose timestamp was not above its parent's.
#[test]
fn proposal_prepared_on_a_block_that_lost_is_not_taken_up_with_an_old_timestamp() {
    check([10_239], Overrides::default());
}

#[test]
fn vote_sent_before_it_is_durable_is_found() {
    assert!(seeds_to_find(Bug::Durable, 100).is_some());
}

#[cfg(feature = "planted")]
#[test]
fn quorum_that_is_too_small_is_found() {
    assert!(seeds_to_find(Bug::Quorum, 100).is_some());
}

#[cfg(feature = "planted")]
#[test]
fn signers_that_are_counted_twice_are_found() {
    assert!(seeds_to_find(Bug::Signers, 100).is_some());
}
