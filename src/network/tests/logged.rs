//! What an operator reads when a peer is refused.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use millrace_base::KeyPair;
use parking_lot::Mutex;

use super::fixture::{Chain, Leaf, eventually};

/// The log of this process; other tests write to it as well.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn of_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(move || writer.clone()).init();
            log
        })
    }

    fn line_with(&self, parts: &[&str]) -> Option<String> {
        String::from_utf8_lossy(&self.0.lock()).lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    }
}

#[test]
fn a_refused_certificate_is_logged_with_address_subject_issuer_reason_and_remedy() {
    let log = Log::of_process();
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    let leaf = Leaf { is_expired: true, name: "ended-node".into(), ..Leaf::of(&key.node_id()) };
    let _ended = chain.start_with(&key, |config| {
        config.identity.tls = chain.issue(&leaf);
        config.peers = vec![node.address()];
    });
    let find = || log.line_with(&["a peer's connection is refused: the other node's certificate has ended", "ended-node"]);
    eventually("the refusal is logged", || find().is_some());
    let line = find().unwrap();
    for part in
        ["address=127.0.0.1:", "subject \"CN=ended-node, O=agency-a\"", "issuer \"CN=agency", "valid from", "what to do: have its agency"]
    {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    eventually("the node itself says it at its start", || {
        log.line_with(&["this node's P2P certificate has ended", "ended-node"]).is_some()
    });
    eventually("and why peers refuse it", || {
        log.line_with(&["cannot connect to a peer: the other node says that this node's certificate is not valid now"]).is_some()
    });
}
