//! How chain objects look in JSON (`spec/client-protocol.md` 2.7): field order is alphabetical, because scripts cut replies by position.
//!
//! Views borrow from blocks and are written straight into the reply.

use std::fmt;

use millrace_base::merkle::ProofStep;
use millrace_base::{Address, B256, Block, BlockHeader, BlockSignature, Receipt, Signature, TransactionStatus, U256, VerifiedTx, hex};
use serde::{Serialize, Serializer};

/// Bytes as hexadecimal digits behind `0x`.
pub struct Hex<'a>(pub &'a [u8]);

/// Bytes of an object that is returned by value, as [`Hex`].
pub struct OwnedHex<T>(pub T);

impl<T: AsRef<[u8]>> Serialize for OwnedHex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(self.0.as_ref()).serialize(serializer)
    }
}

/// Bytes as hexadecimal digits alone.
pub struct Digits<'a>(pub &'a [u8]);

fn write_digits(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut buffer = [0; 1024];
    for chunk in bytes.chunks(512) {
        let digits = &mut buffer[..2 * chunk.len()];
        hex::encode_to_slice(chunk, digits).expect("two digits a byte");
        f.write_str(std::str::from_utf8(digits).expect("digits are ASCII"))?;
    }
    Ok(())
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        write_digits(self.0, f)
    }
}

impl fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(self.0, f)
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Digits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number as hexadecimal digits behind `0x`, without leading zeros.
pub struct Quantity(pub U256);

