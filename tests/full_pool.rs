//! A group whose pool is full refuses for itself alone.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use millrace_base::{Address, Bytes};
use serde_json::json;

use crate::client::{key, receipt, send, send_batch, shown, text, transaction};
use crate::network::{Network, Setup, txgen, verify};

/// Transactions that are offered at once.
const OFFERED: usize = 60;

/// What the pool holds, and what one submitter certainly gets: above three quarters, submitters share what is left.
const ROOM: RangeInclusive<usize> = 15..=20;

#[test]
fn group_with_a_full_pool_refuses_what_is_too_much_and_leaves_others_unharmed() {
    // Nothing leaves the pool of group 1 while it is offered transactions.
    let settings = [(1, "limit", "20"), (1, "min_block_generation_time", "3000")];
    let network = Network::start_with(2, Setup { settings: &settings, ..Setup::default() });
    let sign = |_| transaction(&network, Some(Address::with_last_byte(4)), Bytes::from(vec![0; 4])).sign(&key("cow"));
    let raws: Vec<_> = (0..OFFERED).map(sign).collect();
    let replies = send_batch(&network, &raws.iter().map(|raw| raw.encoded().clone()).collect::<Vec<_>>());
    let accepted: BTreeSet<&str> = replies.iter().map(|reply| text(&reply["result"])).filter(|hash| !hash.is_empty()).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply["error"].is_object()).collect();
    assert_eq!(accepted.len() + refused.len(), OFFERED);
    assert!(ROOM.contains(&accepted.len()), "{} accepted, refused: {refused:?}", accepted.len());
    for reply in refused {
        assert!(text(&reply["error"]["message"]).contains("TransactionPoolIsFull"), "{reply}");
    }

    let output = txgen(&network, &["--group", "2", "--workload", "transfer", "--count", "2000"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    for hash in accepted {
        assert_eq!(receipt(&network, hash)["transactionHash"], json!(hash));
    }
    let again = transaction(&network, Some(Address::with_last_byte(4)), Bytes::from(vec![0; 4])).sign(&key("cow"));
    let reply = send(&network, again.encoded());
    assert_eq!(reply["result"], shown(again.hash()), "there is room again: {reply}");
    receipt(&network, text(&reply["result"]));
    let directory = network.stop();
    for group in ["1", "2"] {
        verify(&directory, group);
    }
}
