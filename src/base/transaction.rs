//! Transactions: the RC2 form of 13 RLP fields (`spec/client-protocol.md` 1.1 to 1.3).
//!
//! One decoder with one strictness serves every door. A [`RawTx`] is decoded but not verified; a [`VerifiedTx`] carries the sender
//! recovered from the signature. Neither hash nor sender is ever read from the wire.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Encodable;

use crate::crypto::{self, CryptoError, KeyPair, Signature};
use crate::limits::MAX_TRANSACTION_BYTES;
use crate::rlp::{Item, Items, RlpError};

/// The fields a client signs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// Random number, unique in the group within the block-limit window; not an account counter.
    pub nonce: U256,
    /// Carried and shown; never charged.
    pub gas_price: U256,
    /// Carried and shown; execution uses the group's `tx_gas_limit`.
    pub gas: U256,
    /// Height from which on the transaction is void.
    pub block_limit: U256,
    /// The callee; `None` creates a contract.
    pub to: Option<Address>,
    /// Visible to the callee; nothing is transferred.
    pub value: U256,
    /// Call data or init code.
    pub data: Bytes,
    /// Must equal the node's `chain.id`.
    pub chain_id: U256,
    /// Must equal the group the transaction is sent to.
    pub group_id: U256,
    /// Opaque to the node.
    pub extra_data: Bytes,
}

/// Why bytes are not a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`MAX_TRANSACTION_BYTES`]; nothing was parsed.
    #[error("transaction of {0} bytes is larger than the limit of {MAX_TRANSACTION_BYTES}")]
    TooLarge(usize),
    /// The outermost item is not one well-formed list.
    #[error("{0}")]
    Envelope(RlpError),
    /// The outermost item is a string.
    #[error("rc2 transaction RLP must be a list")]
    NotAList,
    /// `data` is not a string.
    #[error("rc2 transaction data RLP must be an array")]
    DataNotAString,
    /// A field has the wrong kind, size or form.
    #[error("{1}")]
    Field(&'static str, RlpError),
    /// v is neither 27 nor 28, or r or s are out of range.
    #[error("invalid signature")]
    Signature,
}

impl DecodeError {
    /// The name of the field at fault as the reference node spells it, `nonce` when the envelope itself is at fault.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Field(name, _) => name,
            Self::DataNotAString => "transactionData",
            Self::Signature => "signature",
            Self::NotAList | Self::TooLarge(_) | Self::Envelope(_) => "nonce",
        }
    }
}

impl Transaction {
    fn encode_fields(&self, out: &mut Vec<u8>) {
        self.nonce.encode(out);
        self.gas_price.encode(out);
        self.gas.encode(out);
        self.block_limit.encode(out);
        match &self.to {
            Some(to) => to.encode(out),
            None => out.push(0x80),
        }
        self.value.encode(out);
        self.data.0.encode(out);
        self.chain_id.encode(out);
        self.group_id.encode(out);
        self.extra_data.0.encode(out);
    }

    /// The digest that is signed: Keccak of the first ten fields, nothing appended.
    pub fn signing_digest(&self) -> B256 {
        let mut payload = Vec::with_capacity(128 + self.data.len());
        self.encode_fields(&mut payload);
        list_hash(&payload)
    }

    /// Signs the transaction.
    pub fn sign(self, key: &KeyPair) -> RawTx {
        let signature = key.sign(self.signing_digest());
        RawTx::new(self, signature)
    }
}

fn list_hash(payload: &[u8]) -> B256 {
    let mut list = Vec::with_capacity(payload.len() + 9);
    crate::rlp::wrap_list(payload, &mut list);
    keccak256(&list)
}

/// A decoded, signed transaction whose signature has not been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawTx {
    fields: Transaction,
    signature: Signature,
    /// Canonical RLP of all 13 fields.
    encoded: Bytes,
    /// Bytes of `encoded` that belong to the list header.
    header_len: usize,
    /// Bytes of the ten unsigned fields behind the header.
    unsigned_len: usize,
}

impl RawTx {
    fn new(fields: Transaction, signature: Signature) -> Self {
        let mut payload = Vec::with_capacity(200 + fields.data.len() + fields.extra_data.len());
        fields.encode_fields(&mut payload);
        let unsigned_len = payload.len();
        (27 + signature.recovery_id()).encode(&mut payload);
        U256::from_be_bytes(signature.r().0).encode(&mut payload);
        U256::from_be_bytes(signature.s().0).encode(&mut payload);
        let mut encoded = Vec::with_capacity(payload.len() + 9);
        crate::rlp::wrap_list(&payload, &mut encoded);
        let header_len = encoded.len() - payload.len();
        Self { fields, signature, encoded: encoded.into(), header_len, unsigned_len }
    }

