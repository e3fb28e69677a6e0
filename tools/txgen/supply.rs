//! Signed transactions ready to be sent, and the signing of more while some are still there.
//!
//! All cores sign before the clock starts. Only runs of more than [`PREPARED_MAX`] transactions sign the rest meanwhile, which bounds
//! memory: never more are ready than at the start. A transaction whose block limit has come near is signed anew when it is taken.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_base::{Address, B256, Bytes, RawTx, Transaction, U256, hex};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;

use crate::accounts::{Accounts, Picker, nonce};
use crate::options::Spread;
use crate::tracker::Phase;
use crate::workload::{Choice, Operation, Workload};

/// Transactions of all groups kept ready, about 600 bytes each.
pub const PREPARED_MAX: u64 = 400_000;

/// Signed at a time while the run goes on.
const CHUNK: u64 = 20_000;

/// Block limit ahead of the head, below the 1,000 that nodes accept: the head moves between signing and arrival.
const LIMIT_AHEAD: u64 = 900;

/// Signed anew when fewer blocks than this are left.
const LIMIT_LEFT: u64 = 100;

/// Carried and shown, never charged; the value most SDKs send.
const GAS: u64 = 30_000_000;

/// A signed transaction as request.
#[derive(Clone, Default)]
pub struct Prepared {
    /// Of the transaction.
    pub hash: B256,
    /// Id of the request, equal to the number of the transaction in its phase.
    pub id: u64,
    /// Index of the workload in the group.
    pub workload: u8,
    /// Account that signed.
    pub signer: u32,
    /// Payer and payee.
    pub transfer: Option<(u32, u32)>,
    /// Last height at which it is valid.
    pub block_limit: u64,
    /// Times it was refused and given back.
    pub refusals: u32,
    /// A node may have taken it already: its bytes must stay as they are, and that it is known is no refusal.
    pub is_resent: bool,
    /// When it was due, if that was before it is sent: its first node was not there.
    pub due: Option<Instant>,
    /// The JSON-RPC request.
    pub request: Box<str>,
}

/// A workload and the contract it works on.
#[derive(Clone, Copy)]
pub struct Target {
    /// What to call.
    pub workload: &'static dyn Workload,
    /// Where.
    pub contract: Address,
}

/// Makes and signs the transactions of one group.
pub struct Signer {
    /// Chain to sign for.
    pub chain_id: u64,
    /// Group to sign for.
    pub group: u16,
    /// Seed of choices.
    pub seed: u64,
    /// Who signs.
    pub accounts: Accounts,
    /// Who pays whom.
    pub picker: Picker,
}

impl Signer {
    /// Signs one call; `to` of `None` creates a contract.
    pub fn sign(&self, operation: Operation, to: Option<Address>, mark: (Phase, u64), height: u64) -> Prepared {
        let (phase, id) = mark;
        let block_limit = height + LIMIT_AHEAD;
        let transaction = Transaction {
            nonce: nonce(self.accounts.salt(), phase.name(), id),
            gas_price: U256::from(GAS),
            gas: U256::from(GAS),
            block_limit: U256::from(block_limit),
            to,
            data: operation.data,
            chain_id: U256::from(self.chain_id),
            group_id: U256::from(self.group),
            ..Transaction::default()
        };
        let raw = transaction.sign(self.accounts.key(operation.signer));
        let mut prepared = Prepared { id, signer: operation.signer, transfer: operation.transfer, block_limit, ..Prepared::default() };
        self.fill(&mut prepared, &raw);
        prepared
    }

    /// Puts the signed form into the request.
    pub fn fill(&self, prepared: &mut Prepared, raw: &RawTx) {
        prepared.hash = raw.hash();
        let (group, raw, id) = (self.group, hex::encode(raw.encoded()), prepared.id);
        prepared.request =
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"sendRawTransaction\",\"params\":[{group},\"0x{raw}\"],\"id\":{id}}}").into();
    }

    /// One transaction under load: everything about it follows from seed, phase and number.
    fn make(&self, targets: &[Target], phase: Phase, id: u64, height: u64) -> Prepared {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (id << 8) ^ phase as u64 ^ (u64::from(self.group) << 48));
        let workload = usize::try_from(id).unwrap_or(0) % targets.len();
        let target = &targets[workload];
        let (from, to) = self.picker.pick(&mut rng);
        let operation = target.workload.operation(&self.accounts, Choice { from, to, sequence: id }, &mut rng);
        let mut prepared = self.sign(operation, Some(target.contract), (phase, id), height);
        prepared.workload = u8::try_from(workload).expect("there are four workloads");
        prepared
    }

    /// A range of transactions under load, on all cores.
    pub fn make_many(&self, targets: &[Target], phase: Phase, ids: Range<u64>, height: u64) -> Vec<Prepared> {
        ids.into_par_iter().map(|id| self.make(targets, phase, id, height)).collect()
    }

    /// Signs anew what would expire soon at this height and no node can have.
    pub fn refresh(&self, prepared: &mut Prepared, height: u64) {
        if prepared.is_resent || prepared.block_limit >= height + LIMIT_LEFT {
            return;
        }
        let raw = raw_of(&prepared.request).expect("requests are made by this module");
        let mut fields = raw.fields().clone();
        prepared.block_limit = height + LIMIT_AHEAD;
        fields.block_limit = U256::from(prepared.block_limit);
        let raw = fields.sign(self.accounts.key(prepared.signer));
        self.fill(prepared, &raw);
    }
}

