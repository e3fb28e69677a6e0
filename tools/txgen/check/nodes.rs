//! Compares all nodes of a group at the end of a run: the same height, at every height of the run the same block and state, and for every
//! block the same receipts. With the follower's finding that each acknowledged transaction is in one block, this says that every node has
//! its receipt.

use std::time::{Duration, Instant};

use millrace_base::{B256, keccak256};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, ClientError, RpcError};
use crate::follow;
use crate::setup::Group;

/// Headers in one request.
const HEADERS: usize = 100;

/// Heights that are compared; of longer runs as many, evenly, and the last.
const MAX_HEIGHTS: u64 = 20_000;

/// Receipts that are compared; of larger runs those of so many evenly chosen blocks.
const MAX_RECEIPTS: u64 = 200_000;

/// Time between two looks at a height that is not reached.
const POLL: Duration = Duration::from_millis(200);

/// What the comparison covered and found; nothing is good.
#[derive(Default)]
pub struct Comparison {
    /// In words.
    pub findings: Vec<String>,
    /// Heights whose header was compared.
    pub heights: u64,
    /// Blocks whose receipts were compared.
    pub blocks: u64,
    /// Last height of each node, by address.
    pub heads: Vec<(String, u64)>,
}

/// The parts of a header that must be equal.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Header {
    hash: String,
    #[serde(rename = "stateRoot")]
    state_root: String,
    #[serde(rename = "receiptsRoot")]
    receipts_root: String,
    #[serde(rename = "transactionsRoot")]
    transactions_root: String,
}

/// What one node says.
struct Copy {
    head: u64,
    headers: Vec<Header>,
    receipts: Vec<B256>,
}

/// Compares; with one node there is nothing to compare.
pub fn compare(group: &Group, patience: Duration) -> Comparison {
    let mut comparison = Comparison::default();
    if group.nodes.len() < 2 {
        return comparison;
    }
    for node in &group.nodes {
        if let Ok(height) = follow::height(&Client::new(&node.url, patience), group.id.get()) {
            group.tracker.raise_height(height);
        }
    }
    let (first, last) = (group.start_height + 1, group.tracker.height());
    let heights = evenly(first, last, MAX_HEIGHTS);
    let committed = group.tracker.with_record(|record| record.counts.committed);
    let share = if committed > MAX_RECEIPTS { heights.len() as u64 * MAX_RECEIPTS / committed } else { MAX_HEIGHTS };
    let blocks = evenly(first, last, share.clamp(2, MAX_HEIGHTS));
    let copies: Vec<Result<Copy, String>> = std::thread::scope(|scope| {
        let (heights, blocks) = (&heights, &blocks);
        let readers: Vec<_> = group
            .nodes
            .iter()
            .map(|node| scope.spawn(move || read(&node.url, group.id.get(), (heights, blocks), last, patience)))
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(|_| Err("the comparison panicked".into()))).collect()
    });
    let mut reference: Option<(&str, &Copy)> = None;
    for (node, copy) in group.nodes.iter().zip(&copies) {
        match copy {
            Err(why) => comparison.findings.push(format!("group {}: {}: {why}", group.id, node.url)),
            Ok(copy) => {
                comparison.heads.push((node.url.clone(), copy.head));
                match reference {
                    None => reference = Some((&node.url, copy)),
                    Some(reference) => differences(reference, (&node.url, copy), (&heights, &blocks), &mut comparison.findings),
                }
            }
        }
    }
    (comparison.heights, comparison.blocks) = (heights.len() as u64, blocks.len() as u64);
    comparison
}

/// At most `limit` heights from `first` to `last`, the last among them.
fn evenly(first: u64, last: u64, limit: u64) -> Vec<u64> {
    if last < first {
        return Vec::new();
    }
    let count = (last - first + 1).min(limit.max(1));
    (1..=count).map(|index| first + (last - first + 1) * index / count - 1).collect()
}

fn differences(one: (&str, &Copy), other: (&str, &Copy), asked: (&[u64], &[u64]), findings: &mut Vec<String>) {
    let ((name, left), (other_name, right)) = (one, other);
    let unequal = |same: Vec<bool>| same.iter().filter(|same| !**same).count();
    let headers = unequal(left.headers.iter().zip(&right.headers).map(|(left, right)| left == right).collect());
    if let Some(place) = left.headers.iter().zip(&right.headers).position(|(left, right)| left != right) {
        let (height, left, right) = (asked.0[place], &left.headers[place], &right.headers[place]);
        findings.push(format!(
            "FORK: {headers} heights differ between {name} and {other_name}; block {height} is {} with state {} there, {} with state {} here",
            left.hash, left.state_root, right.hash, right.state_root
        ));
    }
    if let Some(place) = left.receipts.iter().zip(&right.receipts).position(|(left, right)| left != right) {
        findings.push(format!("the receipts of block {} differ between {name} and {other_name}", asked.1[place]));
    }
}

fn read(url: &str, group: u16, asked: (&[u64], &[u64]), last: u64, patience: Duration) -> Result<Copy, String> {
    let client = Client::new(url, patience);
    let head = reach(&client, group, last, patience)?;
    let copy = || -> Result<Copy, ClientError> {
        let mut headers = Vec::with_capacity(asked.0.len());
        for portion in asked.0.chunks(HEADERS) {
            let params: Vec<Value> = portion.iter().map(|height| json!([group, height.to_string(), false])).collect();
            for header in client.call_many::<Header>("getBlockHeaderByNumber", &params)? {
                headers
                    .push(header.ok_or_else(|| ClientError::Rpc(RpcError { code: 0, message: "a block of the run is not there".into() }))?);
            }
        }
        let receipts = asked.1.iter().map(|number| digest(&client, group, *number)).collect::<Result<_, _>>()?;
        Ok(Copy { head, headers, receipts })
    };
    copy().map_err(|error| error.to_string())
}

/// Waits for a height.
fn reach(client: &Client, group: u16, wanted: u64, patience: Duration) -> Result<u64, String> {
    let start = Instant::now();
    loop {
        let height = follow::height(client, group);
        match height {
            Ok(height) if height >= wanted => return Ok(height),
            Ok(height) if start.elapsed() > patience => {
                return Err(format!("is at block {height} {} s after the end, others are at {wanted}", patience.as_secs()));
            }
            Err(error) if start.elapsed() > patience => return Err(format!("does not answer: {error}")),
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Hash over what a client learns from a block's receipts.
fn digest(client: &Client, group: u16, number: u64) -> Result<B256, ClientError> {
    let mut bytes = Vec::new();
    for (sightings, _) in follow::block_receipts(client, group, number)? {
        for receipt in sightings {
            bytes.extend_from_slice(receipt.hash.as_slice());
            bytes.extend_from_slice(&receipt.status.to_be_bytes());
            bytes.extend_from_slice(receipt.contract.as_slice());
            bytes.extend_from_slice(&(receipt.output.len() as u64).to_be_bytes());
            bytes.extend_from_slice(&receipt.output);
        }
    }
    Ok(keccak256(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_chosen_evenly_with_the_last() {
        assert_eq!(evenly(1, 5, 10), [1, 2, 3, 4, 5]);
        assert_eq!(evenly(1, 100, 4), [25, 50, 75, 100]);
        assert!(evenly(5, 4, 4).is_empty());
        assert_eq!(evenly(7, 7, 2), [7]);
    }
}
