//! Reads blocks for other nodes as they stand in the database, without decoding their transactions.

use millrace_access::blockchain::BlockChain;
use millrace_access::blockchain::records::{Packed, signed_part};
use millrace_administration::sync::message::WireBlock;
use millrace_base::Bytes;
use millrace_core::storage::height_key;
use millrace_core::{Space, StorageError};

/// Blocks from a height on: at most `count`, together at most `max_bytes` unless the first alone is larger, none above the head.
pub(super) fn blocks(chain: &BlockChain, from: u64, count: u32, max_bytes: usize) -> Result<Vec<Bytes>, StorageError> {
    let last = chain.head().header.number.min(from.saturating_add(u64::from(count)).saturating_sub(1));
    let (mut blocks, mut bytes) = (Vec::new(), 0_usize);
    for number in from..=last {
        let Some(block) = wire_block(chain, number)? else { break };
        bytes += block.len();
        if bytes > max_bytes && !blocks.is_empty() {
            break;
        }
        blocks.push(Bytes::from(block));
    }
    Ok(blocks)
}

fn wire_block(chain: &BlockChain, number: u64) -> Result<Option<Vec<u8>>, StorageError> {
    let Some((header, _, signatures)) = chain.header(number)? else { return Ok(None) };
    let Some(body) = chain.storage().get(Space::Body, &height_key(number))? else { return Ok(None) };
    let packed = Packed::open(&body, "block body")?;
    let transactions = (0..packed.len()).map(|index| signed_part(packed.item(index)?)).collect::<Result<Vec<&[u8]>, StorageError>>()?;
    Ok(Some(WireBlock::encode(&header, &signatures, transactions.into_iter())))
}
