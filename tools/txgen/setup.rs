//! What a run needs on the chain before the load: the chain's id, accounts with balances, contracts, tables. All of it by transactions.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{Bytes, GroupId, hex};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::accounts::{Accounts, Picker, fresh_salt};
use crate::client::{Client, ClientError};
use crate::door::Doors;
use crate::file::Header;
use crate::follow;
use crate::load::{End, Load};
use crate::node::Node;
use crate::options::Options;
use crate::supply::{Lanes, Prepared, Signer, Supply, Target};
use crate::tracker::{Phase, Tracker};
use crate::workload::{Contract, Operation, Workload, workloads};

/// Transactions of set-up in flight: below the pool limit of every configuration, and they fill blocks.
const SETUP_WINDOW: usize = 2_000;

/// Set-up calls carry many accounts each, so batches stay small in number.
const SETUP_BATCH: usize = 50;

/// One group under load.
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// The nodes that run it.
    pub nodes: Vec<Arc<Node>>,
    /// Keys, choices, signing.
    pub signer: Signer,
    /// What happened to each transaction.
    pub tracker: Arc<Tracker>,
    /// Height before the first transaction.
    pub start_height: u64,
    /// Failures of each node that were acted upon.
    failures: Vec<AtomicU64>,
    workloads: Vec<&'static dyn Workload>,
    targets: OnceLock<Vec<Target>>,
}

fn fault(url: &str, error: &ClientError) -> Fault {
    let remedy = match error {
        ClientError::Rpc(_) => "check --group: the node must run the group and be one of its members",
        _ => "check --rpc and that the node is running",
    };
    Fault::new(FaultKind::Network, format!("{url}: {error}"), remedy)
}

impl Group {
    /// Asks each node for the group's height, and the chain's id; the group's nodes are those that know it. With `header`, accounts are those
    /// of a file.
    pub fn open(options: &Options, all: &[Arc<Node>], id: GroupId, header: Option<&Header>) -> Result<Self, Fault> {
        let (mut nodes, mut start_height, mut stranger) = (Vec::new(), 0, None);
        for node in all {
            match follow::height(&Client::new(&node.url, options.patience()), id.get()) {
                Ok(height) => {
                    start_height = start_height.max(height);
                    nodes.push(Arc::clone(node));
                }
                Err(error @ ClientError::Rpc(_)) => stranger = Some(fault(&node.url, &error)),
                Err(error) => return Err(fault(&node.url, &error)),
            }
        }
        let Some(first) = nodes.first() else {
            return Err(stranger.expect("there is a node, and it did not know the group"));
        };
        let chain_id = match options.chain_id {
            Some(chain_id) => chain_id,
            None => chain_id(&Client::new(&first.url, options.patience())).map_err(|error| fault(&first.url, &error))?,
        };
        let (seed, salt, count, name) = match header {
            Some(header) => (header.seed, header.salt.clone(), header.accounts, header.workload),
            None => (options.seed, fresh_salt(), options.accounts, options.workload),
        };
        let workloads = workloads(name);
        let tracker = Arc::new(Tracker::new(workloads.clone(), count));
        tracker.raise_height(start_height);
        let accounts = Accounts::derive(seed, &salt, count);
        let signer = Signer { chain_id, group: id.get(), seed, accounts, picker: Picker::new(options, count) };
        let failures = nodes.iter().map(|_| AtomicU64::new(0)).collect();
        let group = Self { id, nodes, signer, tracker, start_height, failures, workloads, targets: OnceLock::new() };
        if let Some(header) = header {
            group.adopt(header, chain_id)?;
        }
        Ok(group)
    }

    fn adopt(&self, header: &Header, chain_id: u64) -> Result<(), Fault> {
        if (header.chain_id, header.group) != (chain_id, self.id.get()) {
            let what = format!("the file is for chain {}, group {}", header.chain_id, header.group);
            return Err(Fault::new(
                FaultKind::Config,
                what,
                format!("this is chain {chain_id}, group {}: give --group, or sign anew", self.id),
            ));
        }
        if header.contracts.len() != self.workloads.len() {
            return Err(Fault::new(FaultKind::Config, "the file names the wrong number of contracts", "write it anew with --presign"));
        }
        let pairs = self.workloads.iter().zip(&header.contracts);
        let targets = pairs.map(|(&workload, &contract)| Target { workload, contract }).collect();
        self.targets.set(targets).map_err(|_| ()).expect("a new group has no targets");
        Ok(())
    }

