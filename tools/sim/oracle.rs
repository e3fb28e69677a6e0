//! What is true of every run, whatever happens: the model of each group's chain, and the checks against it.
//!
//! The first honest node that commits a height teaches the model the block; from then on every honest node must have the same one, for
//! ever. The model knows what each transaction does, so it knows who must govern each height and what every balance is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use millrace_base::abi::Decoder;
use millrace_base::{B256, Block, BlockSignature, GroupId, NodeId, Signature, U256};
use millrace_ledger::Ledger;
use millrace_ledger::view::{CallRequest, LedgerView};

use crate::clients::{self, ACCOUNTS, Issued, OPENING, Operation, Role};
use crate::options::Options;

/// A block as it was first seen.
struct Known {
    hash: B256,
    state_root: B256,
    timestamp_ms: u64,
}

/// One group.
struct Model {
    /// Whether a majority of sealers is a quorum.
    runs_raft: bool,
    issued: BTreeMap<B256, Issued>,
    /// By height, from 1.
    blocks: Vec<Known>,
    places: BTreeMap<B256, u64>,
    nonces: BTreeMap<U256, u64>,
    sealers: BTreeSet<NodeId>,
    observers: BTreeSet<NodeId>,
    block_limit: u64,
    balances: BTreeMap<u64, u64>,
    opened: u64,
}

/// A transaction that a process has accepted.
#[derive(Clone, Copy)]
struct Accepted {
    place: usize,
    life: u32,
    group: GroupId,
    hash: B256,
}

/// See the module.
pub struct Oracle {
    groups: BTreeMap<GroupId, Model>,
    accepted: Vec<Accepted>,
    /// Signatures that were found good.
    good: HashSet<(NodeId, B256, Signature)>,
}

impl Oracle {
    /// Knows the first members of each group.
    pub fn new(groups: &BTreeMap<GroupId, Vec<NodeId>>, options: &Options) -> Self {
        let block_limit = options.block_limit;
        let model = |group: &GroupId, sealers: &Vec<NodeId>| Model {
            runs_raft: options.runs_raft(*group),
            issued: BTreeMap::new(),
            blocks: Vec::new(),
            places: BTreeMap::new(),
            nonces: BTreeMap::new(),
            sealers: sealers.iter().copied().collect(),
            observers: BTreeSet::new(),
            block_limit,
            balances: BTreeMap::new(),
            opened: 0,
        };
        let groups = groups.iter().map(|(group, sealers)| (*group, model(group, sealers))).collect();
        Self { groups, accepted: Vec::new(), good: HashSet::new() }
    }

    fn model(&mut self, group: GroupId) -> &mut Model {
        self.groups.get_mut(&group).expect("every group has a model")
    }

    /// A client has signed this.
    pub fn issued(&mut self, group: GroupId, issued: &Issued) {
        self.model(group).issued.insert(issued.hash, issued.clone());
    }

    /// An honest process told a client that it has accepted a transaction.
    pub fn accepted(&mut self, place: usize, life: u32, group: GroupId, hash: B256) {
        self.accepted.push(Accepted { place, life, group, hash });
    }

    /// A process has closed a group: what waited there is forgotten, as the clients that ask again find out.
    pub fn closed(&mut self, place: usize, group: GroupId) {
        self.accepted.retain(|accepted| (accepted.place, accepted.group) != (place, group));
    }

    /// An honest process reported that it dropped accepted transactions.
    ///
    /// # Errors
    /// When one of them can still be in a block: no run is as long as the time after which a pool drops what waits.
    pub fn expired(&self, group: GroupId, hashes: &[B256]) -> Result<(), String> {
        let model = &self.groups[&group];
        let wrong = hashes.iter().find(|hash| !model.is_settled(hash));
        wrong.map_or(Ok(()), |hash| {
            Err(format!("group {group}: accepted transaction {hash} was dropped, although it can be in the next block"))
        })
    }

