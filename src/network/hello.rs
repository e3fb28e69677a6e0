//! The proof of a node id: a signature by the node key over a digest that binds it to one TLS session and one side of it.
//!
//! Invariant: a hello is worth nothing in any other session (the digest contains a value that both ends derive from the session's keys,
//! RFC 5705 and RFC 8446 7.5), in the other direction (it contains the side), or for another chain.

use bincode::{Decode, Encode};
use millrace_base::{B256, ChainId, KeyPair, NodeId, Signature, keccak256, wire};

use crate::ending::{EndReason, Ending};
use crate::session::Direction;

/// Version of this protocol.
pub(crate) const VERSION: u32 = 1;

/// Label of the value that TLS derives for us.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-millrace-hello";

const DOMAIN: &[u8] = b"millrace peer hello";

/// A number drawn when a process starts: tells two processes with one node id apart.
pub(crate) type Instance = [u8; 16];

/// What a node says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// In front of everything else, so that any other version is recognised as one.
    pub version: u32,
    pub chain_id: ChainId,
    pub node_id: NodeId,
    pub instance: Instance,
}

#[derive(Encode, Decode)]
struct Signed {
    /// A [`Hello`]: four bytes of version, then the rest encoded.
    body: Vec<u8>,
    signature: Signature,
}

/// One side of one TLS session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    /// What TLS derived for [`EXPORTER_LABEL`].
    pub exported: [u8; 32],
    /// The direction of the session as its signer sees it.
    pub side: Direction,
}

impl Binding {
    fn digest(&self, body: &[u8]) -> B256 {
        let side = match self.side {
            Direction::Outgoing => 1,
            Direction::Incoming => 2,
        };
        keccak256([DOMAIN, &self.exported, &[side], body].concat())
    }
}

impl Hello {
    /// Signs for one side of a session.
    pub fn sign(&self, key: &KeyPair, binding: &Binding) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&wire::encode(&(self.chain_id, self.node_id, self.instance)));
        let signature = key.sign(binding.digest(&body));
        wire::encode(&Signed { body, signature })
    }

    /// Reads and checks what a peer sent; `binding` is of the peer's side, `certified` the id in its certificate.
    pub fn verify(bytes: &[u8], binding: &Binding, certified: &NodeId, chain_id: ChainId) -> Result<Self, Ending> {
        let malformed = || Ending::new(EndReason::Malformed, "the first message cannot be decoded");
        let signed: Signed = wire::decode(bytes).map_err(|_| malformed())?;
        let (version, rest) = signed.body.split_first_chunk().ok_or_else(malformed)?;
        let version = u32::from_be_bytes(*version);
        if version != VERSION {
            let detail = format!("the other node speaks version {version} of the protocol between nodes, this one {VERSION}");
            return Err(Ending::new(EndReason::Version, detail));
        }
        let (chain_of, node_id, instance) = wire::decode(rest).map_err(|_| malformed())?;
        let hello = Self { version, chain_id: chain_of, node_id, instance };
        if hello.chain_id != chain_id {
            let detail = format!("the other node is of chain {}, this one of chain {chain_id}", hello.chain_id);
            return Err(Ending::new(EndReason::OtherChain, detail));
        }
        if hello.node_id != *certified {
            let detail = format!("it says it is node {}, and its certificate names {certified}", hello.node_id);
            return Err(Ending::new(EndReason::Unproven, detail));
        }
        if !hello.node_id.verify(binding.digest(&signed.body), &signed.signature) {
            let detail = "its signature over this session is not by the key of the node id it names";
            return Err(Ending::new(EndReason::Unproven, detail));
        }
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (KeyPair, Hello, Binding) {
        let key = KeyPair::generate();
        let hello = Hello { version: VERSION, chain_id: 1, node_id: key.node_id(), instance: [7; 16] };
        (key, hello, Binding { exported: [9; 32], side: Direction::Outgoing })
    }

    fn reason(result: Result<Hello, Ending>) -> EndReason {
        result.unwrap_err().reason
    }

    #[test]
    fn hello_holds_in_its_own_session_and_side_only() {
        let (key, hello, binding) = fixture();
        let bytes = hello.sign(&key, &binding);
        assert_eq!(Hello::verify(&bytes, &binding, &key.node_id(), 1).unwrap(), hello);
        let other_session = Binding { exported: [8; 32], ..binding };
        assert_eq!(reason(Hello::verify(&bytes, &other_session, &key.node_id(), 1)), EndReason::Unproven);
        let reflected = Binding { side: Direction::Incoming, ..binding };
        assert_eq!(reason(Hello::verify(&bytes, &reflected, &key.node_id(), 1)), EndReason::Unproven);
    }

    #[test]
    fn other_chains_ids_keys_and_versions_are_refused() {
        let (key, hello, binding) = fixture();
        let id = key.node_id();
        assert_eq!(reason(Hello::verify(&hello.sign(&key, &binding), &binding, &id, 2)), EndReason::OtherChain);
        let stranger = KeyPair::generate();
        assert_eq!(reason(Hello::verify(&hello.sign(&stranger, &binding), &binding, &id, 1)), EndReason::Unproven);
        assert_eq!(reason(Hello::verify(&hello.sign(&key, &binding), &binding, &stranger.node_id(), 1)), EndReason::Unproven);
        let future = Hello { version: 2, ..hello };
        assert_eq!(reason(Hello::verify(&future.sign(&key, &binding), &binding, &id, 1)), EndReason::Version);
        assert_eq!(reason(Hello::verify(&[1, 2, 3], &binding, &id, 1)), EndReason::Malformed);
    }
}
