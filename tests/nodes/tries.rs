//! Four nodes whose group keeps tries: the same roots everywhere, whatever a node was doing when it was killed.

use crate::nodes::cluster::Cluster;

const ALL: [usize; 4] = [0, 1, 2, 3];

#[test]
fn nodes_with_tries_agree_on_every_root_also_after_one_was_killed() {
    let mut cluster = Cluster::start(4, &["--state", "mpt"]);
    let load = cluster.load(&ALL[..3], &["--group", "1", "--workload", "token", "--count", "3000", "--rate", "1000"]);
    cluster.kill(3);
    let figures = load.join();
    assert_eq!(figures["committed"], 3000);
    cluster.start_all();
    cluster.wait_agreement(&ALL, 1);
    ALL.iter().for_each(|node| cluster.stop(*node));
    ALL.iter().for_each(|node| cluster.verify(*node, 1));
}
