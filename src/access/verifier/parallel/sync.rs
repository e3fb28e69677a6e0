//! Locks and counters of [`super::shared`], so that tests can put others in their place.

pub(super) use parking_lot::Mutex;
pub(super) use std::sync::atomic::{AtomicU32, Ordering};
