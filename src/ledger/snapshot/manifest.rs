//! The manifest: what a snapshot is of, and every file of it with size and digest. Text, so that people can read it.
//!
//! Invariant: a manifest that is accepted is byte for byte the one that is written for its content.

use std::fmt::Write;
use std::str::FromStr;

use millrace_base::{B256, ChainId, GroupId, hex};

/// First line: name and version.
const TITLE: &str = "millrace-snapshot 1";

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Headers with signatures, from block 0 on.
    Headers,
    /// Bodies and receipts of the last blocks.
    Blocks,
    /// Pairs of the state.
    State,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Headers, Kind::Blocks, Kind::State];

    fn name(self) -> &'static str {
        match self {
            Kind::Headers => "headers",
            Kind::Blocks => "blocks",
            Kind::State => "state",
        }
    }
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// What it holds.
    pub kind: Kind,
    /// Its position among those of its kind.
    pub index: u32,
    /// Headers, blocks or pairs in it.
    pub items: u64,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub digest: B256,
}

impl Chunk {
    /// Its name in the directory.
    pub fn file_name(&self) -> String {
        format!("{}-{:06}.chunk", self.kind.name(), self.index)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// `chain.id`.
    pub chain_id: ChainId,
    /// The group.
    pub group: GroupId,
    /// Hash of block 0.
    pub genesis: B256,
    /// The height whose state it is.
    pub height: u64,
    /// Hash of the block there.
    pub hash: B256,
    /// Its state root.
    pub state_root: B256,
    /// Pairs of the state.
    pub state_values: u64,
    /// Committed transactions; not proven.
    pub transactions: u64,
    /// Those that failed; not proven.
    pub failed: u64,
    /// Height at which the two last changed; not proven.
    pub counted_at: u64,
    /// Height from which the present members and settings govern; not proven.
    pub epoch_start: u64,
    /// The files, by kind and position.
    pub chunks: Vec<Chunk>,
}

impl Manifest {
    /// The text.
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n");
        let mut line =
            |name: &str, value: &dyn std::fmt::Display| writeln!(text, "{name} {value}").expect("writing to a string cannot fail");
        line("chain", &self.chain_id);
        line("group", &self.group);
        line("genesis", &self.genesis);
        line("height", &self.height);
        line("hash", &self.hash);
        line("state-root", &self.state_root);
        line("state-values", &self.state_values);
        line("transactions", &self.transactions);
        line("failed", &self.failed);
        line("counted-at", &self.counted_at);
        line("epoch-start", &self.epoch_start);
        for Chunk { kind, index, items, bytes, digest } in &self.chunks {
            line("chunk", &format_args!("{} {index} {items} {bytes} {digest}", kind.name()));
        }
        let checksum = hex::encode(blake3::hash(text.as_bytes()).as_bytes());
        text.push_str(&format!("checksum {checksum}\n"));
        text
    }

    /// From the text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(text: &str) -> Result<Self, String> {
        let manifest = Self::parse(text)?;
        if manifest.encode() != text {
            return Err("its checksum does not match: it was changed after it was written".into());
        }
        Ok(manifest)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let title = lines.next().unwrap_or_default();
        if title != TITLE {
            return Err("it is no manifest of a snapshot of this version".into());
        }
        let mut value = |name: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or_else(|| format!("the line \"{name}\" is missing"))
        };
        let (chain_id, group) = (parse(value("chain")?)?, parse::<i64>(value("group")?)?);
        let group = GroupId::new(group).ok_or("it names no group")?;
        let genesis = parse(value("genesis")?)?;
        let (height, hash, state_root) = (parse(value("height")?)?, parse(value("hash")?)?, parse(value("state-root")?)?);
        let (state_values, transactions, failed) =
            (parse(value("state-values")?)?, parse(value("transactions")?)?, parse(value("failed")?)?);
        let (counted_at, epoch_start) = (parse(value("counted-at")?)?, parse(value("epoch-start")?)?);
        let mut chunks = Vec::new();
        for line in lines {
            match line.strip_prefix("chunk ") {
                Some(rest) => chunks.push(chunk(rest)?),
                None if line.starts_with("checksum ") => break,
                None => return Err(format!("a line is not understood: {}", line.chars().take(80).collect::<String>())),
            }
        }
        let manifest = Self {
            chain_id,
            group,
            genesis,
            height,
            hash,
            state_root,
            state_values,
            transactions,
            failed,
            counted_at,
            epoch_start,
            chunks,
        };
        manifest.check_order()?;
        Ok(manifest)
    }

    /// Chunks stand in the order of kinds and positions, without gaps.
    fn check_order(&self) -> Result<(), String> {
        let mut expected = Kind::ALL.into_iter().flat_map(|kind| self.of(kind).zip(0..));
        let is_ordered =
            self.chunks.iter().all(|chunk| expected.next().is_some_and(|(other, index)| other == chunk && chunk.index == index));
        if is_ordered { Ok(()) } else { Err("its files are not in order".into()) }
    }

    /// The chunks of a kind, in order.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter(move |chunk| chunk.kind == kind)
    }

    /// Bytes of all chunks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.bytes))
    }

    /// Names this snapshot among all others.
    pub fn name(&self) -> B256 {
        B256::new(*blake3::hash(self.encode().as_bytes()).as_bytes())
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("a value cannot be read: {}", text.chars().take(80).collect::<String>()))
}

fn chunk(text: &str) -> Result<Chunk, String> {
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or_else(|| "a chunk is not described completely".to_owned());
    let name = word()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or("it has chunks of an unknown kind")?;
    Ok(Chunk { kind, index: parse(word()?)?, items: parse(word()?)?, bytes: parse(word()?)?, digest: parse(word()?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let chunk = |kind, index| Chunk { kind, index, items: 3, bytes: 77, digest: B256::repeat_byte(7) };
        Manifest {
            chain_id: 1,
            group: GroupId::new(2).unwrap(),
            genesis: B256::repeat_byte(1),
            height: 9,
            hash: B256::repeat_byte(2),
            state_root: B256::repeat_byte(3),
            state_values: 4,
            transactions: 5,
            failed: 1,
            counted_at: 8,
            epoch_start: 1,
            chunks: vec![chunk(Kind::Headers, 0), chunk(Kind::Blocks, 0), chunk(Kind::State, 0), chunk(Kind::State, 1)],
        }
    }

    #[test]
    fn manifest_survives_the_round_trip_and_one_changed_bit_is_found() {
        let text = manifest().encode();
        assert_eq!(Manifest::decode(&text).unwrap(), manifest());
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(Manifest::decode(&changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Manifest::decode(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn chunks_out_of_order_are_refused() {
        let mut swapped = manifest();
        swapped.chunks.swap(1, 2);
        assert!(Manifest::decode(&swapped.encode()).unwrap_err().contains("order"));
        let mut gap = manifest();
        gap.chunks.remove(2);
        assert!(Manifest::decode(&gap.encode()).unwrap_err().contains("order"));
    }
}
