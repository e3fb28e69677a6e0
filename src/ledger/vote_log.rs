//! The vote log: what the engines of all groups must remember over a crash, durable before anything that follows from it leaves the node.
//!
//! One append-only log serves all groups, so that one sync a loop turn covers them all. It is a directory of segments. A group's
//! records up to its durable height are settled; when the log grows, the records of the oldest segments that are not settled are
//! written again at its end and the segments are deleted, so its size follows what is in flight and not the slowest group. Each record
//! keeps the number it was first written under, so engines get them in the order in which they were said. Records are bytes to the log:
//! each engine reads its own. Called by the order stage alone.
//!
//! A record is `length (4) | checksum (8) | body`; a cut-off or damaged tail is what a crash leaves and is dropped: nothing that
//! rests on a record leaves before the record is synced.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use millrace_base::{Bytes, GroupId, keccak256, wire};

/// Size at which a new segment begins: some blocks with their transactions.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Encoded size of one record's body at most; anything longer is damage.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// Bytes before the body of a record.
const RECORD_HEADER_BYTES: usize = 12;

#[derive(bincode::Encode, bincode::Decode)]
struct Record {
    /// Counts the records of the log; kept when the record is written again.
    sequence: u64,
    group: GroupId,
    height: u64,
    body: Vec<u8>,
}

struct Segment {
    path: PathBuf,
    /// Highest height spoken of in it, by group.
    heights: HashMap<GroupId, u64>,
}

/// See the module.
pub struct VoteLog {
    directory: PathBuf,
    file: File,
    length: u64,
    number: u64,
    /// Oldest first; the last is the one being written.
    segments: Vec<Segment>,
    committed: HashMap<GroupId, u64>,
    /// Of the next record.
    sequence: u64,
    buffer: Vec<u8>,
}

impl VoteLog {
    /// Opens or creates the log in a directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".votes")).and_then(|stem| stem.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        let (mut segments, mut sequence) = (Vec::new(), 0);
        for number in &numbers {
            let path = segment_path(directory, *number);
            let mut heights = HashMap::new();
            read_segment(&path, |record| {
                note(&mut heights, record.group, record.height);
                sequence = sequence.max(record.sequence + 1);
            })?;
            segments.push(Segment { path, heights });
        }
        let number = numbers.last().map_or(0, |last| last + 1);
        let (file, segment) = create_segment(directory, number)?;
        segments.push(segment);
        let (directory, committed) = (directory.to_owned(), HashMap::new());
        Ok(Self { directory, file, length: 0, number, segments, committed, sequence, buffer: Vec::new() })
    }

    /// The durable records of a group that speak of heights above `committed`, in the order in which they were appended.
    ///
    /// # Errors
    /// What the file system says.
    pub fn records(&self, group: GroupId, committed: u64) -> io::Result<Vec<Bytes>> {
        let mut found = Vec::new();
        let concerned = |segment: &&Segment| segment.heights.get(&group).is_some_and(|height| *height > committed);
        for segment in self.segments.iter().filter(concerned) {
            read_segment(&segment.path, |record| {
                if record.group == group && record.height > committed {
                    found.push((record.sequence, record.body));
                }
            })?;
        }
        // A rotation that was cut short leaves a record twice.
        found.sort_unstable_by_key(|(sequence, _)| *sequence);
        found.dedup_by_key(|(sequence, _)| *sequence);
        Ok(found.into_iter().map(|(_, body)| body.into()).collect())
    }

    /// Adds a record to those of this turn. Nothing is durable before [`Self::sync`].
    pub fn append(&mut self, group: GroupId, height: u64, body: &[u8]) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.write(&Record { sequence, group, height, body: body.to_vec() });
    }

    fn write(&mut self, record: &Record) {
        let body = wire::encode(record);
        let length = u32::try_from(body.len()).expect("records are below their bound");
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(&body));
        self.buffer.extend_from_slice(&body);
        let segment = self.segments.last_mut().expect("there is always one being written");
        note(&mut segment.heights, record.group, record.height);
    }

    /// Whether records wait for [`Self::sync`].
    pub fn is_dirty(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Makes every appended record durable. On an error nothing may leave the node; the call may be repeated.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // A repeated call after a partial write would leave a damaged record in the middle: cut back to what is known to be whole.
        self.file.set_len(self.length)?;
        io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        if self.length >= SEGMENT_BYTES
            && let Err(error) = self.rotate()
        {
            // The records of this turn are durable, and the oldest segments are still there: only room is not given back yet.
            tracing::warn!(%error, directory = %self.directory.display(), "the vote log could not begin a new file; it tries again");
        }
        Ok(())
    }

    /// Begins a new segment with what still counts of the oldest ones, and deletes those.
    fn rotate(&mut self) -> io::Result<()> {
        // A number is used for one attempt: a file that was made and not made durable stands in the way of the next.
        self.number += 1;
        let (file, segment) = create_segment(&self.directory, self.number)?;
        (self.file, self.length) = (file, 0);
        self.segments.push(segment);
        // The segment written last is mostly in flight: copying it would be work for nothing.
        let settling = self.segments.len().saturating_sub(2);
        let mut kept = Vec::new();
        for segment in &self.segments[..settling] {
            if self.is_settled(segment) {
                continue;
            }
            let committed = &self.committed;
            read_segment(&segment.path, |record| {
                if committed.get(&record.group).is_none_or(|height| *height < record.height) {
                    kept.push(record);
                }
            })?;
        }
        kept.iter().for_each(|record| self.write(record));
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        self.length = self.buffer.len() as u64;
        self.buffer.clear();
        for segment in self.segments.drain(..settling) {
            fs::remove_file(&segment.path)?;
        }
        Ok(())
    }

    fn is_settled(&self, segment: &Segment) -> bool {
        segment.heights.iter().all(|(group, height)| self.committed.get(group).is_some_and(|committed| committed >= height))
    }

    /// A group's blocks up to `height` are durable: its records up to there are no longer needed.
    pub fn committed(&mut self, group: GroupId, height: u64) {
        self.committed.insert(group, height);
    }
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.votes"))
}

