//! Receipts: what a transaction did, as clients and the receipts root see it (`spec/client-protocol.md` 2.1).

use alloy_primitives::{Address, B256, Bloom, BloomInput, Bytes, U256, keccak256};
use alloy_rlp::Encodable;

use crate::rlp::{Item, RlpError, wrap_list};

/// An event of a contract.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogEntry {
    /// The contract that emitted it.
    pub address: Address,
    /// At most four topics.
    pub topics: Vec<B256>,
    /// Unindexed data.
    pub data: Bytes,
}

/// The result of one transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Receipt {
    /// State root of the block; written into each receipt after the block has been executed.
    pub state_root: B256,
    /// Gas this transaction used.
    pub gas_used: U256,
    /// Address of the created contract; zero unless a creation succeeded.
    pub contract_address: Address,
    /// Bloom over `logs`.
    pub logs_bloom: Bloom,
    /// A [`crate::TransactionStatus`] code.
    pub status: u32,
    /// Return data or revert data.
    pub output: Bytes,
    /// Gas left to the account under gas charging, else zero.
    pub remain_gas: U256,
    /// Events, in order.
    pub logs: Vec<LogEntry>,
}

impl LogEntry {
    /// RLP of a list of logs.
    pub fn encode_list(logs: &[Self]) -> Vec<u8> {
        let mut payload = Vec::new();
        for log in logs {
            wrap_list(&encode_log(log), &mut payload);
        }
        let mut out = Vec::with_capacity(payload.len() + 9);
        wrap_list(&payload, &mut out);
        out
    }
}

impl Receipt {
    /// Computes the bloom from the logs.
    pub fn bloom_of(logs: &[LogEntry]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in logs {
            bloom.accrue(BloomInput::Raw(log.address.as_slice()));
            for topic in &log.topics {
                bloom.accrue(BloomInput::Raw(topic.as_slice()));
            }
        }
        bloom
    }

    /// RLP in the form of supported version 2.9.0 and later (with `remainGas`).
    pub fn encode_rlp(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(400 + self.output.len());
        self.state_root.encode(&mut payload);
        self.gas_used.encode(&mut payload);
        self.contract_address.encode(&mut payload);
        self.logs_bloom.0.encode(&mut payload);
        self.status.encode(&mut payload);
        self.output.0.encode(&mut payload);
        self.remain_gas.encode(&mut payload);
        payload.extend_from_slice(&LogEntry::encode_list(&self.logs));
        let mut out = Vec::with_capacity(payload.len() + 4);
        wrap_list(&payload, &mut out);
        out
    }

    /// The inverse of [`Self::encode_rlp`].
    pub fn decode_rlp(bytes: &[u8]) -> Result<Self, RlpError> {
        let mut items = Item::whole(bytes)?.items()?;
        let state_root = items.take()?.hash()?;
        let gas_used = items.take()?.number()?;
        let contract_address = items.take()?.address()?;
        let logs_bloom = Bloom::try_from(items.take()?.string()?).map_err(|_| RlpError::WrongSize)?;
        let status = u32::try_from(items.take()?.number64()?).map_err(|_| RlpError::WrongSize)?;
        let output = Bytes::copy_from_slice(items.take()?.string()?);
        let remain_gas = items.take()?.number()?;
        let mut log_items = items.take()?.items()?;
        let mut logs = Vec::new();
        while !log_items.is_empty() {
            logs.push(decode_log(log_items.take()?)?);
        }
        items.finish()?;
        Ok(Self { state_root, gas_used, contract_address, logs_bloom, status, output, remain_gas, logs })
    }

    /// The receipt hash: Keccak of the RLP.
    pub fn hash(&self) -> B256 {
        keccak256(self.encode_rlp())
    }
}

fn decode_log(item: Item<'_>) -> Result<LogEntry, RlpError> {
    let mut items = item.items()?;
    let address = items.take()?.address()?;
    let mut topic_items = items.take()?.items()?;
    let mut topics = Vec::new();
    while !topic_items.is_empty() {
        topics.push(topic_items.take()?.hash()?);
    }
    let data = Bytes::copy_from_slice(items.take()?.string()?);
    items.finish()?;
    Ok(LogEntry { address, topics, data })
}

fn encode_log(log: &LogEntry) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64 + 33 * log.topics.len() + log.data.len());
    log.address.encode(&mut payload);
    let mut topics = Vec::with_capacity(33 * log.topics.len());
    for topic in &log.topics {
        topic.encode(&mut topics);
    }
    wrap_list(&topics, &mut payload);
    log.data.0.encode(&mut payload);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn receipt_survives_the_round_trip() {
        let log = LogEntry { address: Address::repeat_byte(1), topics: vec![B256::repeat_byte(2)], data: Bytes::from_static(b"data") };
        let receipt = Receipt {
            status: 22,
            output: Bytes::from_static(b"out"),
            logs_bloom: Receipt::bloom_of(std::slice::from_ref(&log)),
            logs: vec![log.clone(), LogEntry::default()],
            ..Receipt::default()
        };
        assert_eq!(Receipt::decode_rlp(&receipt.encode_rlp()).unwrap(), receipt);
    }

    #[test]
    fn hash_of_the_plain_receipt_is_the_published_one() {
        let receipt = Receipt { gas_used: U256::from(21_000), remain_gas: U256::from(299_979_000), ..Receipt::default() };
        assert_eq!(receipt.hash().0, hex!("03a0108efd033c0598a9a410024bd01530d835f3547bdc3613ae288af2938d95"));
    }
}
