//! Follows one group's chain and tells the tracker which receipts each block holds. One request a block instead of one a transaction:
//! the time at which a block's receipts arrived is the moment at which a client knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Address, B256, hex};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, parse_number};
use crate::tracker::{Sighting, Tracker};

/// Time between two looks at the height: the error of every latency.
const POLL: Duration = Duration::from_millis(20);

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
}

/// Height of a group's chain.
pub fn height(client: &Client, group: u16) -> Result<u64, ClientError> {
    let text: String = client.call("getBlockNumber", &json!([group]))?;
    parse_number(&text).ok_or_else(|| ClientError::Protocol(format!("{text} is no block number")))
}

/// Reads blocks behind `from` until `stop` is set and the head of that moment is read.
pub fn follow(client: &Client, group: u16, tracker: &Tracker, stop: &AtomicBool, from: u64) {
    let mut read = from;
    loop {
        let is_last = stop.load(Ordering::Acquire);
        match catch_up(client, group, tracker, read) {
            Ok(head) if head > read => read = head,
            Ok(_) => std::thread::sleep(POLL),
            Err((reached, _)) => {
                read = reached;
                std::thread::sleep(RETRY);
            }
        }
        if is_last {
            return;
        }
    }
}

/// Reads up to the head; returns it, or how far it came.
fn catch_up(client: &Client, group: u16, tracker: &Tracker, read: u64) -> Result<u64, (u64, ClientError)> {
    let head = height(client, group).map_err(|error| (read, error))?;
    if head < read {
        tracker.problem(format!("group {group}: {} went back from block {read} to block {head}", client.url()));
        return Ok(head);
    }
    for number in read + 1..=head {
        read_block(client, group, tracker, number).map_err(|error| (number - 1, error))?;
    }
    tracker.set_height(head);
    Ok(head)
}

fn read_block(client: &Client, group: u16, tracker: &Tracker, number: u64) -> Result<(), ClientError> {
    let mut pages = Vec::new();
    let mut have = 0;
    loop {
        let params = json!([group, number.to_string(), have.to_string(), PAGE.to_string(), false]);
        let answer = client.call::<Box<RawValue>>("getBatchReceiptsByBlockNumberAndRange", &params);
        let now = Instant::now();
        let page = match answer {
            Ok(page) => page,
            Err(ClientError::Rpc(error)) if error.code == NO_SUCH_RECEIPT => break,
            Err(error) => return Err(error),
        };
        let (sightings, total) = read_page(page.get())?;
        have += sightings.len();
        let is_empty = sightings.is_empty();
        pages.push((sightings, now));
        if is_empty || have >= total {
            break;
        }
    }
    // Only now: a block whose second page failed is read again from its start, and must not be counted twice.
    for (sightings, now) in pages {
        tracker.saw_block(number, &sightings, now);
    }
    Ok(())
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
