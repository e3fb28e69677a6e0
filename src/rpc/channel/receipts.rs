//! Who awaits the receipt of which transaction (`spec/client-protocol.md` 3.6).
//!
//! ```text
//! announced --refused--> forgotten
//!     |  \--committed or expired--> ready --reply written--> pushed
//!     \--reply written--> open --committed or expired--> pushed
//! ```
//! A transaction is announced by its hash before it is submitted, so that a block can never overtake it. Invariant: a receipt is pushed
//! once, to the session that sent the transaction, behind the reply to its request. Run by [`super::hub`] under a lock of its own.

use std::collections::HashMap;

use millrace_base::{B256, Block, GroupId, TransactionStatus, merkle};

use super::frame::{Frame, Sequence, kind};
use super::styled;
use super::topics::SessionId;
use crate::gateway::Receipt;
use crate::limits::MAX_AWAITED_RECEIPTS;
use crate::views::ReceiptView;

/// The request that brought a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// Session it came from.
    pub session: SessionId,
    /// Sequence of its frame; receipts repeat it.
    pub sequence: Sequence,
}

/// One session's interest in one transaction.
struct Waiter {
    origin: Origin,
    wants: Receipt,
    /// Whether the request was answered.
    is_open: bool,
}

/// A receipt that waits.
struct Ready {
    /// The transaction; none of refusals.
    of: Option<(GroupId, B256)>,
    frame: Frame,
}

/// Receipts that are awaited.
#[derive(Default)]
pub struct Receipts {
    waiting: HashMap<(GroupId, B256), Vec<Waiter>>,
    /// Transactions of requests that were not answered yet.
    unanswered: HashMap<Origin, Vec<(GroupId, B256)>>,
    /// Receipts that wait for the answer of their request.
    ready: HashMap<Origin, Vec<Ready>>,
    /// Transactions of each session.
    counts: HashMap<SessionId, usize>,
}

impl Receipts {
    /// A transaction is about to be submitted; false when the session awaits too many.
    pub fn announce(&mut self, origin: Origin, group: GroupId, hash: B256, wants: Receipt) -> bool {
        let count = self.counts.entry(origin.session).or_default();
        if *count >= MAX_AWAITED_RECEIPTS {
            return false;
        }
        *count += 1;
        self.waiting.entry((group, hash)).or_default().push(Waiter { origin, wants, is_open: false });
        self.unanswered.entry(origin).or_default().push((group, hash));
        true
    }

    /// A transaction was refused; its session is not interested any more.
    pub fn withdraw(&mut self, origin: Origin, group: GroupId, hash: B256) {
        let waiters = self.waiting.entry((group, hash)).or_default();
        // The later of two equal ones was refused.
        match waiters.iter().rposition(|waiter| waiter.origin == origin && !waiter.is_open) {
            Some(position) => {
                waiters.remove(position);
                self.release(origin.session);
            }
            // The same transaction came another way too, and its block was faster than the refusal.
            None => {
                let ready = self.ready.entry(origin).or_default();
                if let Some(position) = ready.iter().rposition(|receipt| receipt.of == Some((group, hash))) {
                    ready.remove(position);
                }
                if ready.is_empty() {
                    self.ready.remove(&origin);
                }
            }
        }
        if self.waiting.get(&(group, hash)).is_some_and(Vec::is_empty) {
            self.waiting.remove(&(group, hash));
        }
    }

    /// A refusal that is to be told by a receipt behind the answer of the request.
    pub fn refuse(&mut self, origin: Origin, status: TransactionStatus) {
        self.ready.entry(origin).or_default().push(Ready { of: None, frame: refusal(origin.sequence, status) });
    }

    /// The request was answered: receipts that were ready before, in the order they came.
    pub fn answered(&mut self, origin: Origin) -> Vec<Frame> {
        for place in self.unanswered.remove(&origin).unwrap_or_default() {
            let waiters = self.waiting.get_mut(&place).into_iter().flatten();
            waiters.filter(|waiter| waiter.origin == origin).for_each(|waiter| waiter.is_open = true);
        }
        self.ready.remove(&origin).unwrap_or_default().into_iter().map(|receipt| receipt.frame).collect()
    }

    /// A block is durable: the receipts to push now.
    pub fn committed(&mut self, group: GroupId, block: &Block) -> Vec<(SessionId, Frame)> {
        let mut pushes = Vec::new();
        if self.waiting.is_empty() {
            return pushes;
        }
        let mut leaves = None;
        for (tx, index) in block.transactions.iter().zip(0u32..) {
            let place = (group, tx.hash());
            for waiter in self.waiting.remove(&place).unwrap_or_default() {
                if let Some(body) = receipt(block, index, waiter.wants, &mut leaves) {
                    let frame = Frame::new(kind::RECEIPT, waiter.origin.sequence, body);
                    self.deliver(&waiter, (place, frame), &mut pushes);
                }
            }
        }
        pushes
    }

    /// Transactions were dropped from the pool: the receipts that say so.
    pub fn expired(&mut self, group: GroupId, hashes: &[B256]) -> Vec<(SessionId, Frame)> {
        let mut pushes = Vec::new();
        for hash in hashes {
            for waiter in self.waiting.remove(&(group, *hash)).unwrap_or_default() {
                let frame = refusal(waiter.origin.sequence, TransactionStatus::TransactionRefused);
                self.deliver(&waiter, ((group, *hash), frame), &mut pushes);
            }
        }
        pushes
    }

    fn deliver(&mut self, waiter: &Waiter, (place, frame): ((GroupId, B256), Frame), pushes: &mut Vec<(SessionId, Frame)>) {
        self.release(waiter.origin.session);
        match waiter.is_open {
            true => pushes.push((waiter.origin.session, frame)),
            false => self.ready.entry(waiter.origin).or_default().push(Ready { of: Some(place), frame }),
        }
    }

