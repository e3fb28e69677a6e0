//! One case of the public state tests, over both kinds of state.
//!
//! A chain in memory begins with a block 0 that writes the accounts of `pre`; the transaction goes through the block executor as the only
//! one of block 1, which is committed. Then everything is read back from storage: with tries the header's state root must be the
//! expected one; with storage state the header's roots must be those of the stored values, and a whole build over these values must
//! give the expected root too. Logs come from the stored receipts.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use millrace_access::blockchain::facts::Get;
use millrace_access::blockchain::{self, BlockChain, Commit};
use millrace_access::verifier::{BlockExecutor, BlockOrder, Crew, ExecutedBlock, Mode, TransactionRunner};
use millrace_base::{B256, Block, BlockHeader, Bytes, KeyPair, LogEntry, NodeId, Receipt, Transaction, U256, VerifiedTx, keccak256};
use millrace_core::overlay::Writes;
use millrace_core::root::StateAccumulator;
use millrace_core::state::codec;
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{
    AccountRecord, Durability, Space, StateCommitment, StateKey, StateKind, StateReader, StateValue, Storage, StorageError, mpt,
};
use millrace_vm::executor::ethereum::{EthereumBlock, EthereumExecutor, EthereumOutcome, EthereumTransaction};
use millrace_vm::{BlockEnvironment, BlockHashes, Executed, Fork};

use super::fixture::{Account, Expectation, Fixture};

/// Status of a transaction that a block must not hold.
const REFUSED: u32 = u32::MAX;

/// Decoded state kept in memory by a chain; the states are small.
const CACHE_BYTES: usize = 1 << 20;

/// Transactions of one block at most.
pub(super) const MAX_TRANSACTIONS: usize = 32;

/// Our transactions that stand for Ethereum's in our blocks; their nonces are positions.
static STAND_INS: LazyLock<Vec<VerifiedTx>> = LazyLock::new(|| {
    let key = KeyPair::from_secret(&[1; 32]).expect("a valid key");
    let stand_in = |position| Transaction { nonce: U256::from(position), ..Transaction::default() }.sign(&key);
    (0..MAX_TRANSACTIONS).map(|position| VerifiedTx::from_trusted_store(stand_in(position), key.address())).collect()
});

/// Runs Ethereum's transactions in place of the stand-ins.
struct Runner {
    executor: EthereumExecutor,
    transactions: Arc<[EthereumTransaction]>,
}

impl TransactionRunner for Runner {
    fn transact(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        _: &BlockEnvironment,
        stand_in: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        let transaction = &self.transactions[stand_in.fields().nonce.to::<usize>()];
        match self.executor.transact(state, hashes, transaction)? {
            EthereumOutcome::Executed(executed) => Ok(*executed),
            EthereumOutcome::Refused(reason) => {
                let receipt = Receipt { status: REFUSED, output: Bytes::from(reason.into_bytes()), ..Receipt::default() };
                Ok(Executed { receipt, writes: Writes::new() })
            }
        }
    }
}

/// Hashes of earlier blocks as the public tests assume them.
struct TestHashes;

impl BlockHashes for TestHashes {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        Ok(Some(keccak256(number.to_string())))
    }
}

/// The state before block 0.
struct Nothing;

impl StateReader for Nothing {
    fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(None)
    }
}

/// What was read back of a case.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    root: B256,
    logs: B256,
    refusal: Option<String>,
}

/// Runs a case; the error says what differs.
pub fn run(fixture: &Fixture, fork: Fork, expected: &Expectation) -> Result<(), String> {
    let transaction = match fixture.transaction(expected) {
        Ok(transaction) => Some(transaction),
        Err(part) if !expected.is_refused => return Err(format!("{part} of the transaction cannot be read")),
        // It could not even be encoded.
        Err(_) => None,
    };
    for kind in [StateKind::Mpt, StateKind::Storage] {
        let outcome = outcome(fixture, fork, transaction.as_ref(), kind).map_err(|error| format!("{kind} state: {error}"))?;
        if outcome.refusal.is_some() != expected.is_refused && transaction.is_some() {
            return Err(match outcome.refusal {
                Some(reason) => format!("refused: {reason}"),
                None => "it ran, but should be refused".into(),
            });
        }
        if outcome.root != expected.root {
            return Err(format!("{kind} state has root {}, expected {}", outcome.root, expected.root));
        }
        if outcome.logs != expected.logs {
            return Err(format!("logs have hash {}, expected {}", outcome.logs, expected.logs));
        }
    }
    Ok(())
}

fn outcome(fixture: &Fixture, fork: Fork, transaction: Option<&EthereumTransaction>, kind: StateKind) -> Result<Outcome, StorageError> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let chain = begin(Arc::clone(&storage), &fixture.accounts, kind)?;
    if let Some(transaction) = transaction {
        let way = Way { fork, crew: Crew::alone(), mode: Mode::Serial };
        let ExecutedBlock { block, writes, nodes, commitment } = execute(&chain, &fixture.block, [transaction.clone()].into(), way)?;
        chain.commit(&[Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start: None }])?;
    }
    drop(chain);
    read_back(&storage)
}

/// A chain whose block 0 writes these accounts.
pub(super) fn begin(storage: Arc<dyn Storage>, accounts: &[Account], kind: StateKind) -> Result<BlockChain, StorageError> {
    BlockChain::create(storage, Durability::Process, CACHE_BYTES, genesis(accounts, kind)?)
}

