//! A member that lies about blocks: it runs an honest node, and twists what that node answers to requests.
//!
//! Everything here is what a member can make up with its own key: other bodies, other headers, signatures that are missing, foreign,
//! of other blocks, or its own as often as it takes; heights that nobody has.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_administration::sync::message::{SyncMessage, WireBlock};
use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, GroupId, KeyPair, Transaction, U256, merkle};
use millrace_ledger::Ledger;

use crate::clients::CHAIN_ID;
use crate::dice::Dice;

/// See the module.
pub struct Lies {
    dice: Dice,
    key: KeyPair,
    ledgers: BTreeMap<GroupId, Arc<Ledger>>,
}

impl Lies {
    /// Of the member with this key.
    pub fn new(dice: Dice, key: KeyPair, ledgers: BTreeMap<GroupId, Arc<Ledger>>) -> Self {
        Self { dice, key, ledgers }
    }

    /// What is sent instead.
    pub fn twist(&mut self, group: GroupId, payload: Bytes) -> Bytes {
        match SyncMessage::decode(&payload) {
            Ok(SyncMessage::Blocks { id, from, blocks }) => {
                let blocks = self.twist_blocks(group, from, blocks);
                SyncMessage::Blocks { id, from, blocks }.encode()
            }
            Ok(SyncMessage::Status { version, genesis, height, hash, kept_from }) if self.dice.percent(60) => {
                let (more, hash) =
                    (self.dice.pick(&[0, 1, 1, 2, 1_000]), B256::from(U256::from(self.dice.next()) ^ U256::from_be_bytes(hash.0)));
                SyncMessage::Status { version, genesis, height: height + more, hash, kept_from }.encode()
            }
            _ => payload,
        }
    }

    fn twist_blocks(&mut self, group: GroupId, from: u64, mut blocks: Vec<Bytes>) -> Vec<Bytes> {
        let Some(ledger) = self.ledgers.get(&group).cloned() else { return blocks };
        let head = ledger.chain().head();
        if blocks.is_empty() && from == head.header.number + 1 && self.dice.percent(70) {
            let header = self.next_header(&ledger, &head.header, head.hash);
            blocks.push(self.forged(group, header));
            return blocks;
        }
        if !blocks.is_empty() && self.dice.percent(50) {
            let which = self.dice.index(blocks.len());
            blocks[which] = self.twist_block(group, &blocks[which]);
        }
        blocks
    }

    fn next_header(&mut self, ledger: &Ledger, head: &BlockHeader, hash: B256) -> BlockHeader {
        let sealer_list = ledger.epoch().sealers.clone();
        let (number, timestamp_ms) = (head.number + 1, head.timestamp_ms + 1 + self.dice.below(1_000));
        BlockHeader { parent_hash: hash, number, timestamp_ms, sealer_list, sealer: 0, ..head.clone() }
    }

    /// A block with one transaction of its own, signed by this member alone as often as a quorum has members.
    fn forged(&mut self, group: GroupId, mut header: BlockHeader) -> Bytes {
        let transaction = Transaction {
            nonce: U256::from(self.dice.next()),
            block_limit: U256::from(header.number + 100),
            to: Some(self.key.address()),
            chain_id: U256::from(CHAIN_ID),
            group_id: U256::from(group.get()),
            ..Transaction::default()
        };
        let transaction = transaction.sign(&self.key);
        header.transactions_root = merkle::root(&[transaction.hash()]);
        let signatures = self.own_signatures(&header);
        WireBlock::encode(&header, &signatures, [transaction.encoded().as_ref()].into_iter()).into()
    }

    fn own_signatures(&self, header: &BlockHeader) -> Vec<BlockSignature> {
        let index = header.sealer_list.binary_search(&self.key.node_id()).unwrap_or(0) as u32;
        let signature = self.key.sign(header.hash());
        let count = header.sealer_list.len();
        vec![BlockSignature { index, signature }; count - count.saturating_sub(1) / 3]
    }

    fn twist_block(&mut self, group: GroupId, bytes: &Bytes) -> Bytes {
        let Ok(mut block) = WireBlock::decode(bytes) else { return bytes.clone() };
        match self.dice.below(7) {
            0 => drop(block.transactions.pop()),
            1 => block.transactions.reverse(),
            2 => block.header.timestamp_ms += 1,
            3 => block.signatures.truncate(1),
            4 => {
                block.signatures =
                    vec![
                        block.signatures.first().copied().unwrap_or(BlockSignature { index: 0, signature: self.key.sign(B256::ZERO) });
                        block.signatures.len()
                    ]
            }
            5 => return self.forged(group, block.header),
            _ => {
                let mut broken = bytes.to_vec();
                let at = self.dice.index(broken.len());
                broken[at] ^= 1 << self.dice.below(8);
                return broken.into();
            }
        }
        WireBlock::encode(&block.header, &block.signatures, block.transactions.iter().map(AsRef::as_ref)).into()
    }
}
