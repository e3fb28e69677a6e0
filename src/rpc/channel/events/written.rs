//! Logs in the form in which they are pushed, each written once however many subscriptions meet it.
//!
//! Invariant: what is kept is that of one turn, of a bounded number of blocks and of bounded size but for a single block. Used by
//! [`super::feed`] on its thread.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::sync::Arc;

use millrace_base::{B256, Block, GroupId, LogEntry};
use millrace_ledger::view::LedgerView;
use serde::Serialize;

use super::Matcher;
use crate::limits::{MAX_WRITTEN_BLOCKS, WRITTEN_LOG_BYTES};
use crate::views::{Hex, OwnedHex, Quantity, Shown};

/// Blocks of a turn.
#[derive(Default)]
pub struct Written {
    blocks: VecDeque<WrittenBlock>,
}

/// A block with those of its logs that were met.
pub struct WrittenBlock {
    group: GroupId,
    block: Arc<Block>,
    /// One for each log, in order.
    logs: Vec<OnceCell<Box<[u8]>>>,
    bytes: Cell<usize>,
}

/// One log as it is pushed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PushedLog<'a> {
    address: Hex<'a>,
    block_hash: Hex<'a>,
    block_number: Shown<u64>,
    data: Hex<'a>,
    log_index: Quantity,
    topics: Vec<Hex<'a>>,
    transaction_hash: OwnedHex<B256>,
    transaction_index: Quantity,
}

impl Written {
    /// A block of a ledger; `None` when it is not there or cannot be read now.
    pub fn block(&mut self, ledger: &dyn LedgerView, number: u64) -> Option<&WrittenBlock> {
        let group = ledger.group();
        if let Some(position) = self.blocks.iter().position(|known| known.group == group && known.block.header.number == number) {
            return Some(&self.blocks[position]);
        }
        let found = ledger.block(number);
        let block = found.inspect_err(|error| tracing::error!(%error, number, "event logs cannot be read; subscriptions wait")).ok()??;
        if self.blocks.iter().map(|known| known.bytes.get()).sum::<usize>() > WRITTEN_LOG_BYTES {
            self.blocks.clear();
        }
        if self.blocks.len() >= MAX_WRITTEN_BLOCKS {
            self.blocks.pop_front();
        }
        let count = block.receipts.iter().map(|receipt| receipt.logs.len()).sum();
        self.blocks.push_back(WrittenBlock { group, block, logs: vec![OnceCell::new(); count], bytes: Cell::new(0) });
        self.blocks.back()
    }
}

impl WrittenBlock {
    /// Gives each log that meets a subscription, in order.
    pub fn each_log(&self, matcher: &Matcher, mut take: impl FnMut(&[u8])) {
        let mut cells = self.logs.iter();
        for ((tx, receipt), transaction) in self.block.transactions.iter().zip(&self.block.receipts).zip(0u32..) {
            for ((log, index), cell) in receipt.logs.iter().zip(0u32..).zip(&mut cells) {
                if matcher.matches(log) {
                    take(cell.get_or_init(|| self.write(log, tx.hash(), (transaction, index))));
                }
            }
        }
    }

    fn write(&self, log: &LogEntry, hash: B256, (transaction, index): (u32, u32)) -> Box<[u8]> {
        let pushed = PushedLog {
            address: Hex(log.address.as_slice()),
            block_hash: Hex(self.block.hash.as_slice()),
            block_number: Shown(self.block.header.number),
            data: Hex(&log.data),
            log_index: Quantity::of(index),
            topics: log.topics.iter().map(|topic| Hex(topic.as_slice())).collect(),
            transaction_hash: OwnedHex(hash),
            transaction_index: Quantity::of(transaction),
        };
        let json = serde_json::to_vec(&pushed).expect("writing to memory cannot fail");
        self.bytes.set(self.bytes.get() + json.len());
        json.into()
    }
}