    fn release(&mut self, session: SessionId) {
        if let Some(count) = self.counts.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&session);
            }
        }
    }

    /// A session is gone.
    pub fn forget(&mut self, session: SessionId) {
        self.unanswered.retain(|origin, _| origin.session != session);
        self.ready.retain(|origin, _| origin.session != session);
        if self.counts.remove(&session).is_some() {
            self.waiting.retain(|_, waiters| {
                waiters.retain(|waiter| waiter.origin.session != session);
                !waiters.is_empty()
            });
        }
    }

    /// Transactions whose receipts are awaited.
    pub fn awaited(&self) -> usize {
        self.counts.values().sum()
    }
}

/// Leaves of a block's two trees, computed when the first proof is asked for.
struct Leaves {
    transactions: Vec<B256>,
    receipts: Vec<B256>,
}

/// The body of a pushed receipt.
fn receipt(block: &Block, index: u32, wants: Receipt, leaves: &mut Option<Leaves>) -> Option<Vec<u8>> {
    let view = ReceiptView::committed(block, index)?;
    if wants == Receipt::Plain {
        return Some(styled::to_vec(&view));
    }
    let position = usize::try_from(index).ok()?;
    let leaves = leaves.get_or_insert_with(|| Leaves {
        transactions: block.transactions.iter().map(|tx| tx.hash()).collect(),
        receipts: block.receipts.iter().map(|receipt| receipt.hash()).collect(),
    });
    let (transactions, receipts) = (merkle::proof(&leaves.transactions, position)?, merkle::proof(&leaves.receipts, position)?);
    Some(styled::to_vec(&view.with_proofs(&transactions, &receipts)))
}

fn refusal(sequence: Sequence, status: TransactionStatus) -> Frame {
    Frame::new(kind::RECEIPT, sequence, styled::to_vec(&ReceiptView::refused(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(session: SessionId, sequence: u8) -> Origin {
        Origin { session, sequence: [sequence; 32] }
    }

    fn group() -> GroupId {
        GroupId::new(1).unwrap()
    }

    #[test]
    fn receipt_waits_for_the_reply_and_is_pushed_once() {
        let (mut receipts, hash) = (Receipts::default(), B256::repeat_byte(1));
        assert!(receipts.announce(origin(1, 1), group(), hash, Receipt::Plain));
        // Faster than its own reply.
        assert_eq!(receipts.expired(group(), &[hash]), []);
        let pushed = receipts.answered(origin(1, 1));
        assert_eq!((pushed.len(), pushed[0].kind, pushed[0].sequence), (1, kind::RECEIPT, [1; 32]));
        assert_eq!((receipts.answered(origin(1, 1)), receipts.expired(group(), &[hash])), (vec![], vec![]));
        assert_eq!(receipts.awaited(), 0);
    }

    #[test]
    fn receipt_behind_the_reply_is_pushed_at_once_to_each_that_waits() {
        let (mut receipts, hash) = (Receipts::default(), B256::repeat_byte(1));
        for session in [1, 2] {
            assert!(receipts.announce(origin(session, 7), group(), hash, Receipt::Plain));
            assert_eq!(receipts.answered(origin(session, 7)), []);
        }
        assert_eq!(receipts.expired(GroupId::new(2).unwrap(), &[hash]), [], "another group's transaction");
        let pushed: Vec<_> = receipts.expired(group(), &[hash]).into_iter().map(|(session, _)| session).collect();
        assert_eq!(pushed, [1, 2]);
    }

    #[test]
    fn refused_duplicate_leaves_the_first_submission_waiting() {
        let (mut receipts, hash) = (Receipts::default(), B256::repeat_byte(1));
        assert!(receipts.announce(origin(1, 1), group(), hash, Receipt::Plain));
        receipts.answered(origin(1, 1));
        assert!(receipts.announce(origin(1, 2), group(), hash, Receipt::Plain));
        receipts.withdraw(origin(1, 2), group(), hash);
        receipts.refuse(origin(1, 2), TransactionStatus::AlreadyKnown);
        let refused = receipts.answered(origin(1, 2));
        assert!(String::from_utf8_lossy(&refused[0].body).contains("\"status\" : \"0x2710\""));
        assert_eq!(receipts.expired(group(), &[hash]).len(), 1);
        assert_eq!(receipts.awaited(), 0);
    }

    #[test]
    fn block_that_is_faster_than_the_refusal_of_a_duplicate_pushes_nothing_for_it() {
        let (mut receipts, hash) = (Receipts::default(), B256::repeat_byte(1));
        for session in [1, 2] {
            assert!(receipts.announce(origin(session, 7), group(), hash, Receipt::Plain));
        }
        receipts.answered(origin(1, 7));
        assert_eq!(receipts.expired(group(), &[hash]).len(), 1);
        receipts.withdraw(origin(2, 7), group(), hash);
        assert_eq!(receipts.answered(origin(2, 7)), []);
        assert!(receipts.waiting.is_empty() && receipts.ready.is_empty() && receipts.counts.is_empty());
    }

    #[test]
    fn session_that_is_gone_leaves_nothing_behind() {
        let mut receipts = Receipts::default();
        for n in 0..10 {
            assert!(receipts.announce(origin(1, n), group(), B256::repeat_byte(n), Receipt::Plain));
        }
        receipts.answered(origin(1, 0));
        receipts.expired(group(), &[B256::repeat_byte(1)]);
        receipts.forget(1);
        assert!(receipts.waiting.is_empty() && receipts.ready.is_empty() && receipts.unanswered.is_empty() && receipts.counts.is_empty());
    }
}
