//! Why the pool refuses a transaction, and the words for it that clients match on.
//!
//! Invariant: the comment is what the reference node puts behind `[dev::tag_comment*] =`, with the hash cut to four bytes as there.

use millrace_base::{B256, Refusal, Transaction, TransactionStatus, hex};

/// In the order in which the checks are made (`spec/client-protocol.md` 1.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Memory over its limit, or the submitter over its share of it.
    OverMemory,
    /// Count at its limit, or the submitter at its share of it.
    Full,
    /// The same transaction is in the pool.
    Known,
    /// The nonce was used by a recent block, or is the one that is never valid.
    NonceUsed,
    /// Expired, or too far ahead.
    BlockLimit,
    /// Another transaction of the pool has the nonce.
    NoncePending,
    /// Signed for another chain.
    ChainId,
    /// Signed for another group.
    GroupId,
}

impl Reason {
    fn status(self) -> TransactionStatus {
        match self {
            Self::OverMemory => TransactionStatus::OverGroupMemoryLimit,
            Self::Full => TransactionStatus::TxPoolIsFull,
            Self::Known => TransactionStatus::AlreadyKnown,
            Self::NonceUsed | Self::NoncePending => TransactionStatus::NonceCheckFail,
            Self::BlockLimit => TransactionStatus::BlockLimitCheckFail,
            Self::ChainId => TransactionStatus::InvalidChainId,
            Self::GroupId => TransactionStatus::InvalidGroupId,
        }
    }

    pub(super) fn refusal(self, fields: &Transaction, hash: B256) -> Refusal {
        let status = self.status();
        let word = match self {
            Self::NoncePending => "TxPoolNonceCheckFail",
            _ => status.refusal_word(),
        };
        let hash = hex::encode(&hash[..4]);
        let comment = match self {
            Self::BlockLimit => format!("{word}, txBlockLimit={}, txHash={hash}...", fields.block_limit),
            _ => format!("{word}, txHash={hash}..."),
        };
        Refusal { status, comment }
    }
}