impl Quantity {
    /// From a number of at most 64 bits.
    pub fn of(number: impl Into<u64>) -> Self {
        Self(U256::from(number.into()))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// Anything that can be printed, as a string.
pub struct Shown<T>(pub T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What of a block is shown beside its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transactions {
    /// Their hashes.
    Hashes,
    /// Whole transactions, and the block's signatures.
    Whole,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignatureView<'a> {
    index: Quantity,
    signature: Hex<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Height {
    Number(u64),
    Text(Quantity),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Hashes(Vec<OwnedHex<B256>>),
    Whole(Vec<TransactionView<'a>>),
}

/// A block or header.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockView<'a> {
    db_hash: Hex<'a>,
    extra_data: Vec<Hex<'a>>,
    gas_limit: Quantity,
    gas_used: Quantity,
    hash: Hex<'a>,
    logs_bloom: Hex<'a>,
    number: Height,
    parent_hash: Hex<'a>,
    receipts_root: Hex<'a>,
    sealer: Quantity,
    sealer_list: Vec<Digits<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_list: Option<Vec<SignatureView<'a>>>,
    state_root: Hex<'a>,
    timestamp: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<Body<'a>>,
    transactions_root: Hex<'a>,
}

impl<'a> BlockView<'a> {
    /// A header alone: its number is a JSON integer.
    pub fn header(header: &'a BlockHeader, hash: &'a B256, signatures: Option<&'a [BlockSignature]>) -> Self {
        let signature =
            |signature: &'a BlockSignature| SignatureView { index: Quantity::of(signature.index), signature: Hex(&signature.signature.0) };
        Self {
            db_hash: Hex(header.db_hash.as_slice()),
            extra_data: header.extra_data.iter().map(|item| Hex(item)).collect(),
            gas_limit: Quantity::of(header.gas_limit),
            gas_used: Quantity::of(header.gas_used),
            hash: Hex(hash.as_slice()),
            logs_bloom: Hex(header.logs_bloom.as_slice()),
            number: Height::Number(header.number),
            parent_hash: Hex(header.parent_hash.as_slice()),
            receipts_root: Hex(header.receipts_root.as_slice()),
            sealer: Quantity::of(header.sealer),
            sealer_list: header.sealer_list.iter().map(|id| Digits(&id.0)).collect(),
            signature_list: signatures.map(|list| list.iter().map(signature).collect()),
            state_root: Hex(header.state_root.as_slice()),
            timestamp: Quantity::of(header.timestamp_ms),
            transactions: None,
            transactions_root: Hex(header.transactions_root.as_slice()),
        }
    }

    /// A block: its number is a text, its signatures come with whole transactions only.
    pub fn block(block: &'a Block, transactions: Transactions) -> Self {
        let (body, signatures) = match transactions {
            Transactions::Hashes => (Body::Hashes(block.transactions.iter().map(|tx| OwnedHex(tx.hash())).collect()), None),
            Transactions::Whole => {
                let whole = block.transactions.iter().zip(0..).map(|(tx, index)| TransactionView::committed(tx, block, index));
                (Body::Whole(whole.collect()), Some(block.signatures.as_slice()))
            }
        };
        let mut view = Self::header(&block.header, &block.hash, signatures);
        view.number = Height::Text(Quantity::of(block.header.number));
        view.transactions = Some(body);
        view
    }
}

#[derive(Serialize)]
struct TransactionSignature<'a> {
    r: Hex<'a>,
    s: Hex<'a>,
    signature: Hex<'a>,
    v: Quantity,
}

impl<'a> TransactionSignature<'a> {
    fn of(signature: &'a Signature) -> Self {
        let bytes = &signature.0;
        Self { r: Hex(&bytes[..32]), s: Hex(&bytes[32..64]), signature: Hex(bytes), v: Quantity::of(signature.recovery_id()) }
    }
}

/// A transaction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<Hex<'a>>,
    block_limit: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_number: Option<Quantity>,
    chain_id: Quantity,
    extra_data: Hex<'a>,
    from: OwnedHex<Address>,
    gas: Quantity,
    gas_price: Quantity,
    group_id: Quantity,
    hash: OwnedHex<B256>,
    input: Hex<'a>,
    nonce: Quantity,
    signature: TransactionSignature<'a>,
    to: OwnedHex<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_index: Option<Quantity>,
    value: Quantity,
}

impl<'a> TransactionView<'a> {
    /// One that waits in the pool.
    pub fn pending(tx: &'a VerifiedTx) -> Self {
        let fields = tx.fields();
        Self {
            block_hash: None,
            block_limit: Quantity(fields.block_limit),
            block_number: None,
            chain_id: Quantity(fields.chain_id),
            extra_data: Hex(&fields.extra_data),
            from: OwnedHex(tx.sender()),
            gas: Quantity(fields.gas),
            gas_price: Quantity(fields.gas_price),
            group_id: Quantity(fields.group_id),
            hash: OwnedHex(tx.hash()),
            input: Hex(&fields.data),
            nonce: Quantity(fields.nonce),
            signature: TransactionSignature::of(tx.signature()),
            to: OwnedHex(fields.to.unwrap_or_default()),
            transaction_index: None,
            value: Quantity(fields.value),
        }
    }

    /// One at `index` of a block.
    pub fn committed(tx: &'a VerifiedTx, block: &'a Block, index: u32) -> Self {
        Self {
            block_hash: Some(Hex(block.hash.as_slice())),
            block_number: Some(Quantity::of(block.header.number)),
            transaction_index: Some(Quantity::of(index)),
            ..Self::pending(tx)
        }
    }
}

#[derive(Serialize)]
struct LogView<'a> {
    address: Hex<'a>,
    data: Hex<'a>,
    topics: Vec<Hex<'a>>,
}

fn logs(receipt: &Receipt) -> Vec<LogView<'_>> {
    receipt
        .logs
        .iter()
        .map(|log| LogView {
            address: Hex(log.address.as_slice()),
            data: Hex(&log.data),
            topics: log.topics.iter().map(|topic| Hex(topic.as_slice())).collect(),
        })
        .collect()
}

/// A receipt with what belongs to its transaction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptView<'a> {
    block_hash: Hex<'a>,
    block_number: Quantity,
    contract_address: Hex<'a>,
    from: OwnedHex<Address>,
    gas_used: Quantity,
    input: Hex<'a>,
    logs: Vec<LogView<'a>>,
    logs_bloom: Hex<'a>,
    output: Hex<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_proof: Option<Vec<ProofStepView<'a>>>,
    remain_gas: Quantity,
    root: Hex<'a>,
    status: Quantity,
    status_msg: String,
    to: OwnedHex<Address>,
    transaction_hash: OwnedHex<B256>,
    transaction_index: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_proof: Option<Vec<ProofStepView<'a>>>,
}

/// Bytes of fields that a transaction without a block does not have.
static ZEROS: [u8; 256] = [0; 256];

