//! Messages about transactions between nodes: passed on, asked for, given. The order stage asks for what a proposal lacks, the sync
//! stage of another node answers; both speak this.
//!
//! Invariant: a message decodes within a fixed bound of memory, whatever its sender wrote into it.

use millrace_base::limits::MAX_TRANSACTION_BYTES;
use millrace_base::wire::{self, WireError};
use millrace_base::{B256, Bytes};

/// Hashes or transactions in one message: a block of ordinary size goes in one.
pub const MAX_TRANSFER_ITEMS: usize = 8_192;

/// Encoded transactions in one message, unless it holds a single larger one: short enough that votes need not wait behind it.
pub const MAX_TRANSFER_BATCH_BYTES: usize = 1 << 20;

/// Memory that decoding one message may take: a full batch and its last transaction, with their places.
const MAX_TRANSFER_DECODED_BYTES: usize = MAX_TRANSACTION_BYTES + MAX_TRANSFER_BATCH_BYTES + MAX_TRANSFER_ITEMS * 64;

/// See the module. Transactions are as their senders signed them; nothing of them has been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferMessage {
    /// Transactions that the sender's clients or peers brought.
    Push(Vec<Bytes>),
    /// Transactions that a proposal names and the sender lacks.
    Want {
        /// Their hashes.
        hashes: Vec<B256>,
    },
    /// An answer to [`TransferMessage::Want`], in any number of messages.
    Give(Vec<Bytes>),
}

/// Why bytes are not a transfer message.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Not of the form.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// More items than a message may have.
    #[error("{0} items in one message, at most {MAX_TRANSFER_ITEMS} are allowed")]
    TooMany(usize),
}

#[derive(bincode::Encode, bincode::Decode)]
enum Form {
    Push(Vec<Vec<u8>>),
    Want(Vec<[u8; 32]>),
    Give(Vec<Vec<u8>>),
}

impl TransferMessage {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let owned = |items: &[Bytes]| items.iter().map(|item| item.to_vec()).collect();
        let form = match self {
            Self::Push(items) => Form::Push(owned(items)),
            Self::Want { hashes } => Form::Want(hashes.iter().map(|hash| hash.0).collect()),
            Self::Give(items) => Form::Give(owned(items)),
        };
        wire::encode(&form).into()
    }

    /// As it was received.
    ///
    /// # Errors
    /// What an honest node never sends.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransferError> {
        let form = wire::decode_within::<MAX_TRANSFER_DECODED_BYTES, Form>(bytes)?;
        let count = match &form {
            Form::Push(items) | Form::Give(items) => items.len(),
            Form::Want(hashes) => hashes.len(),
        };
        if count > MAX_TRANSFER_ITEMS {
            return Err(TransferError::TooMany(count));
        }
        let shared = |items: Vec<Vec<u8>>| items.into_iter().map(Bytes::from).collect();
        Ok(match form {
            Form::Push(items) => Self::Push(shared(items)),
            Form::Want(hashes) => Self::Want { hashes: hashes.into_iter().map(B256::from).collect() },
            Form::Give(items) => Self::Give(shared(items)),
        })
    }
}

/// Splits transactions into batches that fit one message each.
pub fn batches(transactions: impl IntoIterator<Item = Bytes>) -> Vec<Vec<Bytes>> {
    let mut done = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for transaction in transactions {
        if !batch.is_empty() && (batch.len() == MAX_TRANSFER_ITEMS || bytes + transaction.len() > MAX_TRANSFER_BATCH_BYTES) {
            done.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += transaction.len();
        batch.push(transaction);
    }
    if !batch.is_empty() {
        done.push(batch);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_survives_the_round_trip() {
        let transactions = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let messages = [
            TransferMessage::Push(transactions.clone()),
            TransferMessage::Want { hashes: vec![B256::with_last_byte(1), B256::ZERO] },
            TransferMessage::Give(transactions),
        ];
        for message in messages {
            assert_eq!(TransferMessage::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn message_with_too_many_items_or_a_false_length_is_refused() {
        let many = TransferMessage::Want { hashes: vec![B256::ZERO; MAX_TRANSFER_ITEMS + 1] };
        assert!(matches!(TransferMessage::decode(&many.encode()), Err(TransferError::TooMany(_))));
        let false_length = [0, 0xfc, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(TransferMessage::decode(&false_length), Err(TransferError::Wire(_))));
        assert!(TransferMessage::decode(&[]).is_err());
    }

    #[test]
    fn batches_hold_everything_in_order_and_fit_a_message() {
        let sizes = [10, MAX_TRANSFER_BATCH_BYTES - 5, MAX_TRANSACTION_BYTES, 7, 7];
        let transactions: Vec<Bytes> = sizes.iter().map(|size| vec![1; *size].into()).collect();
        let split = batches(transactions.clone());
        assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 2]);
        assert_eq!(split.iter().flatten().cloned().collect::<Vec<_>>(), transactions);
        assert!(split.into_iter().all(|batch| TransferMessage::decode(&TransferMessage::Give(batch).encode()).is_ok()));
        assert_eq!(batches(std::iter::repeat_n(Bytes::new(), MAX_TRANSFER_ITEMS + 1)).len(), 2);
    }
}
