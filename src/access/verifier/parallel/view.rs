//! The state as one execution of a transaction sees it, and the record of where each value came from.
//!
//! Invariant: every read is recorded before its value is handed out, errors included, so an execution whose record is still true at the
//! front of the block did what serial execution would have done.

use std::cell::{Cell, RefCell};

use millrace_core::{StateKey, StateReader, StateValue, StorageError};

use super::memory::{Finder, Place};
use super::shared::{Found, Origin};

/// A value that was read.
pub(super) struct Read<'m> {
    place: &'m Place,
    origin: Origin,
    changes: u32,
}

impl Read<'_> {
    /// Whether `reader` would read the same version now.
    pub fn is_current(&self, reader: u32) -> bool {
        self.place.versions.is_current(reader, self.origin, self.changes)
    }
}

/// See the module. It belongs to one execution.
pub(super) struct View<'v, 'm> {
    finder: &'v Finder<'m>,
    below: &'v dyn StateReader,
    reader: u32,
    reads: RefCell<Vec<Read<'m>>>,
    awaited: Cell<Option<u32>>,
}

impl<'v, 'm> View<'v, 'm> {
    /// For transaction `reader`; `below` is the state before the block. Reads are recorded in `reads`, which is empty.
    pub fn new(finder: &'v Finder<'m>, below: &'v dyn StateReader, reader: u32, reads: Vec<Read<'m>>) -> Self {
        Self { finder, below, reader, reads: RefCell::new(reads), awaited: Cell::new(None) }
    }

    /// What was read, and the transaction that has to be executed first, if one was met.
    pub fn end(self) -> (Vec<Read<'m>>, Option<u32>) {
        (self.reads.into_inner(), self.awaited.get())
    }
}

impl StateReader for View<'_, '_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let place = self.finder.find(key);
        let (changes, found) = place.versions.find(self.reader);
        let record = |origin| self.reads.borrow_mut().push(Read { place, origin, changes });
        match found {
            Found::Below => {
                record(Origin::BELOW);
                place.below(self.below)
            }
            Found::Written(origin, value) => {
                record(origin);
                Ok(value)
            }
            Found::Awaited(writer) => {
                self.awaited.set(Some(writer));
                Err(StorageError::Engine(format!("transaction {writer} is being executed again")))
            }
        }
    }
}