impl<'a> ReceiptView<'a> {
    /// The receipt that a client of version 3 of the channel protocol gets for a transaction that did not make it into a block
    /// (`spec/client-protocol.md` 1.6): all fields but the status are zero.
    pub fn refused(status: TransactionStatus) -> Self {
        Self {
            block_hash: Hex(&ZEROS[..32]),
            block_number: Quantity::of(0u64),
            contract_address: Hex(&ZEROS[..20]),
            from: OwnedHex(Address::ZERO),
            gas_used: Quantity::of(0u64),
            input: Hex(&[]),
            logs: Vec::new(),
            logs_bloom: Hex(&ZEROS),
            output: Hex(&[]),
            receipt_proof: None,
            remain_gas: Quantity::of(0u64),
            root: Hex(&ZEROS[..32]),
            status: Quantity::of(status.code()),
            status_msg: status.message(),
            to: OwnedHex(Address::ZERO),
            transaction_hash: OwnedHex(B256::ZERO),
            transaction_index: Quantity::of(0u64),
            tx_proof: None,
        }
    }

    /// The same with Merkle proofs of the transaction and of the receipt.
    pub fn with_proofs(self, transaction: &'a [ProofStep], receipt: &'a [ProofStep]) -> Self {
        Self { tx_proof: Some(proof(transaction)), receipt_proof: Some(proof(receipt)), ..self }
    }

    /// The receipt at `index` of a block; `None` when there is none.
    pub fn committed(block: &'a Block, index: u32) -> Option<Self> {
        let position = usize::try_from(index).ok()?;
        let (tx, receipt) = (block.transactions.get(position)?, block.receipts.get(position)?);
        let status_msg = TransactionStatus::from_code(receipt.status).unwrap_or(TransactionStatus::Unknown).message();
        Some(Self {
            block_hash: Hex(block.hash.as_slice()),
            block_number: Quantity::of(block.header.number),
            contract_address: Hex(receipt.contract_address.as_slice()),
            from: OwnedHex(tx.sender()),
            gas_used: Quantity(receipt.gas_used),
            input: Hex(&tx.fields().data),
            logs: logs(receipt),
            logs_bloom: Hex(receipt.logs_bloom.as_slice()),
            output: Hex(&receipt.output),
            receipt_proof: None,
            remain_gas: Quantity(receipt.remain_gas),
            root: Hex(receipt.state_root.as_slice()),
            status: Quantity::of(receipt.status),
            status_msg,
            to: OwnedHex(tx.fields().to.unwrap_or_default()),
            transaction_hash: OwnedHex(tx.hash()),
            transaction_index: Quantity::of(index),
            tx_proof: None,
        })
    }
}

/// A receipt inside a batch: without what the block says once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BriefReceiptView<'a> {
    contract_address: Hex<'a>,
    from: OwnedHex<Address>,
    gas_used: Quantity,
    logs: Vec<LogView<'a>>,
    output: Hex<'a>,
    status: Quantity,
    to: OwnedHex<Address>,
    transaction_hash: OwnedHex<B256>,
    transaction_index: Quantity,
}

impl<'a> BriefReceiptView<'a> {
    /// The receipt `receipt` of `tx` at `index`.
    pub fn of(tx: &'a VerifiedTx, receipt: &'a Receipt, index: u64) -> Self {
        Self {
            contract_address: Hex(receipt.contract_address.as_slice()),
            from: OwnedHex(tx.sender()),
            gas_used: Quantity(receipt.gas_used),
            logs: logs(receipt),
            output: Hex(&receipt.output),
            status: Quantity::of(receipt.status),
            to: OwnedHex(tx.fields().to.unwrap_or_default()),
            transaction_hash: OwnedHex(tx.hash()),
            transaction_index: Quantity::of(index),
        }
    }
}

/// One level of a Merkle proof.
#[derive(Serialize)]
pub struct ProofStepView<'a> {
    left: Vec<Digits<'a>>,
    right: Vec<Digits<'a>>,
}

/// A Merkle proof, leaf level first.
pub fn proof(steps: &[ProofStep]) -> Vec<ProofStepView<'_>> {
    fn side(nodes: &[Vec<u8>]) -> Vec<Digits<'_>> {
        nodes.iter().map(|node| Digits(node)).collect()
    }
    steps.iter().map(|step| ProofStepView { left: side(&step.left), right: side(&step.right) }).collect()
}