/// The transaction in a request of [`Signer::fill`].
pub fn raw_of(request: &str) -> Option<RawTx> {
    RawTx::decode(&raw_bytes(request)?).ok()
}

/// The bytes of the transaction in a request.
fn raw_bytes(request: &str) -> Option<Bytes> {
    let start = request.find("\"0x")? + 3;
    let end = start + request[start..].find('"')?;
    hex::decode(&request[start..end]).ok().map(Bytes::from)
}

/// Which lane of the supply a transaction waits in; a lane belongs to a node.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// One a node.
    pub count: usize,
    /// How they are chosen.
    pub spread: Spread,
    /// Transactions in a request.
    pub batch: usize,
}

impl Lanes {
    /// Everything in one lane.
    pub const ONE: Self = Self { count: 1, spread: Spread::Sticky, batch: 1 };

    fn of(self, item: &Prepared) -> usize {
        let place = match self.spread {
            Spread::Sticky => u64::from(item.signer),
            Spread::RoundRobin => item.id / self.batch as u64,
        };
        usize::try_from(place % self.count as u64).unwrap_or(0)
    }
}

/// The queue between signing and sending. A connection that takes items says at the end what became of them.
pub struct Supply {
    lanes: Lanes,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    ready: Vec<VecDeque<Prepared>>,
    unsigned: Range<u64>,
    /// Taken and possibly given back.
    held: usize,
    is_closed: bool,
    /// Most that are ready at once; twice as many while a lane is empty.
    capacity: u64,
}

impl Queue {
    fn ready(&self) -> u64 {
        self.ready.iter().map(|lane| lane.len() as u64).sum()
    }

    fn has_space(&self) -> bool {
        let (ready, has_empty_lane) = (self.ready() + CHUNK, self.ready.iter().any(VecDeque::is_empty));
        ready <= self.capacity || (has_empty_lane && ready <= 2 * self.capacity)
    }

    fn is_exhausted(&self) -> bool {
        self.unsigned.is_empty() && self.held == 0 && self.ready.iter().all(VecDeque::is_empty)
    }
}

