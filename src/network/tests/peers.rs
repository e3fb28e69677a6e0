//! The list of peers: own addresses, adding, erasing, keeping.

use std::net::SocketAddr;

use millrace_base::KeyPair;

use super::fixture::{Chain, eventually};
use crate::{EndReason, PeerState};

#[test]
fn a_node_that_connects_to_itself_remembers_the_address() {
    let chain = Chain::new();
    let node = chain.start();
    node.network.add_peers(&[node.address()]).unwrap();
    eventually("it recognises itself", || node.network.peers()[0].state == PeerState::Own);
    assert!(node.network.sessions().is_empty() && node.sink.events().is_empty());
    assert_eq!(node.network.peers()[0].next_attempt, None);
}

#[test]
fn peers_that_are_added_and_erased_stay_so_after_a_restart() {
    let chain = Chain::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peers");
    let [configured, added] = [chain.start(), chain.start()];
    let key = KeyPair::generate();
    let start = || {
        chain.start_with(&key, |config| {
            config.peers = vec![configured.address()];
            config.peers_file = Some(file.clone());
        })
    };
    let node = start();
    node.network.add_peers(&[added.address()]).unwrap();
    eventually("both are connected", || node.network.peers().iter().all(|peer| peer.state == PeerState::Connected));
    assert_eq!(node.network.peers()[1].node_id, Some(added.id()));
    assert_eq!(node.network.erase_peers(&[configured.address(), "127.0.0.1:1".parse().unwrap()]).unwrap(), 1);
    eventually("the erased one is cut", || !node.network.is_connected(&configured.id()));
    assert!(node.network.is_connected(&added.id()));
    configured.wait_ended(EndReason::Erased, 1);
    drop(node);

    let node = start();
    assert_eq!(node.network.peers().iter().map(|peer| peer.address).collect::<Vec<SocketAddr>>(), [added.address()]);
    eventually("the added one is connected", || node.network.is_connected(&added.id()));
    assert!(!node.network.is_connected(&configured.id()));
    node.network.add_peers(&[configured.address()]).unwrap();
    eventually("it is back", || node.network.is_connected(&configured.id()));
}

#[test]
fn more_peers_than_the_limit_are_refused_whole() {
    let chain = Chain::new();
    let node = chain.start_with(&KeyPair::generate(), |config| config.limits.peers = 2);
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let fault = node.network.add_peers(&[address(1), address(2), address(3)]).unwrap_err();
    assert!(fault.remedy.contains("max_nodes_limit"));
    assert!(node.network.peers().is_empty());
    node.network.add_peers(&[address(1), address(2)]).unwrap();
    eventually("the failure is shown", || node.network.peers().iter().all(|peer| peer.failures > 1 && peer.last_error.is_some()));
    assert!(node.network.peers()[0].last_error.as_ref().unwrap().contains("what to do"));
}
