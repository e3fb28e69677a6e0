//! The parts of `shared` under loom.

/// The locks and counters of loom under the names of ours.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};

    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub fn into_inner(self) -> T {
            self.0.into_inner().unwrap()
        }
    }
}

#[allow(dead_code, clippy::duplicate_mod, reason = "the same steps on the locks of loom; models use those they are about")]
#[path = "../shared.rs"]
mod shared;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use self::shared::{Found, Origin, Signals, Versions};

#[test]
fn whoever_signals_is_looked_after_and_one_looks_at_a_time() {
    loom::model(|| {
        struct Shared {
            signals: Signals,
            done: [AtomicU32; 2],
            seen: AtomicU32,
            inside: AtomicU32,
        }
        let zero = || AtomicU32::new(0);
        let shared = Arc::new(Shared { signals: Signals::default(), done: [zero(), zero()], seen: zero(), inside: zero() });
        let work = |shared: &Shared, own: usize| {
            shared.done[own].store(1, Ordering::Release);
            shared.signals.raise(|| {
                assert_eq!(shared.inside.fetch_add(1, Ordering::Relaxed), 0);
                let seen = shared.done.iter().map(|done| done.load(Ordering::Acquire)).sum();
                shared.seen.store(seen, Ordering::Relaxed);
                shared.inside.fetch_sub(1, Ordering::Relaxed);
            });
        };
        let other = Arc::clone(&shared);
        let helper = thread::spawn(move || work(&other, 1));
        work(&shared, 0);
        helper.join().unwrap();
        assert_eq!(shared.seen.load(Ordering::Relaxed), 2, "the last look came after both had signalled");
    });
}

#[test]
fn record_of_a_read_is_current_exactly_while_nothing_before_the_reader_changed() {
    loom::model(|| {
        let versions = Arc::new(Versions::<u32>::default());
        versions.publish(1, 0, 10);
        let other = Arc::clone(&versions);
        let writer = thread::spawn(move || {
            other.announce(1);
            other.publish(1, 1, 11);
            other.publish(5, 0, 50);
        });
        let (changes, found) = versions.find(3);
        let is_current = |origin| versions.is_current(3, origin, changes);
        match found {
            Found::Written(origin, 10) => {
                is_current(origin);
                writer.join().unwrap();
                assert!(!is_current(origin));
            }
            Found::Written(origin, 11) => {
                assert!(is_current(origin));
                writer.join().unwrap();
                assert!(is_current(origin), "a version behind the reader changes nothing");
            }
            Found::Awaited(1) => writer.join().unwrap(),
            found => panic!("{found:?} was never there"),
        }
        assert_eq!(versions.find(3).1, versions.find(4).1);
        assert_eq!(versions.find(1).1, Found::Below);
    });
}

#[test]
fn reader_of_an_untouched_place_notices_the_first_write() {
    loom::model(|| {
        let versions = Arc::new(Versions::<u32>::default());
        let written = Arc::new(AtomicU32::new(0));
        let (other, flag) = (Arc::clone(&versions), Arc::clone(&written));
        let writer = thread::spawn(move || {
            other.publish(1, 0, 10);
            flag.store(1, Ordering::Release);
        });
        let (changes, found) = versions.find(3);
        if written.load(Ordering::Acquire) == 1 && found == Found::Below {
            assert!(!versions.is_current(3, Origin::BELOW, changes), "who knows of the write sees it");
        }
        writer.join().unwrap();
        let (origin, is_same) = match found {
            Found::Below => (Origin::BELOW, false),
            Found::Written(origin, 10) => (origin, true),
            found => panic!("{found:?} was never there"),
        };
        assert_eq!(versions.is_current(3, origin, changes), is_same);
        versions.withdraw(1);
        assert!(versions.is_current(3, Origin::BELOW, changes));
    });
}

#[test]
fn same_value_written_again_keeps_its_readers() {
    loom::model(|| {
        let versions = Versions::<u32>::default();
        versions.publish(1, 0, 10);
        let (changes, Found::Written(origin, 10)) = versions.find(3) else { panic!("it was written") };
        versions.announce(1);
        assert!(!versions.is_current(3, origin, changes));
        versions.publish(1, 1, 10);
        assert!(versions.is_current(3, origin, changes));
        versions.publish(1, 1, 12);
        assert!(!versions.is_current(3, origin, changes));
        assert_eq!(versions.into_last(), Some(12));
    });
}