    /// Decodes canonical RLP. As in the reference node, items behind the thirteenth are ignored and not part of the hash, and an
    /// `extraData` given as a list counts as empty; everything else is strict: see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_TRANSACTION_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        if bytes.is_empty() {
            return Err(DecodeError::NotAList);
        }
        let list = Item::whole(bytes).map_err(DecodeError::Envelope)?;
        let mut items = list.items().map_err(|_| DecodeError::NotAList)?;
        let fields = decode_fields(&mut items)?;
        let signature = decode_signature(&mut items)?;
        while !items.is_empty() {
            items.take().map_err(|error| DecodeError::Field("signature", error))?;
        }
        Ok(Self::new(fields, signature))
    }

    /// The fields that were signed.
    pub fn fields(&self) -> &Transaction {
        &self.fields
    }

    /// The signature, unchecked.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Canonical RLP of all 13 fields.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The transaction hash: Keccak of the canonical RLP, signature included.
    pub fn hash(&self) -> B256 {
        keccak256(&self.encoded)
    }

    /// Recovers the sender: the one expensive step in a transaction's life.
    pub fn verify(self) -> Result<VerifiedTx, CryptoError> {
        let hash = self.hash();
        self.verify_with_hash(hash)
    }

    /// As [`Self::verify`] for callers that computed [`Self::hash`] already.
    pub fn verify_with_hash(self, hash: B256) -> Result<VerifiedTx, CryptoError> {
        debug_assert_eq!(hash, self.hash());
        let unsigned = &self.encoded[self.header_len..self.header_len + self.unsigned_len];
        let sender = crypto::recover(list_hash(unsigned), &self.signature)?;
        Ok(VerifiedTx(Arc::new(Verified { raw: self, hash, sender })))
    }
}

fn decode_fields(items: &mut Items<'_>) -> Result<Transaction, DecodeError> {
    fn at(name: &'static str) -> impl Fn(RlpError) -> DecodeError {
        move |error| DecodeError::Field(name, error)
    }
    fn number(items: &mut Items<'_>, name: &'static str) -> Result<U256, DecodeError> {
        items.take().and_then(|item| item.number()).map_err(at(name))
    }
    let nonce = number(items, "nonce")?;
    let gas_price = number(items, "gasPrice")?;
    let gas = number(items, "gas")?;
    let block_limit = number(items, "blockLimit")?;
    let to = items.take().map_err(at("receiveAddress"))?;
    let to = match to.string().map_err(at("receiveAddress"))? {
        [] => None,
        _ => Some(to.address().map_err(at("receiveAddress"))?),
    };
    let value = number(items, "value")?;
    let data = match items.take() {
        Ok(item) if !item.is_list => Bytes::copy_from_slice(item.payload),
        Ok(_) | Err(RlpError::Missing) => return Err(DecodeError::DataNotAString),
        Err(error) => return Err(DecodeError::Field("transactionData", error)),
    };
    // A list that ends within the unsigned fields is reported at the signature, where the reference node notices it.
    let chain_id = number(items, "signature")?;
    let group_id = number(items, "signature")?;
    let extra = items.take().map_err(at("signature"))?;
    let extra_data = extra.string().map(Bytes::copy_from_slice).unwrap_or_default();
    Ok(Transaction { nonce, gas_price, gas, block_limit, to, value, data, chain_id, group_id, extra_data })
}

fn decode_signature(items: &mut Items<'_>) -> Result<Signature, DecodeError> {
    let mut number = || items.take().and_then(|item| item.number()).map_err(|error| DecodeError::Field("signature", error));
    let v = number()?;
    if v > U256::from(255) {
        return Err(DecodeError::Field("signature", RlpError::WrongSize));
    }
    let (r, s) = (number()?, number()?);
    let recovery_id = match v.to::<u8>() {
        27 => 0,
        28 => 1,
        _ => return Err(DecodeError::Signature),
    };
    let signature = Signature::from_parts(B256::from(r), B256::from(s), recovery_id);
    if !crypto::is_in_range(&signature) {
        return Err(DecodeError::Signature);
    }
    Ok(signature)
}

#[derive(PartialEq, Eq, Debug)]
struct Verified {
    raw: RawTx,
    hash: B256,
    sender: Address,
}

/// A transaction whose sender was recovered from its signature. Cheap to clone and to send between threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedTx(Arc<Verified>);

impl VerifiedTx {
    /// The fields that were signed.
    pub fn fields(&self) -> &Transaction {
        &self.0.raw.fields
    }

    /// The signature.
    pub fn signature(&self) -> &Signature {
        &self.0.raw.signature
    }

    /// Canonical RLP of all 13 fields.
    pub fn encoded(&self) -> &Bytes {
        &self.0.raw.encoded
    }

    /// Keccak of [`Self::encoded`].
    pub fn hash(&self) -> B256 {
        self.0.hash
    }

    /// The account that signed.
    pub fn sender(&self) -> Address {
        self.0.sender
    }

    /// Memory a pool accounts for it: the encoded form and the fields' own copies.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Verified>() + self.0.raw.encoded.len() + self.fields().data.len() + self.fields().extra_data.len()
    }

    /// Rebuilds a transaction from this node's own database, where the sender was stored after it had been recovered once.
    /// Never to be used for bytes that came from a peer or a client.
    pub fn from_trusted_store(raw: RawTx, sender: Address) -> Self {
        let hash = raw.hash();
        Self(Arc::new(Verified { raw, hash, sender }))
    }
}

#[cfg(test)]
#[path = "transaction/tests.rs"]
mod tests;