fn genesis(accounts: &[Account], kind: StateKind) -> Result<Commit, StorageError> {
    let mut writes = Writes::new();
    for Account { address, nonce, balance, code, storage } in accounts {
        let code_hash = if code.is_empty() { AccountRecord::NO_CODE } else { keccak256(code) };
        let record = AccountRecord { nonce: *nonce, balance: *balance, code_hash, incarnation: 0 };
        writes.push((StateKey::Account(*address), Some(StateValue::Account(record))));
        if !code.is_empty() {
            writes.push((StateKey::Code(code_hash), Some(StateValue::Code(code.clone()))));
        }
        let slots = storage.iter().filter(|slot| !slot.1.is_zero());
        writes.extend(slots.map(|(index, value)| (StateKey::Slot(*address, 0, *index), Some(StateValue::Slot(*value)))));
    }
    writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    writes.dedup_by(|second, first| second.0 == first.0);
    let (commitment, nodes) = StateCommitment::empty(kind).after(&Nothing, &writes)?;
    let header = BlockHeader { state_root: commitment.state_root(), db_hash: commitment.db_hash(), ..BlockHeader::default() };
    let block = Block { hash: header.hash(), header, signatures: Vec::new(), transactions: Vec::new(), receipts: Vec::new() };
    Ok(Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start: None })
}

/// How a block is executed.
pub(super) struct Way {
    /// By which rules.
    pub fork: Fork,
    /// Who helps.
    pub crew: Arc<Crew>,
    /// Serially or in parallel.
    pub mode: Mode,
}

/// Executes a block of some transactions, [`MAX_TRANSACTIONS`] at most, on the chain's state.
pub(super) fn execute(
    chain: &BlockChain,
    block: &EthereumBlock,
    transactions: Arc<[EthereumTransaction]>,
    Way { fork, crew, mode }: Way,
) -> Result<ExecutedBlock, StorageError> {
    let (head, block, stand_ins) = (chain.head(), block.clone(), STAND_INS[..transactions.len()].to_vec());
    let make = move || Runner { executor: EthereumExecutor::new(fork, block.clone()), transactions: Arc::clone(&transactions) };
    BlockExecutor::with_runner(make, crew).always(mode).execute(BlockOrder {
        parent_hash: head.hash,
        number: 1,
        timestamp_ms: 1,
        tx_gas_limit: u64::MAX,
        sealer: 0,
        sealer_list: vec![NodeId([1; 64])],
        transactions: stand_ins,
        state: chain.state(),
        commitment: &chain.commitment()?,
        hashes: &TestHashes,
    })
}

fn read_back(storage: &Arc<dyn Storage>) -> Result<Outcome, StorageError> {
    let height = storage.height()?.unwrap_or_default();
    let get: Get<'_> = &|space, key| storage.get(space, key);
    let block = blockchain::read_block(get, height)?.ok_or_else(|| StorageError::Engine("the block is missing".into()))?;
    let commitment = blockchain::read_commitment(get)?;
    let header = &block.header;
    if (commitment.state_root(), commitment.db_hash()) != (header.state_root, header.db_hash) {
        return Err(StorageError::Engine("the header has other roots than the stored state".into()));
    }
    let refusal = block.receipts.iter().find(|receipt| receipt.status == REFUSED);
    let logs: Vec<LogEntry> = block.receipts.iter().flat_map(|receipt| receipt.logs.iter().cloned()).collect();
    Ok(Outcome {
        root: match commitment {
            StateCommitment::Mpt { accounts, .. } => accounts,
            StateCommitment::Storage(accumulator) => built_root(&**storage, &accumulator)?,
        },
        logs: keccak256(LogEntry::encode_list(&logs)),
        refusal: refusal.map(|receipt| String::from_utf8_lossy(&receipt.output).into_owned()),
    })
}

/// The Ethereum root of what is stored, after its multiset hash was found to be the committed one.
fn built_root(storage: &dyn Storage, committed: &StateAccumulator) -> Result<B256, StorageError> {
    let (mut values, mut accumulator, mut fault) = (Vec::new(), StateAccumulator::new(), None);
    storage.scan(Space::State, &[], &[], &mut |key, value| {
        let decoded = codec::decode_key(key).and_then(|key| codec::decode_value(&key, value).map(|value| (key, value)));
        match decoded {
            Ok(pair) => values.push(pair),
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        accumulator.add(key, value);
        ControlFlow::Continue(())
    })?;
    match fault {
        Some(error) => Err(error),
        None if accumulator != *committed => Err(StorageError::Engine("the stored values have another multiset hash".into())),
        None => Ok(mpt::build(&values)),
    }
}

#[cfg(test)]
mod tests {
    use millrace_base::Address;

    use super::*;

    fn account(code: &[u8]) -> Account {
        Account {
            address: Address::repeat_byte(7),
            nonce: 1,
            balance: U256::from(5),
            code: Bytes::copy_from_slice(code),
            storage: vec![(U256::from(1), U256::from(2)), (U256::from(3), U256::ZERO)],
        }
    }

    #[test]
    fn both_kinds_of_state_have_one_ethereum_root() {
        let root = |kind| {
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            begin(Arc::clone(&storage), &[account(b"code")], kind).unwrap();
            read_back(&storage).unwrap().root
        };
        assert_eq!(root(StateKind::Mpt), root(StateKind::Storage));
    }
}
