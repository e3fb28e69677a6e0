//! The status of a group on disk: `data/group<N>/.group_status`, as in 2.x (`spec/node-semantics.md` 1.6).
//!
//! Invariant: the file always holds one whole status, over crashes and power loss: a new one is written beside it, synced and renamed.
//! A group without the file has never been changed while the node ran: it runs. A file that says anything else stops the start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};
use millrace_ledger::view::GroupStatus;

const NAMES: [(GroupStatus, &str); 4] = [
    (GroupStatus::Running, "RUNNING"),
    (GroupStatus::Stopping, "STOPPING"),
    (GroupStatus::Stopped, "STOPPED"),
    (GroupStatus::Deleted, "DELETED"),
];

fn file(directory: &Path) -> PathBuf {
    directory.join(".group_status")
}

/// The status in a group's directory (the one above its database). A group that was stopping when the node ended is stopped.
///
/// # Errors
/// A file that cannot be read or names no status.
pub(super) fn read(directory: &Path) -> Result<GroupStatus, Fault> {
    let path = file(directory);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(GroupStatus::Running),
        Err(error) => return Err(damaged(&path, &error.to_string())),
    };
    match NAMES.iter().find(|(_, name)| *name == text.trim()) {
        Some((GroupStatus::Stopping, _)) => Ok(GroupStatus::Stopped),
        Some((status, _)) => Ok(*status),
        None => Err(damaged(&path, "it names none of RUNNING, STOPPED and DELETED")),
    }
}

fn damaged(path: &Path, why: &str) -> Fault {
    let what = format!("the status of the group in {} cannot be read: {why}", path.display());
    Fault::new(FaultKind::Storage, what, "write RUNNING, STOPPED or DELETED into the file: what the group shall be when the node starts")
}

/// Makes a status durable.
///
/// # Errors
/// What the file system says; the old status stands then.
pub(super) fn write(directory: &Path, status: GroupStatus) -> io::Result<()> {
    let (_, name) = NAMES.iter().find(|(known, _)| *known == status).expect("groups that do not exist have no file");
    write_durably(&file(directory), name)
}

/// Writes a whole file or nothing.
///
/// # Errors
/// What the file system says; a file that was there is left as it was.
pub(super) fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_kept_and_a_group_that_was_stopping_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("group7");
        assert_eq!(read(&group).unwrap(), GroupStatus::Running);
        for status in [GroupStatus::Stopped, GroupStatus::Deleted, GroupStatus::Running] {
            write(&group, status).unwrap();
            assert_eq!(read(&group).unwrap(), status);
        }
        write(&group, GroupStatus::Stopping).unwrap();
        assert_eq!(read(&group).unwrap(), GroupStatus::Stopped);
    }

    #[test]
    fn damaged_status_is_a_fault_that_says_what_to_write() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".group_status"), "RUNN").unwrap();
        let fault = read(directory.path()).unwrap_err();
        assert!(fault.to_string().contains(".group_status"), "{fault}");
    }
}
