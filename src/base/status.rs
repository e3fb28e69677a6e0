//! Status codes of transactions: in receipts, in the answers of the pool, in `call` results (`spec/client-protocol.md` 1.6).

use std::fmt;

/// A `TransactionException` code of the 2.x protocol. The numbers are what clients see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
#[allow(missing_docs, reason = "each name is the protocol's own word; statuses with a twist are explained")]
pub enum TransactionStatus {
    None = 0,
    Unknown = 1,
    BadRlp = 2,
    InvalidFormat = 3,
    /// The gas limit is below the intrinsic cost.
    OutOfGasIntrinsic = 4,
    InvalidSignature = 5,
    InvalidNonce = 6,
    NotEnoughCash = 7,
    OutOfGasBase = 8,
    BlockGasLimitReached = 9,
    BadInstruction = 10,
    BadJumpDestination = 11,
    /// Out of gas while running, or code too long.
    OutOfGas = 12,
    OutOfStack = 13,
    StackUnderflow = 14,
    /// The nonce was used within the window, or is pending.
    NonceCheckFail = 15,
    BlockLimitCheckFail = 16,
    FilterCheckFail = 17,
    NoDeployPermission = 18,
    NoCallPermission = 19,
    NoTxPermission = 20,
    PrecompiledError = 21,
    RevertInstruction = 22,
    InvalidZeroSignatureFormat = 23,
    AddressAlreadyUsed = 24,
    PermissionDenied = 25,
    /// The callee has no code.
    CallAddressError = 26,
    GasOverflow = 27,
    TxPoolIsFull = 28,
    /// Expired in the pool, or refused for a reason of the node's own (still starting, stopping, syncing).
    TransactionRefused = 29,
    ContractFrozen = 30,
    AccountFrozen = 31,
    NotEnoughRemainGas = 32,
    AlreadyKnown = 10_000,
    AlreadyInChain = 10_001,
    InvalidChainId = 10_002,
    InvalidGroupId = 10_003,
    RequestNotBelongToTheGroup = 10_004,
    MalformedTx = 10_005,
    OverGroupMemoryLimit = 10_006,
}

impl TransactionStatus {
    const ALL: [TransactionStatus; 40] = {
        use TransactionStatus::*;
        [
            None,
            Unknown,
            BadRlp,
            InvalidFormat,
            OutOfGasIntrinsic,
            InvalidSignature,
            InvalidNonce,
            NotEnoughCash,
            OutOfGasBase,
            BlockGasLimitReached,
            BadInstruction,
            BadJumpDestination,
            OutOfGas,
            OutOfStack,
            StackUnderflow,
            NonceCheckFail,
            BlockLimitCheckFail,
            FilterCheckFail,
            NoDeployPermission,
            NoCallPermission,
            NoTxPermission,
            PrecompiledError,
            RevertInstruction,
            InvalidZeroSignatureFormat,
            AddressAlreadyUsed,
            PermissionDenied,
            CallAddressError,
            GasOverflow,
            TxPoolIsFull,
            TransactionRefused,
            ContractFrozen,
            AccountFrozen,
            NotEnoughRemainGas,
            AlreadyKnown,
            AlreadyInChain,
            InvalidChainId,
            InvalidGroupId,
            RequestNotBelongToTheGroup,
            MalformedTx,
            OverGroupMemoryLimit,
        ]
    };

    /// The number clients see.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The status with this code, if the protocol has one.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The `statusMsg` text of receipts. [`Self::AlreadyKnown`] reads "StackUnderflow": a slip of the reference node that clients see.
    pub fn message(self) -> String {
        match self {
            Self::AlreadyKnown => "StackUnderflow".into(),
            Self::BadRlp => "BadRLP".into(),
            other => format!("{other:?}"),
        }
    }

    /// The word that the error text of a refused submission carries; SDKs match on it (`spec/client-protocol.md` 1.5, spelling included).
    pub fn refusal_word(self) -> &'static str {
        match self {
            Self::AlreadyKnown => "TransactionAlreadyKown",
            Self::AlreadyInChain => "TransactionAlreadyInChain",
            Self::NonceCheckFail => "TransactionNonceCheckFail",
            Self::BlockLimitCheckFail => "BlockLimitCheckFailed",
            Self::InvalidChainId => "InvalidChainId",
            Self::InvalidGroupId => "InvalidGroupId",
            Self::TxPoolIsFull => "TransactionPoolIsFull",
            Self::OverGroupMemoryLimit => "OverGroupMemoryLimit",
            Self::MalformedTx => "TransactionSubmitFailed",
            _ => "TransactionRefused",
        }
    }
}

impl fmt::Display for TransactionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.code())
    }
}

/// A transaction was not accepted, and why, in the words clients match on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The status that a pushed receipt would carry.
    pub status: TransactionStatus,
    /// For example `BlockLimitCheckFailed, txBlockLimit=600, txHash=76cc4e2e...` (`spec/client-protocol.md` 1.5).
    pub comment: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.comment)
    }
}

impl std::error::Error for Refusal {}
