//! Follows one group's chain and tells the tracker which receipts each block holds. One request a block instead of one a transaction:
//! the time at which a block's receipts arrived is the moment at which a client knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Address, B256, hex};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, parse_number};
use crate::node;
use crate::setup::Group;
use crate::tracker::Sighting;

/// Time between two looks at the height: the error of every latency.
const POLL: Duration = Duration::from_millis(20);

/// The same while receipts are pushed: only block limits depend on it.
const POLL_HEIGHT: Duration = Duration::from_millis(200);

/// Pause after a failed request.
const RETRY: Duration = Duration::from_millis(100);

/// Receipts in one request.
const PAGE: usize = 5_000;

/// JSON-RPC code of "there is no receipt at this position": an empty block.
const NO_SUCH_RECEIPT: i64 = -40099;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(rename = "blockInfo", borrow)]
    info: BlockInfo<'a>,
    #[serde(rename = "transactionReceipts", borrow)]
    receipts: Vec<Line<'a>>,
}

#[derive(Deserialize)]
struct BlockInfo<'a> {
    #[serde(rename = "receiptsCount")]
    count: &'a str,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "transactionHash")]
    hash: &'a str,
    status: &'a str,
    output: &'a str,
    #[serde(rename = "contractAddress")]
    contract: &'a str,
    /// Of receipts that stand alone.
    #[serde(rename = "blockNumber", default)]
    block: &'a str,
}

/// Height of a group's chain.
pub fn height(client: &Client, group: u16) -> Result<u64, ClientError> {
    let text: String = client.call("getBlockNumber", &json!([group]))?;
    parse_number(&text).ok_or_else(|| ClientError::Protocol(format!("{text} is no block number")))
}

/// Reads a group's blocks, from one of its nodes while that answers, else from the next that does.
pub struct Follower<'a> {
    group: &'a Group,
    clients: Vec<Client>,
    /// Highest head that each node showed.
    heads: Vec<u64>,
    home: usize,
    /// Last block that was read.
    read: u64,
    /// Time at the end of the run in which a node may still catch up.
    patience: Duration,
}

impl<'a> Follower<'a> {
    /// For a group; groups begin with different nodes.
    pub fn new(group: &'a Group, patience: Duration) -> Self {
        Self {
            group,
            clients: group.nodes.iter().map(|node| Client::new(&node.url, patience)).collect(),
            heads: vec![0; group.nodes.len()],
            home: usize::from(group.id.get()) % group.nodes.len(),
            read: group.start_height,
            patience,
        }
    }

    /// Reads until `stop` is set and the highest block that was ever shown is read.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut stopped: Option<Instant> = None;
        loop {
            if stop.load(Ordering::Acquire) {
                stopped.get_or_insert_with(Instant::now);
            }
            let index = node::instead_of(&self.group.nodes, self.home);
            let outcome = self.catch_up(index);
            let is_complete = self.read >= self.group.tracker.height();
            if let (Some(stopped), Ok(())) = (stopped, &outcome)
                && (is_complete || stopped.elapsed() > self.patience)
            {
                return;
            }
            match outcome {
                Ok(()) if self.group.tracker.reads_blocks() => std::thread::sleep(POLL),
                Ok(()) => std::thread::sleep(POLL_HEIGHT),
                Err(error) => {
                    if matches!(error, ClientError::Unreachable(_) | ClientError::Transport(_)) {
                        self.group.nodes[index].failed(&error.to_string());
                    }
                    if stopped.is_some_and(|stopped| stopped.elapsed() > self.patience) {
                        let (group, read) = (self.group.id, self.read);
                        return self.group.tracker.problem(format!("group {group}: blocks behind {read} could not be read: {error}"));
                    }
                    if node::instead_of(&self.group.nodes, self.home) == index {
                        std::thread::sleep(RETRY);
                    }
                }
            }
        }
    }

    /// Reads up to the head of this node.
    fn catch_up(&mut self, index: usize) -> Result<(), ClientError> {
        let (client, group, tracker) = (&self.clients[index], self.group.id.get(), &self.group.tracker);
        let head = height(client, group)?;
        if head < self.heads[index] {
            tracker.problem(format!("group {group}: {} went back from block {} to block {head}", client.url(), self.heads[index]));
        }
        self.heads[index] = head;
        tracker.raise_height(head);
        while tracker.reads_blocks() && self.read < head {
            for (sightings, now) in block_receipts(client, group, self.read + 1)? {
                tracker.saw_block(self.read + 1, &sightings, now);
            }
            self.read += 1;
        }
        Ok(())
    }
}

