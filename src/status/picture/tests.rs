use super::*;
use crate::status::fixture::{golden, topology};

#[test]
fn picture_shows_what_happened_between_the_readings_as_in_the_golden_file() {
    golden("topology.txt", &picture(&topology(12), &topology(10), Duration::from_secs(2)));
}

#[test]
fn failed_worker_stands_out_and_bars_are_twenty_wide() {
    let mut now = topology(12);
    now.stages[1].workers[0].state = "failed".into();
    assert!(picture(&now, &topology(10), Duration::from_secs(2)).contains("order  (1 thread)   0 items/s   FAILED"));
    for (busy, blocked) in [(0.0, 0.0), (50.0, 50.0), (97.6, 2.4), (100.0, 100.0)] {
        assert_eq!(bar(busy, blocked).len(), 20, "{busy} {blocked}");
    }
}
