//! (under construction by its owner)
use crate::state::{StateKey, StateValue};
use crate::storage::StorageError;

/// The key's bytes in [`crate::Space::State`]; their order is the order of [`StateKey`].
pub fn encode_key(_key: &StateKey) -> Vec<u8> {
    unimplemented!()
}

/// The inverse of [`encode_key`].
pub fn decode_key(_bytes: &[u8]) -> Result<StateKey, StorageError> {
    unimplemented!()
}

/// The value's bytes.
pub fn encode_value(_value: &StateValue) -> Vec<u8> {
    unimplemented!()
}

/// The inverse of [`encode_value`]; the kind follows from the key.
pub fn decode_value(_key: &StateKey, _bytes: &[u8]) -> Result<StateValue, StorageError> {
    unimplemented!()
}