    /// Blocks known of a group.
    pub fn height(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |model| model.blocks.len() as u64)
    }

    /// Members of a group behind its last known block: sealers, observers.
    pub fn members(&self, group: GroupId) -> (&BTreeSet<NodeId>, &BTreeSet<NodeId>) {
        let model = &self.groups[&group];
        (&model.sealers, &model.observers)
    }

    /// A client was told that this block is durable.
    ///
    /// # Errors
    /// When it is not the one that others have.
    pub fn told(&self, group: GroupId, height: u64, hash: B256) -> Result<(), String> {
        match self.groups[&group].blocks.get(height as usize - 1) {
            Some(known) if known.hash == hash => Ok(()),
            Some(known) => Err(format!("group {group}: a client was told of block {height} {hash}, others have {}", known.hash)),
            None => Err(format!("group {group}: a client was told of block {height} {hash}, which nobody has committed")),
        }
    }

    /// An honest process has committed a block.
    ///
    /// # Errors
    /// What must never happen, in words.
    pub fn committed(&mut self, group: GroupId, block: &Block) -> Result<(), String> {
        let (height, hash) = (block.header.number, block.hash);
        let named = |reason: String| format!("group {group}, block {height} {hash}: {reason}");
        self.check_signatures(group, block).map_err(named)?;
        let model = self.model(group);
        if let Some(known) = model.blocks.get(height as usize - 1) {
            if known.hash == hash && known.state_root == block.header.state_root {
                return Ok(());
            }
            return Err(named(format!("FORK: another node has {} at this height", known.hash)));
        }
        if height != model.blocks.len() as u64 + 1 {
            return Err(named(format!("committed above height {}, which nobody has committed", model.blocks.len())));
        }
        model.learn(block).map_err(named)
    }

    fn check_signatures(&mut self, group: GroupId, block: &Block) -> Result<(), String> {
        let sealers = &block.header.sealer_list;
        let others = sealers.len().saturating_sub(1);
        let needed = sealers.len() - if self.model(group).runs_raft { others / 2 } else { others / 3 };
        let mut signers = BTreeSet::new();
        for BlockSignature { index, signature } in &block.signatures {
            let Some(sealer) = sealers.get(*index as usize) else { return Err(format!("signed by sealer {index} of {}", sealers.len())) };
            let key = (*sealer, block.hash, *signature);
            if !self.good.contains(&key) {
                if block.hash != block.header.hash() || !sealer.verify(block.hash, signature) {
                    return Err(format!("the signature of sealer {index} is wrong"));
                }
                self.good.insert(key);
            }
            signers.insert(*index);
        }
        if signers.len() < needed {
            return Err(format!("signed by {} distinct sealers of {}, {needed} must", signers.len(), sealers.len()));
        }
        Ok(())
    }

    /// Accepted transactions that are neither in the chain nor known to be impossible, of processes that still run the life in which
    /// they accepted them. `lives` gives the life of each honest process that has power.
    pub fn owed(&mut self, lives: &BTreeMap<usize, u32>) -> Option<String> {
        let groups = &self.groups;
        self.accepted.retain(|accepted| {
            let model = &groups[&accepted.group];
            lives.get(&accepted.place) == Some(&accepted.life) && !model.is_settled(&accepted.hash)
        });
        let Accepted { place, group, hash, .. } = *self.accepted.first()?;
        Some(format!(
            "process {place} has accepted transaction {hash} of group {group}, which is not in the chain ({} like it)",
            self.accepted.len()
        ))
    }

    /// Compares the state of an honest process with the model.
    ///
    /// # Errors
    /// What differs.
    pub fn check_state(&self, group: GroupId, ledger: &Ledger) -> Result<(), String> {
        let model = &self.groups[&group];
        let mut sum = 0;
        for account in 0..=ACCOUNTS {
            let data = clients::balance_query(account);
            let request = CallRequest { from: clients::bank(), to: clients::bank(), data, value: U256::ZERO, number: None };
            let output = ledger.call(request).map_err(|error| error.to_string())?.output;
            let mut values = Decoder::new(&output);
            let (code, balance) = (values.uint().unwrap_or_default(), values.uint().unwrap_or_default());
            let balance = code.is_zero().then(|| balance.saturating_to::<u64>());
            if balance != model.balances.get(&account).copied() {
                return Err(format!("group {group}: account {account} has {balance:?}, must have {:?}", model.balances.get(&account)));
            }
            sum += balance.unwrap_or(0);
        }
        if sum != model.opened * OPENING {
            return Err(format!("group {group}: balances sum to {sum}, {} accounts were opened with {OPENING} each", model.opened));
        }
        let sealers: Vec<NodeId> = model.sealers.iter().copied().collect();
        if ledger.sealers() != sealers {
            return Err(format!("group {group}: its sealers are not those that the chain made"));
        }
        Ok(())
    }

    /// Transactions in a group's chain.
    pub fn transactions(&self) -> usize {
        self.groups.values().map(|model| model.places.len()).sum()
    }

    /// Blocks of all chains.
    pub fn blocks(&self) -> usize {
        self.groups.values().map(|model| model.blocks.len()).sum()
    }
}

