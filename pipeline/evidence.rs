//! Evidence against sealers that signed statements which contradict each other, kept for the operators of the chain.
//!
//! One text file a group in the data directory, one line a case: time, offender, what it is about, and both messages as they were sent,
//! in hex. Bounded: the first cases of a group are kept, one for each offender and matter; the log and the counters name the rest.
//! Written by the order stage.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use millrace_base::{Bytes, GroupId, NodeId, hex};

/// Cases kept of one group: every sealer of a large group once.
const MAX_CASES: usize = 64;

/// Bytes of one group's file at most; a case that would exceed it is only logged.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Two signed statements of one sealer that contradict each other.
pub struct Case {
    /// Who signed them.
    pub offender: NodeId,
    /// What they are about.
    pub what: String,
    /// Both messages as they were sent.
    pub statements: [Bytes; 2],
}

/// See the module.
pub struct EvidenceLog {
    /// None: nothing is kept.
    directory: Option<PathBuf>,
    /// Offender and matter of the cases on file, by group.
    known: HashMap<GroupId, HashSet<String>>,
}

impl EvidenceLog {
    /// Keeps files in `directory`, which is created with the first case.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory: Some(directory), known: HashMap::new() }
    }

    /// Keeps no files: of the simulator, which touches no file system.
    pub fn unkept() -> Self {
        Self { directory: None, known: HashMap::new() }
    }

    /// Puts a case on file; `false` when it is there already or the file is full.
    ///
    /// # Errors
    /// What the file system says.
    pub fn record(&mut self, group: GroupId, case: &Case, now_ms: u64) -> io::Result<bool> {
        let Some(directory) = &self.directory else { return Ok(false) };
        let path = directory.join(format!("group-{group}.txt"));
        let key = format!("{} {}", case.offender, case.what.replace(['\n', '\r'], " "));
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let known = match self.known.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let text = if length == 0 { String::new() } else { fs::read_to_string(&path)? };
                place.insert(text.lines().filter_map(key_of).collect())
            }
        };
        let line = format!("{now_ms} {key} | {} | {}\n", hex::encode(&case.statements[0]), hex::encode(&case.statements[1]));
        if known.len() >= MAX_CASES || known.contains(&key) || length + line.len() as u64 > MAX_FILE_BYTES {
            return Ok(false);
        }
        fs::create_dir_all(directory)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        known.insert(key);
        Ok(true)
    }
}

/// Offender and matter of a line.
fn key_of(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(' ')?;
    rest.rsplitn(3, " | ").nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(offender: u8, what: &str) -> Case {
        let statements = [Bytes::from_static(b"this"), Bytes::from_static(b"that")];
        Case { offender: NodeId([offender; 64]), what: what.into(), statements }
    }

    #[test]
    fn each_case_is_on_file_once_also_after_a_restart_and_cases_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let group = GroupId::new(1).unwrap();
        let open = || EvidenceLog::new(directory.path().join("evidence"));
        let mut log = open();
        assert!(log.record(group, &case(1, "height 5 | view 0"), 10).unwrap());
        assert!(!log.record(group, &case(1, "height 5 | view 0"), 11).unwrap());
        let mut log = open();
        assert!(!log.record(group, &case(1, "height 5 | view 0"), 12).unwrap());
        let recorded = (0..200).filter(|height| log.record(group, &case(2, &format!("height {height}")), 13).unwrap()).count();
        assert_eq!(recorded, MAX_CASES - 1);
        let text = fs::read_to_string(directory.path().join("evidence/group-1.txt")).unwrap();
        assert_eq!(text.lines().count(), MAX_CASES);
        assert!(text.starts_with(&format!("10 {} height 5 | view 0 | 74686973 | 74686174\n", NodeId([1; 64]))));
    }
}
