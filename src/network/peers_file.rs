//! Keeps what an operator added to and erased from the list of peers while the node ran.
//!
//! The file holds changes, not the list: lines `add ip:port` and `erase ip:port`. So an address that is written into `config.ini` later
//! is seen, and one that was erased stays erased. Invariant: the file is whole at any time (written aside, synced, renamed).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;

use millrace_base::fault::{Fault, FaultKind};

use crate::limits::MAX_PEERS_FILE_BYTES;

const HEADING: &str = "# Changes to the peers of config.ini that were made while the node ran (addPeers, erasePeers).\n";

/// What was changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Changes {
    pub added: BTreeSet<SocketAddr>,
    pub erased: BTreeSet<SocketAddr>,
}

impl Changes {
    pub fn add(&mut self, address: SocketAddr) {
        self.erased.remove(&address);
        self.added.insert(address);
    }

    pub fn erase(&mut self, address: SocketAddr) {
        self.added.remove(&address);
        self.erased.insert(address);
    }

    /// The configured addresses with the changes made, in order and without repetition.
    pub fn apply(&self, configured: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for address in configured.iter().filter(|address| !self.erased.contains(address)).chain(&self.added) {
            if !all.contains(address) {
                all.push(*address);
            }
        }
        all
    }

    /// Nothing when there is no file.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let unusable = |reason: String| {
            Fault::new(
                FaultKind::Config,
                format!("the list of peers {} cannot be used: {reason}", path.display()),
                "correct the line, or remove the file to use the peers of config.ini only",
            )
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unusable(error.to_string())),
            Ok(found) if found.len() > MAX_PEERS_FILE_BYTES => return Err(unusable(format!("it has {} bytes", found.len()))),
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        let mut changes = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty()) {
            let wrong = || unusable(format!("line {}: expected `add ip:port` or `erase ip:port`", index + 1));
            let (word, address) = line.trim().split_once(' ').ok_or_else(wrong)?;
            let address = address.trim().parse().map_err(|_| wrong())?;
            match word {
                "add" => changes.add(address),
                "erase" => changes.erase(address),
                _ => return Err(wrong()),
            }
        }
        Ok(changes)
    }

    /// Writes the file and syncs it.
    pub fn store(&self, path: &Path) -> Result<(), Fault> {
        let mut text = String::from(HEADING);
        for (word, addresses) in [("add", &self.added), ("erase", &self.erased)] {
            addresses.iter().for_each(|address| text.push_str(&format!("{word} {address}\n")));
        }
        write_whole(path, text.as_bytes()).map_err(|error| {
            Fault::new(
                FaultKind::Disk,
                format!("the list of peers {} cannot be written: {error}", path.display()),
                "make room or correct the rights, and repeat the command; the list is unchanged",
            )
        })
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_and_apply_to_what_is_configured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers");
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(Changes::load(&path).unwrap(), Changes::default());
        let mut changes = Changes::default();
        changes.add(address(1));
        changes.add(address(2));
        changes.erase(address(2));
        changes.erase(address(3));
        changes.store(&path).unwrap();
        assert_eq!(Changes::load(&path).unwrap(), changes);
        assert_eq!(changes.apply(&[address(3), address(4), address(4)]), [address(4), address(1)]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers");
        fs::write(&path, "# heading\nadd 127.0.0.1:1\nadd somewhere\n").unwrap();
        assert!(Changes::load(&path).unwrap_err().what.contains("line 3"));
    }
}