impl Model {
    fn learn(&mut self, block: &Block) -> Result<(), String> {
        let height = block.header.number;
        if !block.header.sealer_list.iter().eq(self.sealers.iter()) {
            return Err(format!("made by {} sealers, {} others govern this height", block.header.sealer_list.len(), self.sealers.len()));
        }
        if block.transactions.is_empty() || block.transactions.len() as u64 > self.block_limit {
            return Err(format!("has {} transactions, 1 to {} are allowed", block.transactions.len(), self.block_limit));
        }
        if self.blocks.last().is_some_and(|below| below.timestamp_ms >= block.header.timestamp_ms) {
            return Err("its timestamp is not above that of the block below".into());
        }
        for (transaction, receipt) in block.transactions.iter().zip(&block.receipts) {
            let hash = transaction.hash();
            let Some(issued) = self.issued.get(&hash).cloned() else { return Err(format!("transaction {hash} was signed by nobody")) };
            if let Some(other) = self.places.insert(hash, height) {
                return Err(format!("transaction {hash} is in block {other} too"));
            }
            if let Some(other) = self.nonces.insert(issued.nonce, height) {
                return Err(format!("the nonce of transaction {hash} was used in block {other}"));
            }
            if issued.limit < height {
                return Err(format!("transaction {hash} was void from height {} on", issued.limit + 1));
            }
            if receipt.status != 0 {
                return Err(format!("transaction {hash} failed with status {}", receipt.status));
            }
            self.apply(&issued.operation);
        }
        let (hash, state_root, timestamp_ms) = (block.hash, block.header.state_root, block.header.timestamp_ms);
        self.blocks.push(Known { hash, state_root, timestamp_ms });
        Ok(())
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open(account) => {
                if let std::collections::btree_map::Entry::Vacant(place) = self.balances.entry(account) {
                    place.insert(OPENING);
                    self.opened += 1;
                }
            }
            Operation::Transfer { from, to, amount } => {
                let Some(rest) = self.balances.get(&from).and_then(|balance| balance.checked_sub(amount)) else { return };
                if from != to {
                    self.balances.insert(from, rest);
                    *self.balances.entry(to).or_default() += amount;
                }
            }
            Operation::Role(node, role) => {
                let is_last = self.sealers.len() == 1 && self.sealers.contains(&node);
                if role != Role::Sealer && is_last {
                    return;
                }
                self.sealers.remove(&node);
                self.observers.remove(&node);
                match role {
                    Role::Sealer => drop(self.sealers.insert(node)),
                    Role::Observer => drop(self.observers.insert(node)),
                    Role::Free => {}
                }
            }
            Operation::BlockLimit(limit) => self.block_limit = limit,
            Operation::Timeout(_) => {}
        }
    }

    /// Whether the transaction is in the chain, or can never be: its nonce is used, or its limit has passed.
    fn is_settled(&self, hash: &B256) -> bool {
        let Some(issued) = self.issued.get(hash) else { return true };
        let is_void = issued.limit <= self.blocks.len() as u64;
        self.places.contains_key(hash) || self.nonces.contains_key(&issued.nonce) || is_void
    }
}
