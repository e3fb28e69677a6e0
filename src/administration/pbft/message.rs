//! What PBFT engines say to each other, as bytes and as digests that are signed.
//!
//! Frames come authenticated from the network, but statements that may end in a certificate are signed as well, because certificates
//! are passed on. What is signed is a domain-separated digest, never the encoding; one signature can stand for one statement only
//! (`spec/reliability.md` R19).

use bincode::{Decode, Encode};
use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, Signature, merkle, wire};

use crate::digest::{DigestWriter, Domain};
use crate::engine::ProposalHeader;

/// What decoding a message may take: more than any frame between nodes holds, so no length in it can ask for more.
const MAX_DECODED_BYTES: usize = 32 << 20;

/// First number of every frame; a frame with another one is refused.
const WIRE_VERSION: u8 = 1;

/// A hash as the codec carries it.
pub type Hash = [u8; 32];

/// What a signed vote says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum VoteKind {
    /// "I lead this height in this view and propose this." Counts as the leader's prepare.
    Propose,
    /// "I have accepted this proposal in this view."
    Prepare,
    /// "I have seen a quorum of prepares."
    Commit,
    /// "Executing it gave this block hash." Signed over the block hash itself: these signatures end in the block. Its view is 0.
    Checkpoint,
}

impl VoteKind {
    /// Kinds of which a sealer may say only one thing a height and view: who proposes prepares nothing else.
    pub fn class(self) -> Self {
        if self == Self::Propose { Self::Prepare } else { self }
    }

    /// For texts and digests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// A sealer's signed vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Vote {
    pub kind: VoteKind,
    pub epoch: Hash,
    pub height: u64,
    pub view: u64,
    /// Proposal digest, or block hash for [`VoteKind::Checkpoint`].
    pub subject: Hash,
    /// Position among the epoch's sealers.
    pub sealer: u32,
    pub signature: Signature,
}

impl Vote {
    /// What the signature covers. Checkpoints sign the block hash itself: clients verify them (`spec/client-protocol.md` 2.2).
    pub fn statement(&self, domain: &Domain) -> B256 {
        if self.kind == VoteKind::Checkpoint {
            return self.subject.into();
        }
        DigestWriter::new(domain, self.kind.name())
            .hash(self.epoch.into())
            .number(self.height)
            .number(self.view)
            .hash(self.subject.into())
            .finish()
    }
}

/// A proposal on the wire: [`ProposalHeader`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Content {
    pub height: u64,
    pub epoch: Hash,
    pub previous: Hash,
    pub below: Hash,
    pub timestamp_ms: u64,
    pub sealer: u32,
    pub transactions: Vec<Hash>,
}

impl From<&ProposalHeader> for Content {
    fn from(header: &ProposalHeader) -> Self {
        Self {
            height: header.height,
            epoch: header.epoch.0,
            previous: header.previous.0,
            below: header.below.0,
            timestamp_ms: header.timestamp_ms,
            sealer: header.sealer,
            transactions: header.transactions.iter().map(|hash| hash.0).collect(),
        }
    }
}

impl From<Content> for ProposalHeader {
    fn from(content: Content) -> Self {
        Self {
            height: content.height,
            epoch: content.epoch.into(),
            previous: content.previous.into(),
            below: content.below.into(),
            timestamp_ms: content.timestamp_ms,
            sealer: content.sealer,
            transactions: content.transactions.into_iter().map(B256::from).collect(),
        }
    }
}

/// A proposal without its transaction hashes: enough to compute its digest and to see what it builds on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Brief {
    pub height: u64,
    pub epoch: Hash,
    pub previous: Hash,
    pub below: Hash,
    pub timestamp_ms: u64,
    pub sealer: u32,
    pub count: u64,
    /// Transactions root, as the header of the block will have it.
    pub list: Hash,
}

impl Brief {
    pub fn of(header: &ProposalHeader) -> Self {
        Self {
            height: header.height,
            epoch: header.epoch.0,
            previous: header.previous.0,
            below: header.below.0,
            timestamp_ms: header.timestamp_ms,
            sealer: header.sealer,
            count: header.transactions.len() as u64,
            list: merkle::root(&header.transactions).0,
        }
    }

    /// What [`ProposalHeader::below`] of the next height is when this becomes a block.
    pub fn contents(&self, domain: &Domain) -> B256 {
        contents(domain, [self.height, self.timestamp_ms, u64::from(self.sealer)], self.list.into())
    }

    /// Names the proposal. The view is no part of it: a later view proposes the same again.
    pub fn digest(&self, domain: &Domain) -> B256 {
        DigestWriter::new(domain, "proposal")
            .number(self.height)
            .hash(self.epoch.into())
            .hash(self.previous.into())
            .hash(self.below.into())
            .number(self.timestamp_ms)
            .number(u64::from(self.sealer))
            .number(self.count)
            .hash(self.list.into())
            .finish()
    }
}

/// What [`ProposalHeader::below`] of the next height is above a block.
pub fn contents_of(domain: &Domain, header: &BlockHeader) -> B256 {
    contents(domain, [header.number, header.timestamp_ms, header.sealer], header.transactions_root)
}

