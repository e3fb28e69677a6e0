//! The vote log: what this node has voted, in all groups, durable before a vote leaves the node.
//!
//! One append-only log serves all groups, so that one sync a loop turn covers them all. It is a directory of segments; a segment is
//! deleted once every vote in it is for a height that its group has committed. After a restart the log says up to which view this
//! node may have voted above the committed head, and those views are never used again. Called by the order stage alone.
//!
//! A record is `length (4) | checksum (8) | body`; a cut-off or damaged tail is what a crash leaves and is dropped: a vote whose
//! record was not synced never left.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use millrace_administration::{VoteKind, VoteRecord};
use millrace_base::{GroupId, keccak256, wire};

/// Size at which a new segment begins. Small, because a segment lives as long as the slowest group needs any of its votes.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Encoded size of one record's body at most; anything longer is damage.
const MAX_RECORD_BYTES: usize = 256;

#[derive(bincode::Encode, bincode::Decode)]
struct Record {
    group: GroupId,
    kind: u8,
    height: u64,
    view: u64,
    subject: [u8; 32],
}

/// What the log remembers of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Voted {
    /// Highest height voted on.
    pub height: u64,
    /// Highest view voted in at heights above the committed one.
    pub view: Option<u64>,
}

/// The highest view voted in, by group and height.
type Views = HashMap<GroupId, BTreeMap<u64, u64>>;

struct Segment {
    path: PathBuf,
    /// Highest height voted on in it, by group.
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
    views: Views,
    committed: HashMap<GroupId, u64>,
    buffer: Vec<u8>,
}

impl VoteLog {
    /// Opens or creates the log in a directory and reads what it holds.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".votes")).and_then(|stem| stem.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        let (mut segments, mut views) = (Vec::new(), Views::new());
        for number in &numbers {
            let path = segment_path(directory, *number);
            let heights = read_segment(&path, &mut views)?;
            segments.push(Segment { path, heights });
        }
        let number = numbers.last().map_or(0, |last| last + 1);
        let (file, segment) = create_segment(directory, number)?;
        segments.push(segment);
        Ok(Self {
            directory: directory.to_owned(),
            file,
            length: 0,
            number,
            segments,
            views,
            committed: HashMap::new(),
            buffer: Vec::new(),
        })
    }

    /// What this node may have voted in a group whose durable head is `committed`.
    pub fn voted(&self, group: GroupId, committed: u64) -> Voted {
        let Some(views) = self.views.get(&group) else { return Voted::default() };
        let height = views.last_key_value().map_or(0, |(height, _)| *height);
        let view = views.range(committed + 1..).map(|(_, view)| *view).max();
        Voted { height, view }
    }

    /// Adds a record to those of this turn. Nothing is durable before [`Self::sync`].
    pub fn append(&mut self, group: GroupId, vote: &VoteRecord) {
        let kind = match vote.kind {
            VoteKind::Prepare => 0,
            VoteKind::Commit => 1,
            VoteKind::Checkpoint => 2,
        };
        let body = wire::encode(&Record { group, kind, height: vote.height, view: vote.view, subject: vote.subject.0 });
        let length = u32::try_from(body.len()).expect("records are small");
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(&body));
        self.buffer.extend_from_slice(&body);
        note(&mut self.views, group, vote.height, vote.view);
        let segment = self.segments.last_mut().expect("there is always one being written");
        let height = segment.heights.entry(group).or_default();
        *height = (*height).max(vote.height);
    }

    /// Whether records wait for [`Self::sync`].
    pub fn is_dirty(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Makes every appended record durable. On an error nothing may leave the node; the call may be repeated.
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
        if self.length >= SEGMENT_BYTES {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        let (file, segment) = create_segment(&self.directory, number)?;
        (self.file, self.number, self.length) = (file, number, 0);
        self.segments.push(segment);
        self.delete_settled()
    }

    /// A group's blocks up to `height` are durable: its votes up to there are no longer needed.
    pub fn committed(&mut self, group: GroupId, height: u64) {
        self.committed.insert(group, height);
        if let Some(views) = self.views.get_mut(&group) {
            // The highest settled height stays, so that `voted` can say how far this node got.
            *views = views.split_off(&height);
        }
    }

    fn delete_settled(&mut self) -> io::Result<()> {
        let last = self.segments.len() - 1;
        let is_settled = |segment: &Segment| {
            segment.heights.iter().all(|(group, height)| self.committed.get(group).is_some_and(|committed| committed > height))
        };
        let count = self.segments[..last].iter().take_while(|segment| is_settled(segment)).count();
        for segment in self.segments.drain(..count) {
            fs::remove_file(&segment.path)?;
        }
        Ok(())
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

fn note(views: &mut Views, group: GroupId, height: u64, view: u64) {
    let highest = views.entry(group).or_default().entry(height).or_default();
    *highest = (*highest).max(view);
}

/// Reads whole records up to the first that is cut off or damaged.
fn read_segment(path: &Path, views: &mut Views) -> io::Result<HashMap<GroupId, u64>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (mut rest, mut heights) = (&bytes[..], HashMap::new());
    while let Some((record, next)) = split_record(rest) {
        note(views, record.group, record.height, record.view);
        let height = heights.entry(record.group).or_insert(0);
        *height = record.height.max(*height);
        rest = next;
    }
    if !rest.is_empty() {
        tracing::warn!(file = %path.display(), bytes = rest.len(), "the vote log's tail is cut off, as a crash leaves it; it is dropped");
    }
    Ok(heights)
}

fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
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
    use millrace_base::B256;

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    fn vote(height: u64, view: u64) -> VoteRecord {
        VoteRecord { kind: VoteKind::Prepare, height, view, subject: B256::repeat_byte(7) }
    }

    #[test]
    fn synced_votes_are_there_after_reopening_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        log.append(group(1), &vote(5, 2));
        log.append(group(2), &vote(9, 0));
        log.sync().unwrap();
        log.append(group(1), &vote(6, 3));
        drop(log);
        let log = VoteLog::open(directory.path()).unwrap();
        assert_eq!(log.voted(group(1), 4), Voted { height: 5, view: Some(2) });
        assert_eq!(log.voted(group(1), 5), Voted { height: 5, view: None });
        assert_eq!(log.voted(group(2), 0), Voted { height: 9, view: Some(0) });
        assert_eq!(log.voted(group(3), 0), Voted::default());
    }

    #[test]
    fn damaged_tail_is_dropped_and_what_stands_before_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        log.append(group(1), &vote(1, 1));
        log.append(group(1), &vote(2, 1));
        log.sync().unwrap();
        let path = log.segments[0].path.clone();
        drop(log);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(VoteLog::open(directory.path()).unwrap().voted(group(1), 0), Voted { height: 1, view: Some(1) });
    }

    #[test]
    fn settled_segments_are_deleted_and_needed_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = VoteLog::open(directory.path()).unwrap();
        for height in 1..=100_000 {
            log.append(group(1), &vote(height, 0));
        }
        log.append(group(2), &vote(1, 0));
        log.sync().unwrap();
        log.committed(group(1), 100_001);
        log.append(group(1), &vote(100_002, 0));
        log.sync().unwrap();
        assert_eq!(log.segments.len(), 2, "group 2 still needs its vote");
        log.committed(group(2), 2);
        log.rotate().unwrap();
        assert_eq!(log.segments.len(), 2);
        drop(log);
        assert_eq!(VoteLog::open(directory.path()).unwrap().voted(group(1), 100_001), Voted { height: 100_002, view: Some(0) });
    }
}
