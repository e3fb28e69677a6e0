//! Blocks and transactions as people read them.

use ::mysql::{Conn, Value};
use millrace_base::{Address, BlockHeader, Receipt, VerifiedTx};
use millrace_core::records::{decode_header, decode_receipt, decode_transaction, unpack};
use millrace_core::storage::height_key;
use millrace_core::{Space, StorageError};

use crate::mysql::fault::Failure;
use crate::mysql::layout::hex_text;
use crate::mysql::write::{Final, Rows};

/// The rows of one block.
pub(super) struct ShownBlock {
    header: BlockHeader,
    signatures: usize,
    transactions: Vec<VerifiedTx>,
    receipts: Vec<Receipt>,
}

impl ShownBlock {
    /// The block that a batch writes; `None` when it writes none that can be decoded.
    pub fn of(height: u64, finals: &Final<'_>) -> Option<Self> {
        let key = height_key(height);
        let value = |space| *finals.get(&(space, &key[..]))?;
        let decode = || -> Result<Option<Self>, StorageError> {
            let (Some(header), Some(body), Some(receipts)) = (value(Space::Header), value(Space::Body), value(Space::Receipts)) else {
                return Ok(None);
            };
            let (header, signatures) = decode_header(header)?;
            let transactions = unpack(body, "block body", decode_transaction)?;
            let receipts = unpack(receipts, "receipts", decode_receipt)?;
            Ok(Some(Self { header, signatures: signatures.len(), transactions, receipts }))
        };
        decode().ok().flatten()
    }

    pub fn write(&self, connection: &mut Conn) -> Result<(), Failure> {
        let height = self.header.number;
        let mut block = Rows::new("REPLACE INTO blocks VALUES ".into(), "(?,?,?,?,?,?,?,?,?,?,?,?,?)", "");
        block.add(connection, self.block())?;
        block.finish(connection)?;
        let mut rows = Rows::new("REPLACE INTO transactions VALUES ".into(), "(?,?,?,?,?,?,?,?,?,?,?,?)", "");
        for (position, (transaction, receipt)) in self.transactions.iter().zip(&self.receipts).enumerate() {
            rows.add(connection, transaction_row(height, position, transaction, receipt))?;
        }
        rows.finish(connection)
    }

    fn block(&self) -> [Value; 13] {
        let header = &self.header;
        let sealer = usize::try_from(header.sealer).ok().and_then(|index| header.sealer_list.get(index));
        let failed = self.receipts.iter().filter(|receipt| receipt.status != 0).count();
        [
            header.number.into(),
            hex_text(header.hash().as_slice()).into(),
            hex_text(header.parent_hash.as_slice()).into(),
            header.timestamp_ms.into(),
            header.sealer.into(),
            sealer.map(|id| id.to_string()).into(),
            header.sealer_list.len().into(),
            self.signatures.into(),
            self.transactions.len().into(),
            failed.into(),
            hex_text(header.state_root.as_slice()).into(),
            hex_text(header.transactions_root.as_slice()).into(),
            hex_text(header.receipts_root.as_slice()).into(),
        ]
    }
}

fn transaction_row(height: u64, position: usize, transaction: &VerifiedTx, receipt: &Receipt) -> [Value; 12] {
    let fields = transaction.fields();
    let address = |address: &Address| hex_text(address.as_slice());
    let created = (receipt.contract_address != Address::ZERO).then(|| address(&receipt.contract_address));
    [
        height.into(),
        position.into(),
        hex_text(transaction.hash().as_slice()).into(),
        address(&transaction.sender()).into(),
        fields.to.as_ref().map(address).into(),
        fields.to.and_then(|_| fields.data.get(..4)).map(hex_text).into(),
        fields.data.len().into(),
        receipt.status.into(),
        u64::try_from(receipt.gas_used).unwrap_or(u64::MAX).into(),
        created.into(),
        receipt.logs.len().into(),
        receipt.output.len().into(),
    ]
}