impl Supply {
    /// `ready` now, `unsigned` to be added by [`Self::keep_filled`].
    pub fn new(ready: Vec<Prepared>, unsigned: Range<u64>, lanes: Lanes) -> Self {
        let capacity = CHUNK.max(ready.len() as u64);
        let queue = Queue { ready: vec![VecDeque::new(); lanes.count], unsigned, held: 0, is_closed: false, capacity };
        let supply = Self { lanes, queue: Mutex::new(queue), changed: Condvar::new() };
        supply.append(ready);
        supply
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, items: Vec<Prepared>) {
        let mut queue = self.lock();
        for item in items {
            queue.ready[self.lanes.of(&item)].push_back(item);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.count
    }

    /// Signs chunk after chunk while there is something to sign; returns when all is signed or the supply is closed.
    pub fn keep_filled(&self, sign: impl Fn(Range<u64>) -> Vec<Prepared>) {
        loop {
            let mut queue = self.lock();
            while !queue.has_space() && !queue.is_closed && !queue.unsigned.is_empty() {
                queue = self.changed.wait_timeout(queue, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
            }
            if queue.is_closed || queue.unsigned.is_empty() {
                return;
            }
            let chunk = queue.unsigned.start..queue.unsigned.end.min(queue.unsigned.start + CHUNK);
            drop(queue);
            let signed = sign(chunk.clone());
            // In this order: a connection that finds its lane empty must not believe that all is signed.
            self.append(signed);
            self.lock().unsigned.start = chunk.end;
            self.changed.notify_all();
        }
    }

    /// Takes up to `wanted` of a lane; none at the end. Waits while more may come, be it signed or given back, to whichever lane: another
    /// node's failure can still bring something.
    pub fn take(&self, lane: usize, wanted: usize) -> Vec<Prepared> {
        let mut queue = self.lock();
        loop {
            if !queue.ready[lane].is_empty() && !queue.is_closed {
                let count = wanted.min(queue.ready[lane].len());
                queue.held += count;
                let taken = queue.ready[lane].drain(..count).collect();
                drop(queue);
                self.changed.notify_all();
                return taken;
            }
            if queue.is_closed || queue.is_exhausted() {
                return Vec::new();
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Of `taken` items these come back, to be sent next.
    pub fn give_back(&self, taken: usize, again: Vec<Prepared>) {
        let mut queue = self.lock();
        queue.held -= taken;
        for item in again.into_iter().rev() {
            queue.ready[self.lanes.of(&item)].push_front(item);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Ends the run early: nothing more is handed out.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Transactions that were never handed out.
    pub fn remaining(&self) -> u64 {
        let queue = self.lock();
        queue.ready() + (queue.unsigned.end - queue.unsigned.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::WorkloadName;
    use crate::workload::workloads;

    pub(crate) fn signer() -> Signer {
        let options = clap::Parser::parse_from(["txgen", "--rpc", "http://a:1"]);
        Signer { chain_id: 1, group: 3, seed: 5, accounts: Accounts::derive(5, "salt", 4), picker: Picker::new(&options, 4) }
    }

    fn targets() -> Vec<Target> {
        workloads(WorkloadName::Mix).into_iter().map(|workload| Target { workload, contract: Address::repeat_byte(7) }).collect()
    }

    #[test]
    fn a_request_carries_the_transaction_it_is_hashed_by() {
        let signer = signer();
        for prepared in signer.make_many(&targets(), Phase::Measured, 0..8, 20) {
            let raw = raw_of(&prepared.request).unwrap();
            assert_eq!((raw.hash(), raw.fields().block_limit), (prepared.hash, U256::from(920)));
            assert_eq!((raw.fields().group_id, raw.fields().chain_id), (U256::from(3), U256::from(1)));
            let sender = raw.verify().unwrap().sender();
            assert_eq!(sender, signer.accounts.address(prepared.signer));
        }
    }

    #[test]
    fn an_expiring_transaction_is_signed_anew_with_the_same_content() {
        let signer = signer();
        let mut prepared = signer.make_many(&targets(), Phase::Measured, 0..1, 20).remove(0);
        let (hash, fields) = (prepared.hash, raw_of(&prepared.request).unwrap().fields().clone());
        signer.refresh(&mut prepared, 700);
        assert_eq!(prepared.hash, hash);
        prepared.is_resent = true;
        signer.refresh(&mut prepared, 900);
        assert_eq!(prepared.hash, hash);
        prepared.is_resent = false;
        signer.refresh(&mut prepared, 900);
        let renewed = raw_of(&prepared.request).unwrap();
        assert_eq!(prepared.block_limit, 1_800);
        assert_eq!((renewed.hash(), renewed.fields().nonce), (prepared.hash, fields.nonce));
        assert_ne!(prepared.hash, hash);
    }

    fn item(id: u64) -> Prepared {
        Prepared { id, signer: u32::try_from(id).unwrap(), ..Prepared::default() }
    }

    #[test]
    fn lanes_keep_accounts_or_batches_together() {
        let ids = |spread, lane| {
            let lanes = Lanes { count: 2, spread, batch: 2 };
            let taken = Supply::new((0..8).map(item).collect(), 0..0, lanes).take(lane, 9);
            taken.iter().map(|item| item.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(Spread::Sticky, 1), [1, 3, 5, 7]);
        assert_eq!(ids(Spread::RoundRobin, 1), [2, 3, 6, 7]);
    }

    #[test]
    fn a_lane_without_items_waits_for_what_others_hold() {
        let supply = Supply::new(vec![item(0)], 0..0, Lanes { count: 2, spread: Spread::Sticky, batch: 1 });
        let mut taken = supply.take(0, 1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| supply.take(1, 1));
            taken[0].signer = 1;
            supply.give_back(1, taken);
            assert_eq!(waiting.join().unwrap().len(), 1);
        });
    }

    #[test]
    fn what_is_given_back_is_handed_out_again_before_the_end() {
        let supply = Supply::new(vec![item(1), item(2)], 0..0, Lanes::ONE);
        let taken = supply.take(0, 2);
        assert_eq!(supply.remaining(), 0);
        supply.give_back(2, vec![taken[0].clone()]);
        assert_eq!(supply.take(0, 9)[0].id, 1);
        supply.give_back(1, Vec::new());
        assert!(supply.take(0, 1).is_empty());
    }

    #[test]
    fn unsigned_transactions_follow_while_connections_wait() {
        let supply = Supply::new(Vec::new(), 0..3, Lanes::ONE);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| supply.take(0, 3).len());
            supply.keep_filled(|ids| ids.map(item).collect());
            assert_eq!(waiting.join().unwrap(), 3);
        });
    }
}
