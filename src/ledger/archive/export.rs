//! Writes blocks of a database into a file, and goes on with a file that was not completed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;

use millrace_access::blockchain::facts::{ChainFacts, Get};
use millrace_access::blockchain::read_header;
use millrace_access::blockchain::records::{Packed, corrupt, signed_part};
use millrace_administration::sync::message::WireBlock;
use millrace_base::frame::put_string;
use millrace_base::{ChainId, GroupId, wire};
use millrace_core::storage::{StorageView, height_key};
use millrace_core::{Space, StorageError};

use super::record::{MAGIC, Place, RecordError, RecordReader, RecordWriter};
use super::{ArchiveError, End, Head, Progress, file_in, kind};

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct Export<'a> {
    /// The chain the group belongs to.
    pub chain_id: ChainId,
    /// The group.
    pub group: GroupId,
    /// A file, or a directory for one with a name of its own.
    pub target: &'a Path,
    /// First height; 1 when absent.
    pub from: Option<u64>,
    /// Last height; the head when absent.
    pub to: Option<u64>,
}

/// What was exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportReport {
    /// The file.
    pub file: std::path::PathBuf,
    /// Heights that are in the file.
    pub first: u64,
    /// See `first`; below it when there is none.
    pub last: u64,
    /// Blocks that were there already.
    pub found: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Whether it is complete, or was stopped and can be gone on with.
    pub is_complete: bool,
}

/// Exports blocks as of one moment; `height` is the head of that moment.
///
/// # Errors
/// The range is not there, the file is of other blocks, or the database or the file system fails.
pub fn export_blocks(
    view: &dyn StorageView,
    height: u64,
    export: &Export<'_>,
    progress: &mut Progress<'_>,
) -> Result<ExportReport, ArchiveError> {
    let get: Get<'_> = &|space, key| view.get(space, key);
    let facts = ChainFacts::read(get)?;
    let (from, to) = range(export, height, facts.kept_from)?;
    let file = if export.target.is_dir() { file_in(export.target, export.group, from) } else { export.target.to_owned() };
    let head = Head { chain_id: export.chain_id, group: export.group, genesis: facts.genesis.0, from };
    let io = ArchiveError::io(&file);
    let Begun { out, next, is_complete } = begin(&file, &head)?;
    let mut writer = out;
    let mut report =
        ExportReport { first: from, last: next.saturating_sub(1), found: next - from, bytes: 0, is_complete, file: file.clone() };
    if !is_complete {
        for number in next..=to {
            writer.put(kind::BLOCK, &block_content(get, number)?).map_err(&io)?;
            report.last = number;
            if progress(number + 1 - from, to + 1 - from) == ControlFlow::Break(()) && number < to {
                break;
            }
        }
        report.is_complete = report.last >= to;
        if report.is_complete {
            writer.put(kind::END, &wire::encode(&End { last: report.last })).map_err(&io)?;
        }
    }
    report.bytes = writer.offset();
    let mut buffer = writer.into_inner();
    buffer.flush().map_err(&io)?;
    buffer.get_ref().sync_all().map_err(&io)?;
    Ok(report)
}

fn range(export: &Export<'_>, height: u64, kept_from: u64) -> Result<(u64, u64), ArchiveError> {
    let (from, to) = (export.from.unwrap_or(1), export.to.unwrap_or(height));
    let refused = |text: String| Err(ArchiveError::Range(text));
    if from == 0 {
        return refused("block 0 is made from the group's genesis file and is not exported: begin at 1".into());
    }
    if from < kept_from {
        return refused(format!(
            "blocks below {kept_from} are not kept in this database: begin with --from {kept_from}, or use another node"
        ));
    }
    if height == 0 {
        return refused("there are no blocks yet besides block 0".into());
    }
    if to > height {
        return refused(format!("the last block is {height}, block {to} is not there yet"));
    }
    if from > to {
        return refused(format!("there is no block from {from} to {to}"));
    }
    Ok((from, to))
}

