//! What can be said of a block from elsewhere without any other block. For blocks that peers send and for blocks in files.
//!
//! It must be of the height asked for, its transactions must be well formed and match the root in its header, and each must have a
//! sender. The quorum of signatures over the header, and the header itself, are judged by who knows the chain.

use millrace_administration::engine::FinalBlock;
use millrace_administration::sync::CheckedBlock;
use millrace_administration::sync::message::WireBlock;
use millrace_base::{B256, Bytes, NodeId, RawTx, VerifiedTx, merkle};

/// Checks a block; `recover` finds the senders of its transactions, given with their hashes, in order.
///
/// # Errors
/// Why an honest node would not have sent it, in words.
pub fn check_block(
    bytes: &Bytes,
    height: u64,
    from: NodeId,
    recover: impl FnOnce(Vec<(RawTx, B256)>) -> Result<Vec<VerifiedTx>, String>,
) -> Result<CheckedBlock, String> {
    let WireBlock { header, signatures, transactions } = WireBlock::decode(bytes).map_err(|error| error.to_string())?;
    if header.number != height {
        return Err(format!("its header says height {}", header.number));
    }
    let mut raws = Vec::with_capacity(transactions.len());
    for (index, bytes) in transactions.iter().enumerate() {
        let raw = RawTx::decode(bytes).map_err(|error| format!("transaction {index} cannot be decoded: {error}"))?;
        let hash = raw.hash();
        raws.push((raw, hash));
    }
    let hashes: Vec<B256> = raws.iter().map(|(_, hash)| *hash).collect();
    let root = merkle::root(&hashes);
    if root != header.transactions_root {
        return Err(format!("its header has transactions root {}, its transactions give {root}", header.transactions_root));
    }
    let transactions = recover(raws)?;
    let hash = header.hash();
    Ok(CheckedBlock { hash, block: FinalBlock { header, signatures, transactions, from } })
}
