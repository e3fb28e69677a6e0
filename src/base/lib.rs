//! Base layer: the words of the system and how they look as bytes.
//!
//! Types (group, transaction, block, receipt), codecs (RLP, ABI, bounded wire codec), the crypto suite, limits, clock and fault kinds.
//! Invariant: nothing here starts a thread or does I/O, so every other crate, the simulator included, can use it.
//! Everything a client can see is encoded exactly as `spec/client-protocol.md` 1, 2 and 6 say.

pub mod abi;
pub mod block;
pub mod clock;
pub mod crypto;
pub mod fault;
pub mod frame;
pub mod group;
pub mod limits;
pub mod merkle;
pub mod receipt;
pub mod rlp;
pub mod status;
pub mod transaction;
pub mod wire;

pub use alloy_primitives::{Address, B256, Bloom, Bytes, U256, hex, keccak256};
pub use block::{Block, BlockHeader, BlockSignature};
pub use crypto::{KeyPair, NodeId, Signature};
pub use group::{ChainId, GroupId};
pub use receipt::{LogEntry, Receipt};
pub use status::{Refusal, TransactionStatus};
pub use transaction::{RawTx, Transaction, VerifiedTx};
