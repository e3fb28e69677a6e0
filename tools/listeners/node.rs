//! The node as HTTP and the operating system tell of it: height, logs in blocks, memory.

use serde_json::{Value, json};

/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 4_096;

/// See the module.
pub struct Node {
    url: String,
    group: u16,
    process: Option<u32>,
}

impl Node {
    /// `process` is the node's process id, where its memory is wanted.
    pub fn new(url: &str, group: u16, process: Option<u32>) -> Self {
        Self { url: url.to_owned(), group, process }
    }

    fn ask(&self, method: &str, rest: &[Value]) -> Result<Value, String> {
        let params: Vec<_> = std::iter::once(json!(self.group)).chain(rest.iter().cloned()).collect();
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut reply = ureq::post(&self.url).send(body).map_err(|error| format!("{}: {error}", self.url))?;
        let text = reply.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|error| format!("{}: {error}", self.url))?;
        let reply: Value = serde_json::from_str(&text).map_err(|error| format!("{method}: {error}"))?;
        reply.get("result").cloned().ok_or_else(|| format!("{method}: {reply}"))
    }

    /// Height of the group.
    pub fn height(&self) -> Result<u64, String> {
        let shown = self.ask("getBlockNumber", &[])?;
        let digits = shown.as_str().and_then(|text| text.strip_prefix("0x")).ok_or("the height is no number")?;
        u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
    }

    /// Event logs of the blocks above `start` up to `end`.
    pub fn logs_between(&self, start: u64, end: u64) -> Result<u64, String> {
        let mut logs = 0;
        for number in start + 1..=end {
            let receipts =
                self.ask("getBatchReceiptsByBlockNumberAndRange", &[json!(number.to_string()), json!("0"), json!("-1"), json!(false)])?;
            let list = receipts["transactionReceipts"].as_array().ok_or("receipts are no list")?;
            logs += list.iter().filter_map(|receipt| receipt["logs"].as_array()).map(|logs| logs.len() as u64).sum::<u64>();
        }
        Ok(logs)
    }

    /// Memory of the node in use; zero when it cannot be told.
    pub fn resident_bytes(&self) -> u64 {
        let Some(process) = self.process else { return 0 };
        let text = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
    }
}
