//! The smallest parts that workers share: the versions of one value, and whose turn it is to go on at the front.
//!
//! Invariant: a reader that finds no change since it read holds what it read then; whoever raises a signal knows that somebody looks
//! after that. Tests run this file a second time under `loom`, which tries every order of the steps of its threads.

use super::sync::{AtomicU32, Mutex, Ordering};

/// Where a value that was read came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    /// The transaction that wrote it, counted from one; zero is the state below the block.
    writer: u32,
    /// Which of that transaction's executions did; one that writes what the one before wrote counts as that.
    execution: u32,
}

impl Origin {
    /// The state below the block.
    pub const BELOW: Self = Self { writer: 0, execution: 0 };
}

/// What a reader finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found<V> {
    /// No transaction before the reader has written it.
    Below,
    /// What the last transaction before the reader wrote.
    Written(Origin, V),
    /// The last transaction before the reader to write it is being executed again.
    Awaited(u32),
}

struct Version<V> {
    writer: u32,
    execution: u32,
    is_awaited: bool,
    value: V,
}

/// What the transactions of a block wrote to one place.
pub(super) struct Versions<V> {
    /// How often the list changed; while it is zero there is nothing in it, which readers see without a lock.
    changes: AtomicU32,
    /// Sorted by writer.
    list: Mutex<Vec<Version<V>>>,
}

impl<V> Default for Versions<V> {
    fn default() -> Self {
        Self { changes: AtomicU32::new(0), list: Mutex::new(Vec::new()) }
    }
}

impl<V: Clone + PartialEq> Versions<V> {
    /// What transaction `reader` sees, and the count of changes that [`Self::is_current`] asks for.
    pub fn find(&self, reader: u32) -> (u32, Found<V>) {
        if self.changes.load(Ordering::Acquire) == 0 {
            return (0, Found::Below);
        }
        let list = self.list.lock();
        let changes = self.changes.load(Ordering::Relaxed);
        let found = match last_before(&list, reader) {
            None => Found::Below,
            Some(version) if version.is_awaited => Found::Awaited(version.writer),
            Some(version) => Found::Written(version.origin(), version.value.clone()),
        };
        (changes, found)
    }

    /// Whether `reader` would now read from where it read when there had been so many changes.
    pub fn is_current(&self, reader: u32, origin: Origin, changes: u32) -> bool {
        if self.changes.load(Ordering::Acquire) == changes {
            return true;
        }
        match last_before(&self.list.lock(), reader) {
            None => origin == Origin::BELOW,
            Some(version) => !version.is_awaited && version.origin() == origin,
        }
    }

    /// A transaction writes. What it wrote in an earlier execution is replaced.
    pub fn publish(&self, writer: u32, execution: u32, value: V) {
        let mut list = self.list.lock();
        match position(&list, writer) {
            Ok(index) => {
                let version = &mut list[index];
                version.is_awaited = false;
                if version.value != value {
                    version.execution = execution;
                    version.value = value;
                }
            }
            Err(index) => {
                // Most places are written once in a block.
                if list.is_empty() {
                    list.reserve_exact(1);
                }
                list.insert(index, Version { writer, execution, is_awaited: false, value });
            }
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A transaction did not write here in its new execution.
    pub fn withdraw(&self, writer: u32) {
        let mut list = self.list.lock();
        if let Ok(index) = position(&list, writer) {
            list.remove(index);
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// A transaction is about to be executed again and will probably write here.
    pub fn announce(&self, writer: u32) {
        let mut list = self.list.lock();
        if let Ok(index) = position(&list, writer) {
            list[index].is_awaited = true;
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// What the block leaves here; `None` when no transaction wrote.
    pub fn into_last(self) -> Option<V> {
        self.list.into_inner().pop().map(|version| version.value)
    }
}

impl<V> Version<V> {
    fn origin(&self) -> Origin {
        Origin { writer: self.writer + 1, execution: self.execution }
    }
}

fn position<V>(list: &[Version<V>], writer: u32) -> Result<usize, usize> {
    match list.last() {
        Some(last) if last.writer < writer => Err(list.len()),
        Some(_) => list.binary_search_by_key(&writer, |version| version.writer),
        None => Err(0),
    }
}

fn last_before<V>(list: &[Version<V>], reader: u32) -> Option<&Version<V>> {
    let end = match list.last() {
        Some(last) if last.writer < reader => list.len(),
        _ => list.partition_point(|version| version.writer < reader),
    };
    list[..end].last()
}

/// Has work done by one thread at a time, again as long as anybody signalled since it began. Nobody waits.
pub(super) struct Signals(AtomicU32);

impl Default for Signals {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Signals {
    /// Does the work here, or leaves it to the thread that is doing it, which will then begin it once more after this call.
    pub fn raise(&self, mut work: impl FnMut()) {
        if self.0.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        let mut seen = 1;
        loop {
            work();
            match self.0.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}