    /// Workloads with their contracts; empty before [`Self::prepare`].
    pub fn targets(&self) -> &[Target] {
        self.targets.get().map_or(&[], Vec::as_slice)
    }

    /// Whether a node has failed more often than was acted upon; from then on it has not.
    pub fn has_new_failure(&self, index: usize, failures: u64) -> bool {
        self.failures[index].fetch_max(failures, Ordering::AcqRel) < failures
    }

    /// A client of a node that answers.
    pub fn client(&self, patience: Duration) -> Client {
        Client::new(&self.nodes[crate::node::instead_of(&self.nodes, 0)].url, patience)
    }

    /// Signs a range of load transactions, on all cores.
    pub fn make_many(&self, phase: Phase, ids: Range<u64>) -> Vec<Prepared> {
        if ids.is_empty() {
            return Vec::new();
        }
        self.signer.make_many(self.targets(), phase, ids, self.tracker.height())
    }

    /// Deploys contracts and fills accounts, and waits until all of it is committed. The follower must be running.
    pub fn prepare(&self, options: &Options, connections: usize) -> Result<(), Fault> {
        if self.targets.get().is_some() {
            return Ok(());
        }
        let mut next_id = 0;
        let mut targets = Vec::with_capacity(self.workloads.len());
        for (index, &workload) in (0_u8..).zip(&self.workloads) {
            let contract = match workload.contract() {
                Contract::BuiltIn(address) => address,
                Contract::Deployed(code) => {
                    let data = hex::decode(code.trim()).map(Bytes::from).expect("contract code in the tree is hex, as tests check");
                    let creation = Operation { signer: 0, data, transfer: None };
                    let mut creation = self.signer.sign(creation, None, (Phase::Setup, next_id), self.tracker.height());
                    creation.workload = index;
                    next_id += 1;
                    let hash = creation.hash;
                    self.commit(options, connections, vec![creation])?;
                    self.tracker.created(&hash).ok_or_else(|| self.failed("the contract was not created"))?
                }
            };
            for wave in workload.setup(&self.signer.accounts) {
                let height = self.tracker.height();
                let sign = |(offset, operation)| {
                    let id = next_id + offset as u64;
                    let signed = self.signer.sign(operation, Some(contract), (Phase::Setup, id), height);
                    Prepared { workload: index, ..signed }
                };
                let wave: Vec<Prepared> = wave.into_par_iter().enumerate().map(sign).collect();
                next_id += wave.len() as u64;
                self.commit(options, connections, wave)?;
            }
            targets.push(Target { workload, contract });
        }
        self.targets.set(targets).map_err(|_| ()).expect("set once, by this method");
        Ok(())
    }

    /// Sends a wave of set-up and waits for its receipts; each must succeed.
    fn commit(&self, options: &Options, connections: usize, wave: Vec<Prepared>) -> Result<(), Fault> {
        let supply = Supply::new(wave, 0..0, Lanes::ONE);
        let doors = Doors::http(options);
        let load = Load {
            group: self,
            supply: &supply,
            phase: Phase::Setup,
            doors: &doors,
            pace: None,
            batch: SETUP_BATCH.min(options.batch),
            window: SETUP_WINDOW,
            end: End::default(),
            patience: options.patience(),
        };
        let lines = load.run(connections);
        self.tracker.settle(options.patience());
        drop(lines);
        let has_problem = self.tracker.with_record(|record| !record.problems.is_empty());
        let missing = self.tracker.missing().len();
        if has_problem || missing > 0 || supply.remaining() > 0 {
            return Err(self.failed(&format!("{missing} transactions without receipt")));
        }
        Ok(())
    }

    fn failed(&self, why: &str) -> Fault {
        let (mut words, errors) = self.tracker.with_record(|record| (record.problems.clone(), record.errors.clone()));
        words.extend(errors.iter().map(|(code, count)| format!("{count} times {code}")));
        let what = format!("set-up of group {} failed: {why}\n  {}", self.id, words.join("\n  "));
        Fault::new(FaultKind::Operation, what, "see the node's log; accounts and contracts of this run are left as they are")
    }
}

/// The id that `getClientVersion` shows as a decimal text.
fn chain_id(client: &Client) -> Result<u64, ClientError> {
    let version: Value = client.call("getClientVersion", &json!([]))?;
    let id = &version["Chain Id"];
    id.as_u64()
        .or_else(|| id.as_str()?.parse().ok())
        .ok_or_else(|| ClientError::Protocol(format!("getClientVersion names the chain id {id}; give --chain-id")))
}