fn contents(domain: &Domain, numbers: [u64; 3], list: B256) -> B256 {
    let writer = DigestWriter::new(domain, "contents");
    numbers.into_iter().fold(writer, DigestWriter::number).hash(list).finish()
}

/// Proof that a quorum prepared a proposal in one view.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Certificate {
    pub brief: Brief,
    pub view: u64,
    /// Signers with the kind of their statement: the leader's is [`VoteKind::Propose`].
    pub signers: Vec<(u32, VoteKind, Signature)>,
}

/// A final block of the epoch, proven by its header and a quorum of signatures.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Stable {
    /// RLP of the header.
    pub header: Vec<u8>,
    pub signatures: Vec<BlockSignature>,
}

/// "I vote for nothing below view `to_view` any more; this is what I know."
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ViewChange {
    pub epoch: Hash,
    pub to_view: u64,
    pub sealer: u32,
    /// The sender's last final block; none when the epoch has none yet.
    pub stable: Option<Stable>,
    /// What the sender sent commits for above it, by height.
    pub certificates: Vec<Certificate>,
    /// Sealers that the sender waited for in vain when they led, ascending.
    pub suspects: Vec<u32>,
    pub signature: Signature,
}

impl ViewChange {
    pub fn statement(&self, domain: &Domain) -> B256 {
        let mut writer = DigestWriter::new(domain, "view-change").hash(self.epoch.into()).number(self.to_view);
        writer = match &self.stable {
            Some(stable) => writer.number(1).hash(millrace_base::keccak256(&stable.header)),
            None => writer.number(0),
        };
        writer = writer.number(self.certificates.len() as u64);
        for certificate in &self.certificates {
            writer = writer.number(certificate.view).hash(certificate.brief.digest(domain));
        }
        writer = writer.number(self.suspects.len() as u64);
        self.suspects.iter().fold(writer, |writer, suspect| writer.number(u64::from(*suspect))).finish()
    }
}

/// The view changes of a quorum, chosen by the sealer whose turn the view is. What is proposed again follows from them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct NewView {
    pub epoch: Hash,
    pub view: u64,
    pub changes: Vec<ViewChange>,
    pub signature: Signature,
}

impl NewView {
    pub fn statement(&self, domain: &Domain) -> B256 {
        let mut writer = DigestWriter::new(domain, "new-view").hash(self.epoch.into()).number(self.view);
        writer = writer.number(self.changes.len() as u64);
        let add = |writer: DigestWriter, change: &ViewChange| {
            // The bytes are covered too: whoever passes it on must not be able to break a certificate inside it.
            let bytes = millrace_base::keccak256(wire::encode(change));
            writer.number(u64::from(change.sealer)).hash(change.statement(domain)).hash(bytes)
        };
        self.changes.iter().fold(writer, add).finish()
    }
}

/// How far a height has got at the sender of a [`Status`].
pub mod progress {
    /// No proposal.
    pub const NOTHING: u8 = 0;
    /// Has the proposal.
    pub const PROPOSED: u8 = 1;
    /// Knows it to be ordered.
    pub const ORDERED: u8 = 2;
}

/// The heartbeat. Unsigned: nothing but repair and status queries rests on it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Status {
    pub epoch: Hash,
    /// View whose start the sender has seen proven.
    pub view: u64,
    pub to_view: u64,
    pub final_height: u64,
    pub committed: u64,
    /// [`progress`] of the heights above `final_height`.
    pub have: Vec<u8>,
}

/// Everything that travels.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Message {
    Propose(Vote, Content),
    Vote(Vote),
    /// Votes of several sealers for the same, passed on: a commit certificate or the signatures of a final block.
    Votes(Vec<Vote>),
    ViewChange(ViewChange),
    NewView(NewView),
    /// Asks for the content of a proposal.
    Fetch(u64, Hash),
    Content(Content),
    Status(Status),
    /// Sealers that the sender has no session with any more; itself when it is about to stop. Unsigned: no vote rests on it.
    Gone(Hash, Vec<u32>),
    /// "I lead this height (the second number) in this view (the first) and shall propose nothing there." Unsigned, as it speaks of its
    /// sender alone.
    Pass(Hash, u64, u64),
}

impl Message {
    pub fn encode(&self) -> Bytes {
        wire::encode(&(WIRE_VERSION, self)).into()
    }

    /// # Errors
    /// In words, for the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The version is the first byte, so that a frame of another version is named as such and not as garbage.
        match bytes.first() {
            Some(&WIRE_VERSION) => {}
            Some(other) => return Err(format!("consensus message of version {other}; this node speaks version {WIRE_VERSION}")),
            None => return Err("empty consensus message".into()),
        }
        let decoded = wire::decode_within::<MAX_DECODED_BYTES, (u8, Self)>(bytes);
        decoded.map(|(_, message)| message).map_err(|error| format!("consensus message: {error}"))
    }
}

/// The header inside a [`Stable`], if it is one.
pub fn stable_header(stable: &Stable) -> Option<BlockHeader> {
    BlockHeader::decode_rlp(&stable.header).ok()
}
