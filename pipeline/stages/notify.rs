//! Notify: tells the outside about durable blocks and dropped transactions, off the path that makes blocks.
//!
//! Events are hints: when this stage falls behind, the oldest are dropped and counted. Whoever must see every block reads the chain up to
//! the height that an event names. Writes the one line a block that operators of 2.x grep for, and calls the listeners that gateways registered.

use std::sync::Arc;

use millrace_base::{B256, Block, GroupId};

use crate::messages::ToNotify;
use crate::runtime::{Batch, Stage};

/// Somebody outside the pipeline who wants to know. Called on the notify stage's thread: must return at once.
pub trait Listener: Send + Sync {
    /// A block is durable and visible to queries.
    fn on_block(&self, group: GroupId, block: &Arc<Block>);
    /// Accepted transactions were dropped because they expired.
    fn on_expired(&self, group: GroupId, hashes: &[B256]);
}

/// See the module.
pub struct NotifyStage {
    listeners: Vec<Arc<dyn Listener>>,
}

impl NotifyStage {
    /// With these listeners.
    pub fn new(listeners: Vec<Arc<dyn Listener>>) -> Self {
        Self { listeners }
    }
}

impl Stage for NotifyStage {
    type Input = ToNotify;

    fn handle(&mut self, batch: &mut Batch<ToNotify>) {
        for event in batch.drain(..) {
            match event {
                ToNotify::Block { group, block } => {
                    let (number, hash, transactions) = (block.header.number, block.hash, block.transactions.len());
                    tracing::info!(
                        "[g:{group}]^^^^^^^^Report,num={number},hash={hash},tx={transactions},sealerIdx={}",
                        block.header.sealer
                    );
                    self.listeners.iter().for_each(|listener| listener.on_block(group, &block));
                }
                ToNotify::Expired { group, hashes } => {
                    tracing::warn!("[g:{group}] {} accepted transactions expired before they were sealed (status 29)", hashes.len());
                    self.listeners.iter().for_each(|listener| listener.on_expired(group, &hashes));
                }
            }
        }
    }
}
