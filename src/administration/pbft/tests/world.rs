//! What surrounds an engine in the cluster tests: a pool, a deterministic executor, a chain that is durable and a vote log that is.
//!
//! One [`Host`] is one process: it carries out effects like the order, execute and commit stages, with all delays from the cluster. The
//! tests of Raft use it too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_base::{
    B256, BlockHeader, BlockSignature, Bytes, ChainId, GroupId, KeyPair, NodeId, RawTx, Transaction, U256, VerifiedTx, keccak256,
};

use super::super::{MAX_AHEAD_MS, PbftConfig, PbftEngine};
use crate::digest::Domain;
use crate::engine::{Engine, FinalBlock, Gathered, Input, Proposal};
use crate::epoch::{Epoch, Faults};

/// Deterministic numbers from one seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` − 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

pub fn domain() -> Domain {
    Domain { chain_id: ChainId::from(1u32 as u64), group: GroupId::new(1).unwrap(), genesis: B256::ZERO }
}

thread_local! {
    static KEYS: Vec<KeyPair> = {
        let mut keys: Vec<KeyPair> = (1..=16).map(|i| KeyPair::from_secret(&[i; 32]).unwrap()).collect();
        keys.sort_by_key(KeyPair::node_id);
        keys
    };
    static TRANSACTIONS: std::cell::RefCell<Vec<VerifiedTx>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Keys in the order of their node ids.
pub fn key(index: usize) -> KeyPair {
    KEYS.with(|keys| keys[index].clone())
}

/// The transaction with this number; always the same one.
pub fn transaction(number: usize) -> VerifiedTx {
    TRANSACTIONS.with_borrow_mut(|known| {
        while known.len() <= number {
            let nonce = U256::from(known.len());
            let raw: RawTx = Transaction {
                nonce,
                gas_price: U256::ZERO,
                gas: U256::ZERO,
                block_limit: U256::ZERO,
                to: None,
                value: U256::ZERO,
                data: Bytes::new(),
                chain_id: U256::ZERO,
                group_id: U256::ZERO,
                extra_data: Bytes::new(),
            }
            .sign(&KEYS.with(|keys| keys[0].clone()));
            known.push(VerifiedTx::from_trusted_store(raw, millrace_base::Address::ZERO));
        }
        known[number].clone()
    })
}

/// What some transactions do when executed: change who seals.
pub type Actions = HashMap<B256, Vec<usize>>;

pub fn epoch(sealers: &[usize], start: u64, timeout_ms: u64) -> Epoch {
    let mut sealers: Vec<NodeId> = sealers.iter().map(|index| key(*index).node_id()).collect();
    sealers.sort();
    Epoch { start, sealers, faults: Faults::Byzantine, tx_count_limit: 5, tx_gas_limit: 1, consensus_timeout_ms: timeout_ms }
}

/// A block as this host has it, with the epoch that governs the next height.
#[derive(Clone)]
pub struct Stored {
    pub block: FinalBlock,
    pub hash: B256,
    pub epoch: Epoch,
}

struct Gathering {
    digest: B256,
    hashes: Vec<B256>,
    pub holders: Vec<NodeId>,
}

/// See the module.
pub struct Host<E = PbftEngine> {
    pub key: KeyPair,
    pub engine: Option<E>,
    pub life: u32,
    pub window: u64,
    /// Milliseconds this host's clock is ahead.
    pub skew_ms: i64,
    pub log: Vec<(u64, Bytes)>,
    pub chain: Vec<Stored>,
    pub ahead: BTreeMap<u64, (u64, Stored)>,
    next_order: u64,
    epoch_ended_at: Option<u64>,
    pub pool: BTreeMap<B256, VerifiedTx>,
    reserved: BTreeMap<u64, Vec<VerifiedTx>>,
    gathering: BTreeMap<u64, Gathering>,
    done: BTreeSet<B256>,
    pub wanted: Option<(u64, u64, u64, u64)>,
    pub said_pending: bool,
    pub busy_until: u64,
    pub commit_until: u64,
}

impl Host<PbftEngine> {
    /// Starts the process; what was not durable is gone.
    pub fn boot(&mut self) {
        let (head, records) = self.restart();
        self.engine = Some(PbftEngine::new(PbftConfig {
            domain: domain(),
            key: self.key.clone(),
            epoch: head.epoch,
            head: head.block.header,
            head_hash: head.hash,
            head_signatures: head.block.signatures,
            records,
            window: self.window,
            max_ahead_ms: MAX_AHEAD_MS,
        }));
    }
}

impl<E: Engine> Host<E> {
    pub fn new(key: KeyPair, window: u64, epoch: Epoch) -> Self {
        let header = BlockHeader::default();
        let block = FinalBlock { header, signatures: Vec::new(), transactions: Vec::new(), from: key.node_id() };
        let genesis = Stored { hash: B256::ZERO, block, epoch };
        Self {
            key,
            engine: None,
            life: 0,
            window,
            skew_ms: 0,
            log: Vec::new(),
            chain: vec![genesis],
            ahead: BTreeMap::new(),
            next_order: 0,
            epoch_ended_at: None,
            pool: BTreeMap::new(),
            reserved: BTreeMap::new(),
            gathering: BTreeMap::new(),
            done: BTreeSet::new(),
            wanted: None,
            said_pending: false,
            busy_until: 0,
            commit_until: 0,
        }
    }

    pub fn head(&self) -> &Stored {
        self.chain.last().expect("there is block 0")
    }

    pub fn height(&self) -> u64 {
        self.head().block.header.number
    }

    /// What was not durable is gone; what a new engine continues with.
    pub fn restart(&mut self) -> (Stored, Vec<Bytes>) {
        let head = self.head().clone();
        let height = head.block.header.number;
        self.life += 1;
        self.ahead.clear();
        self.reserved.clear();
        self.gathering.clear();
        self.pool.clear();
        (self.wanted, self.said_pending, self.epoch_ended_at) = (None, false, None);
        (self.busy_until, self.commit_until) = (0, 0);
        self.log.retain(|(recorded, _)| *recorded > height);
        (head, self.log.iter().map(|(_, body)| body.clone()).collect())
    }

    pub fn crash(&mut self) {
        self.engine = None;
    }

    pub fn sealers(&self) -> Vec<NodeId> {
        self.engine.as_ref().map(|engine| engine.status().sealers).unwrap_or_default()
    }

    pub fn offer(&mut self, transaction: &VerifiedTx) {
        let hash = transaction.hash();
        let is_reserved = self.reserved.values().flatten().any(|reserved| reserved.hash() == hash);
        if self.engine.is_some() && !self.done.contains(&hash) && !is_reserved {
            self.pool.insert(hash, transaction.clone());
        }
    }

    /// The transaction, wherever this host has it.
    pub fn find(&self, hash: &B256) -> Option<VerifiedTx> {
        let reserved = || self.reserved.values().flatten().find(|transaction| transaction.hash() == *hash).cloned();
        let stored =
            || self.chain.iter().rev().take(40).flat_map(|stored| &stored.block.transactions).find(|tx| tx.hash() == *hash).cloned();
        let ahead = || self.ahead.values().flat_map(|(_, stored)| &stored.block.transactions).find(|tx| tx.hash() == *hash).cloned();
        self.pool.get(hash).cloned().or_else(reserved).or_else(ahead).or_else(stored)
    }

    fn give_back(&mut self, height: u64) {
        for transaction in self.reserved.remove(&height).unwrap_or_default() {
            if !self.done.contains(&transaction.hash()) {
                self.pool.insert(transaction.hash(), transaction);
            }
        }
    }

    pub fn void(&mut self, above: u64) {
        self.wanted = None;
        // What was ordered above the end of an epoch stays unexecuted until that itself is declared void.
        self.epoch_ended_at = self.epoch_ended_at.filter(|end| *end < above);
        self.ahead.split_off(&(above + 1));
        self.gathering.split_off(&(above + 1));
        let heights: Vec<u64> = self.reserved.range(above + 1..).map(|(height, _)| *height).collect();
        heights.into_iter().for_each(|height| self.give_back(height));
    }

    pub fn restore(&mut self, height: u64, transactions: Vec<VerifiedTx>) {
        self.reserved.insert(height, transactions);
    }

    /// Fills the wanted proposal from the pool.
    pub fn seal(&mut self, now_ms: u64) -> Option<Input> {
        let (height, view, after_ms, limit) = self.wanted?;
        if self.pool.is_empty() {
            return None;
        }
        self.wanted = None;
        self.give_back(height);
        let hashes: Vec<B256> = self.pool.keys().take(limit as usize).copied().collect();
        let transactions: Vec<VerifiedTx> = hashes.iter().filter_map(|hash| self.pool.remove(hash)).collect();
        self.reserved.insert(height, transactions.clone());
        Some(Input::Sealed { height, view, timestamp_ms: now_ms.max(after_ms + 1), transactions })
    }

    pub fn gather(&mut self, height: u64, digest: B256, hashes: Vec<B256>, holders: Vec<NodeId>) {
        if self.gathering.get(&height).is_some_and(|known| known.digest != digest) {
            self.give_back(height);
        }
        self.gathering.insert(height, Gathering { digest, hashes, holders });
    }

    pub fn gatherings(&self) -> Vec<(u64, Vec<B256>, Vec<NodeId>)> {
        let missing = |gathering: &Gathering| gathering.hashes.iter().filter(|hash| self.find(hash).is_none()).copied().collect();
        self.gathering.iter().map(|(height, gathering)| (*height, missing(gathering), gathering.holders.clone())).collect()
    }

    /// Answers a wish for transactions, when they are all here or one of them must not be in the block.
    pub fn gathered(&mut self, height: u64) -> Option<Input> {
        let Gathering { digest, hashes, .. } = self.gathering.get(&height)?;
        let (digest, hashes) = (*digest, hashes.clone());
        let elsewhere = |hash: &B256| self.reserved.iter().any(|(other, txs)| *other != height && txs.iter().any(|tx| tx.hash() == *hash));
        let mut distinct = BTreeSet::new();
        if height > self.height() && hashes.iter().any(|hash| self.done.contains(hash) || elsewhere(hash) || !distinct.insert(*hash)) {
            self.gathering.remove(&height);
            return Some(Input::Gathered { height, digest, outcome: Gathered::Refused("a transaction twice".into()) });
        }
        let found: Option<Vec<VerifiedTx>> = hashes.iter().map(|hash| self.find(hash)).collect();
        let found = found?;
        self.gathering.remove(&height);
        self.give_back(height);
        hashes.iter().for_each(|hash| drop(self.pool.remove(hash)));
        self.reserved.insert(height, found.clone());
        Some(Input::Gathered { height, digest, outcome: Gathered::Complete(found) })
    }

    /// Executes an ordered proposal; the number names this execution.
    pub fn execute(&mut self, proposal: Proposal, actions: &Actions) -> Option<u64> {
        let height = proposal.header.height;
        if self.epoch_ended_at.is_some_and(|end| height > end) {
            return None;
        }
        self.give_back(height);
        proposal.header.transactions.iter().for_each(|hash| drop(self.pool.remove(hash)));
        self.reserved.insert(height, proposal.transactions.clone());
        let below = self.ahead.last_key_value().map_or_else(|| self.head().clone(), |(_, (_, stored))| stored.clone());
        assert_eq!(height, below.block.header.number + 1, "heights are executed in order");
        assert_eq!(proposal.header.transactions, proposal.transactions.iter().map(VerifiedTx::hash).collect::<Vec<_>>());
        let mut bytes = below.block.header.state_root.to_vec();
        proposal.header.transactions.iter().for_each(|hash| bytes.extend_from_slice(hash.as_slice()));
        let header = BlockHeader {
            parent_hash: below.hash,
            state_root: keccak256(&bytes),
            transactions_root: millrace_base::merkle::root(&proposal.header.transactions),
            number: height,
            timestamp_ms: proposal.header.timestamp_ms,
            sealer: u64::from(proposal.header.sealer),
            sealer_list: below.epoch.sealers.clone(),
            ..BlockHeader::default()
        };
        let changed = proposal.header.transactions.iter().filter_map(|hash| actions.get(hash)).next_back();
        let next = changed.map(|sealers| self::epoch(sealers, height + 1, below.epoch.consensus_timeout_ms));
        let next = next.map(|next| Epoch { faults: below.epoch.faults, ..next });
        let next = next.filter(|next| !next.same_rules(&below.epoch));
        if next.is_some() {
            self.epoch_ended_at = Some(height);
        }
        let hash = header.hash();
        let block = FinalBlock { header, signatures: Vec::new(), transactions: proposal.transactions, from: self.key.node_id() };
        self.next_order += 1;
        self.ahead.insert(height, (self.next_order, Stored { block, hash, epoch: next.unwrap_or(below.epoch) }));
        Some(self.next_order)
    }

    /// The end of an execution, unless it was voided.
    pub fn executed(&self, height: u64, order: u64) -> Option<Input> {
        let (_, stored) = self.ahead.get(&height).filter(|(known, _)| *known == order)?;
        let governs = stored.block.header.sealer_list != stored.epoch.sealers;
        let next_epoch = (stored.epoch.start == height + 1 && governs).then(|| stored.epoch.clone());
        Some(Input::Executed { height, header: Box::new(stored.block.header.clone()), hash: stored.hash, next_epoch })
    }

    pub fn finalize(&mut self, height: u64, signatures: Vec<BlockSignature>) -> Stored {
        let (_, stored) = self.ahead.get_mut(&height).expect("only an executed height becomes final");
        stored.block.signatures = signatures;
        stored.clone()
    }

    /// Makes a final block durable.
    pub fn commit(&mut self, height: u64) -> Input {
        let (_, stored) = self.ahead.remove(&height).expect("a final block is never voided");
        assert_eq!(height, self.height() + 1);
        for transaction in &stored.block.transactions {
            assert!(self.done.insert(transaction.hash()), "a transaction is in the chain twice");
            self.pool.remove(&transaction.hash());
        }
        self.reserved.remove(&height);
        self.gathering.remove(&height);
        for transactions in self.reserved.values_mut() {
            transactions.retain(|transaction| !self.done.contains(&transaction.hash()));
        }
        self.chain.push(stored);
        self.log.retain(|(recorded, _)| *recorded > height);
        Input::Committed { height }
    }
}