/// All receipts of a block, in pages with their times of arrival. All or nothing: a block whose second page failed is read again from its
/// start, and must not be counted twice.
pub fn block_receipts(client: &Client, group: u16, number: u64) -> Result<Vec<(Vec<Sighting>, Instant)>, ClientError> {
    let mut pages = Vec::new();
    let mut have = 0;
    loop {
        let params = json!([group, number.to_string(), have.to_string(), PAGE.to_string(), false]);
        let answer = client.call::<Box<RawValue>>("getBatchReceiptsByBlockNumberAndRange", &params);
        let now = Instant::now();
        let page = match answer {
            Ok(page) => page,
            Err(ClientError::Rpc(error)) if error.code == NO_SUCH_RECEIPT => return Ok(pages),
            Err(error) => return Err(error),
        };
        let (sightings, total) = read_page(page.get())?;
        have += sightings.len();
        let is_empty = sightings.is_empty();
        pages.push((sightings, now));
        if is_empty || have >= total {
            return Ok(pages);
        }
    }
}

/// A receipt alone, as the channel port pushes it, and the number of its block.
pub fn read_receipt(body: &[u8]) -> Result<(Sighting, u64), ClientError> {
    let line: Line = serde_json::from_slice(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
    let malformed = || ClientError::Protocol("a receipt with malformed fields".into());
    sighting(&line).zip(parse_number(line.block)).ok_or_else(malformed)
}

fn read_page(text: &str) -> Result<(Vec<Sighting>, usize), ClientError> {
    let page: Page = serde_json::from_str(text).map_err(|error| ClientError::Protocol(error.to_string()))?;
    let sightings: Option<Vec<Sighting>> = page.receipts.iter().map(sighting).collect();
    let total = parse_number(page.info.count).and_then(|count| usize::try_from(count).ok());
    sightings.zip(total).ok_or_else(|| ClientError::Protocol("a receipt with malformed fields".into()))
}

fn sighting(line: &Line<'_>) -> Option<Sighting> {
    Some(Sighting {
        hash: line.hash.parse::<B256>().ok()?,
        status: u32::try_from(parse_number(line.status)?).ok()?,
        output: hex::decode(line.output).ok()?,
        contract: line.contract.parse::<Address>().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_receipts_is_read() {
        let (hash, zero) = (B256::repeat_byte(3), Address::ZERO);
        let text = format!(
            r#"{{"blockInfo":{{"blockHash":"0x1","blockNumber":"0x3","receiptRoot":"0x1","receiptsCount":"0x28"}},"transactionReceipts":[
            {{"contractAddress":"{zero}","from":"0x1","gasUsed":"0x774a","logs":[{{"topics":[]}}],"output":"0x08c3","status":"0x16",
            "to":"0x1","transactionHash":"{hash}","transactionIndex":"0x0"}}]}}"#
        );
        let (sightings, total) = read_page(&text).unwrap();
        assert_eq!((sightings.len(), total), (1, 40));
        assert_eq!((sightings[0].hash, sightings[0].status, &sightings[0].output[..]), (hash, 22, &[8, 0xc3][..]));
    }

    #[test]
    fn recorded_batch_receipts_of_the_reference_node_are_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/reference-node/proofs.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            return eprintln!("skipped: no recordings beside the repository");
        };
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let plain = recorded["batch"].as_array().unwrap().iter().find(|case| case["name"] == "plain").unwrap();
        let (sightings, total) = read_page(&plain["response"]["result"].to_string()).unwrap();
        assert_eq!((sightings.len(), total), (40, 40));
    }
}