/// A file that is written.
struct Begun {
    out: RecordWriter<BufWriter<File>>,
    /// The first height that is not in it.
    next: u64,
    is_complete: bool,
}

fn begin(file: &Path, head: &Head) -> Result<Begun, ArchiveError> {
    let io = ArchiveError::io(file);
    if fs::metadata(file).is_ok_and(|found| found.len() > MAGIC.len() as u64) {
        return resume(file, head);
    }
    let out = File::create(file).map_err(&io)?;
    let mut out = RecordWriter::begin(BufWriter::with_capacity(1 << 20, out)).map_err(&io)?;
    out.put(kind::HEAD, &wire::encode(head)).map_err(&io)?;
    Ok(Begun { out, next: head.from, is_complete: false })
}

/// Finds the last whole block in a file of the same blocks; what is behind it, a write that was cut short, is dropped.
fn resume(file: &Path, head: &Head) -> Result<Begun, ArchiveError> {
    let io = ArchiveError::io(file);
    let refused = |offset: u64, detail: String| ArchiveError::Refused { file: file.to_owned(), offset, detail };
    let failed = |offset: u64| {
        move |error| match error {
            RecordError::Io(error) => ArchiveError::Io { file: file.to_owned(), error },
            RecordError::Damaged(detail) => {
                ArchiveError::Refused { file: file.to_owned(), offset, detail: format!("{detail}; choose another file, or remove it") }
            }
        }
    };
    let mut options = OpenOptions::new();
    let mut opened = options.read(true).write(true).open(file).map_err(&io)?;
    let mut reader = RecordReader::begin(BufReader::new(&mut opened)).map_err(failed(0))?;
    let found = reader.next().map_err(failed(Place::START.offset))?.filter(|record| record.kind == kind::HEAD);
    let found = found.and_then(|record| wire::decode::<Head>(&record.content).ok());
    let found = found.ok_or_else(|| refused(Place::START.offset, "it does not say what its blocks belong to; remove it".into()))?;
    if let Some(reason) = found.differs(head) {
        return Err(refused(Place::START.offset, format!("{reason}; choose another file")));
    }
    if found.from != head.from {
        let detail = format!("its first block is {}, not {}; choose another file, or give --from {}", found.from, head.from, found.from);
        return Err(refused(Place::START.offset, detail));
    }
    let (mut next, mut is_complete) = (head.from, false);
    while let Ok(Some(record)) = reader.next() {
        match record.kind {
            kind::BLOCK => next += 1,
            _ => {
                is_complete = true;
                break;
            }
        }
    }
    let place = reader.place();
    drop(reader);
    if !is_complete {
        opened.set_len(place.offset).map_err(&io)?;
    }
    opened.seek(SeekFrom::Start(place.offset)).map_err(&io)?;
    let out = RecordWriter::resume(BufWriter::with_capacity(1 << 20, opened), place);
    Ok(Begun { out, next, is_complete })
}

/// A block as peers send it, and its receipts as they are stored.
fn block_content(get: Get<'_>, number: u64) -> Result<Vec<u8>, StorageError> {
    let missing = |what: &str| corrupt(&format!("{what} of block {number}"), "missing");
    let (header, signatures) = read_header(get, number)?.ok_or_else(|| missing("block header"))?;
    let body = get(Space::Body, &height_key(number))?.ok_or_else(|| missing("block body"))?;
    let receipts = get(Space::Receipts, &height_key(number))?.ok_or_else(|| missing("receipts"))?;
    let packed = Packed::open(&body, "block body")?;
    let transactions = (0..packed.len()).map(|index| signed_part(packed.item(index)?)).collect::<Result<Vec<&[u8]>, StorageError>>()?;
    let block = WireBlock::encode(&header, &signatures, transactions.into_iter());
    let mut content = Vec::with_capacity(block.len() + receipts.len() + 8);
    put_string(&mut content, &block);
    put_string(&mut content, &receipts);
    Ok(content)
}
