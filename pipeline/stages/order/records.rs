//! Where engines' records are kept: the vote log of the node; the simulator and tests bring their own.

use std::io;

use millrace_base::{Bytes, GroupId};
use millrace_ledger::VoteLog;

/// What an engine must remember over a crash. See [`VoteLog`] for the meaning of each.
pub trait RecordLog: Send {
    /// The durable records of a group that speak of heights above `committed`, oldest first.
    ///
    /// # Errors
    /// What the file system says.
    fn records(&self, group: GroupId, committed: u64) -> io::Result<Vec<Bytes>>;

    /// Adds a record; nothing is durable before [`Self::sync`].
    fn append(&mut self, group: GroupId, height: u64, body: &[u8]);

    /// Makes every appended record durable. On an error nothing may leave the node; the call may be repeated.
    ///
    /// # Errors
    /// What the file system says.
    fn sync(&mut self) -> io::Result<()>;

    /// A group's blocks up to `height` are durable: its records up to there are no longer needed.
    fn committed(&mut self, group: GroupId, height: u64);
}

impl RecordLog for VoteLog {
    fn records(&self, group: GroupId, committed: u64) -> io::Result<Vec<Bytes>> {
        VoteLog::records(self, group, committed)
    }

    fn append(&mut self, group: GroupId, height: u64, body: &[u8]) {
        VoteLog::append(self, group, height, body);
    }

    fn sync(&mut self) -> io::Result<()> {
        VoteLog::sync(self)
    }

    fn committed(&mut self, group: GroupId, height: u64) {
        VoteLog::committed(self, group, height);
    }
}