fn create_segment(directory: &Path, number: u64) -> io::Result<(File, Segment)> {
    let path = segment_path(directory, number);
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // The name must survive power loss as well as the content.
    File::open(directory)?.sync_all()?;
    Ok((file, Segment { path, heights: HashMap::new() }))
}

fn checksum(body: &[u8]) -> [u8; 8] {
    keccak256(body)[..8].try_into().expect("a hash has 32 bytes")
}

fn note(heights: &mut HashMap<GroupId, u64>, group: GroupId, height: u64) {
    let highest = heights.entry(group).or_default();
    *highest = (*highest).max(height);
}

/// Reads whole records up to the first that is cut off or damaged.
fn read_segment(path: &Path, mut take: impl FnMut(Record)) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let mut rest = &bytes[..];
    while let Some((record, next)) = split_record(rest) {
        take(record);
        rest = next;
    }
    if !rest.is_empty() {
        tracing::warn!(file = %path.display(), bytes = rest.len(), "the vote log's tail is cut off, as a crash leaves it; it is dropped");
    }
    Ok(())
}

fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let (length, sum) = header.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_RECORD_BYTES {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    if checksum(body) != *sum {
        return None;
    }
    Some((wire::decode(body).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    fn bodies(log: &VoteLog, id: i64, committed: u64) -> Vec<Vec<u8>> {
        log.records(group(id), committed).unwrap().iter().map(|body| body.to_vec()).collect()
    }

    #[test]
    fn synced_records_are_there_after_reopening_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        log.append(group(1), 5, b"five");
        log.append(group(2), 9, b"nine");
        log.append(group(1), 6, b"six");
        log.sync().unwrap();
        log.append(group(1), 7, b"seven");
        drop(log);
        let log = VoteLog::open(directory.path()).unwrap();
        assert_eq!(bodies(&log, 1, 4), [&b"five"[..], b"six"]);
        assert_eq!(bodies(&log, 1, 5), [&b"six"[..]]);
        assert_eq!(bodies(&log, 2, 0), [&b"nine"[..]]);
        assert!(bodies(&log, 3, 0).is_empty());
    }

    #[test]
    fn damaged_tail_is_dropped_and_what_stands_before_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        log.append(group(1), 1, b"one");
        log.append(group(1), 2, b"two");
        log.sync().unwrap();
        let path = log.segments[0].path.clone();
        drop(log);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(bodies(&VoteLog::open(directory.path()).unwrap(), 1, 0), [&b"one"[..]]);
    }

    #[test]
    fn records_come_in_the_order_in_which_they_were_said_also_when_old_ones_were_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        let said = |index: u8| vec![index; 6 << 20];
        for index in 0..14 {
            // Group 1 stands still at one height and goes on speaking of it; group 2 fills the log.
            log.append(group(1), 1, &[index]);
            log.append(group(2), u64::from(index) + 1, &said(index));
            log.sync().unwrap();
            log.committed(group(2), u64::from(index));
        }
        let expected: Vec<Vec<u8>> = (0..14).map(|index| vec![index]).collect();
        assert!(log.number > 3, "the log has rotated");
        assert_eq!(bodies(&log, 1, 0), expected);
        drop(log);
        let mut log = VoteLog::open(directory.path()).unwrap();
        assert_eq!(bodies(&log, 1, 0), expected);
        log.append(group(1), 1, &[14]);
        log.sync().unwrap();
        assert_eq!(bodies(&log, 1, 0).last().unwrap(), &[14]);
    }

    #[test]
    fn file_in_the_way_of_the_next_costs_one_attempt_and_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        fs::write(segment_path(directory.path(), log.number + 1), b"").unwrap();
        let body = vec![7; 9 << 20];
        for height in 1..=4 {
            log.append(group(1), height, &body);
            log.sync().unwrap();
        }
        assert!(log.length < SEGMENT_BYTES, "a later attempt has made a file");
        drop(log);
        assert_eq!(VoteLog::open(directory.path()).unwrap().records(group(1), 0).unwrap().len(), 4);
    }

    #[test]
    fn log_keeps_what_is_in_flight_and_stays_small_beside_a_group_that_stands_still() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        log.append(group(2), 1, b"waits");
        let body = vec![7; 1 << 20];
        for height in 1..=100 {
            log.append(group(1), height, &body);
            log.sync().unwrap();
            log.committed(group(1), height - 1);
        }
        assert!(log.segments.len() <= 3, "{} segments", log.segments.len());
        assert_eq!(bodies(&log, 1, 99), [&body[..]]);
        drop(log);
        let log = VoteLog::open(directory.path()).unwrap();
        assert_eq!(bodies(&log, 2, 0), [&b"waits"[..]]);
        assert_eq!(bodies(&log, 1, 99).len(), 1);
    }
}
