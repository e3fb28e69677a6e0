//! Key files: node keys (secp256k1) as PEM, as operators of 2.x know them.
//!
//! Invariants: a private key is written with mode 0600 and synced; one that others can read is refused unless the operator allows it;
//! messages never contain key material. Called by the configuration, `chain build` and `tx send`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use k256::SecretKey;
use k256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{KeyPair, NodeId};

/// Largest key file, in bytes: a PEM key with its curve parameters has below 1 KB.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// Who may be able to read a key file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only the owner; anything else is refused.
    OwnerOnly,
    /// The operator allowed any mode (`millrace.allow_readable_keys`).
    AnyMode,
}

/// Reads a node's identity: `node.key` as PKCS#8 (`PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`), checked against `node.nodeid` beside it.
pub fn read_node_key(path: &Path, access: Access) -> Result<KeyPair, Fault> {
    let key = read_key(path, access)?;
    let id_file = path.with_extension("nodeid");
    match fs::read_to_string(&id_file) {
        Ok(text) if NodeId::parse(text.trim()).is_ok_and(|id| id == key.node_id()) => Ok(key),
        Ok(_) => Err(Fault::new(
            FaultKind::Config,
            format!("{} does not belong to {}: the key's node id is {}", id_file.display(), path.display(), key.node_id()),
            "one of the two files is damaged or from another node; restore both from this node's backup",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(key),
        Err(error) => {
            Err(Fault::new(FaultKind::Config, format!("cannot read {}: {error}", id_file.display()), "correct the file's permissions"))
        }
    }
}

/// Reads a private key of secp256k1 from a PEM file.
pub fn read_key(path: &Path, access: Access) -> Result<KeyPair, Fault> {
    let unreadable = |error: io::Error| {
        let what = format!("cannot read the key {}: {error}", path.display());
        Fault::new(FaultKind::Config, what, "restore the file from a backup, correct its owner, or correct network_security in config.ini")
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    let mode = metadata.mode() & 0o777;
    if access == Access::OwnerOnly && mode & 0o077 != 0 {
        return Err(Fault::new(
            FaultKind::Config,
            format!("the private key {} can be read by others (mode {mode:04o})", path.display()),
            format!("run `chmod 600 {}`, or set allow_readable_keys=true in section [millrace] of config.ini", path.display()),
        ));
    }
    if metadata.len() > MAX_KEY_FILE_BYTES {
        return Err(damaged(path, "it is too large"));
    }
    let text = fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| damaged(path, "it is not text"))?;
    parse_key(&text).map_err(|reason| damaged(path, reason))
}

fn damaged(path: &Path, reason: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("the private key {} cannot be used: {reason}", path.display()),
        "restore it from a backup; it must be a PEM file with a secp256k1 key (PRIVATE KEY or EC PRIVATE KEY). A new key makes a new node: \
         the group's sealers would have to admit it",
    )
}

fn parse_key(text: &str) -> Result<KeyPair, &'static str> {
    let secret = if let Some(block) = pem_block(text, "PRIVATE KEY") {
        SecretKey::from_pkcs8_pem(&block).map_err(|_| "its PKCS#8 content is damaged or not a secp256k1 key")?
    } else if let Some(block) = pem_block(text, "EC PRIVATE KEY") {
        SecretKey::from_sec1_pem(&block).map_err(|_| "its SEC1 content is damaged or not a secp256k1 key")?
    } else if text.contains("ENCRYPTED") {
        return Err("it is encrypted, which this version does not support");
    } else {
        return Err("it has no PEM block of a private key");
    };
    KeyPair::from_secret(&secret.to_bytes().into()).map_err(|_| "its number is not a key of the curve")
}

/// The PEM block with this label, without what stands around it (`EC PARAMETERS` of OpenSSL).
fn pem_block(text: &str, label: &str) -> Option<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let start = text.find(&begin)?;
    let length = text[start..].find(&end)? + end.len();
    Some(format!("{}\n", text[start..start + length].replace('\r', "")))
}

/// The key as PKCS#8 PEM.
pub fn key_to_pem(key: &KeyPair) -> String {
    let secret = SecretKey::from_slice(&key.secret_bytes()).expect("both libraries agree on what a key is");
    secret.to_pkcs8_pem(LineEnding::LF).expect("a key always has a PEM form").to_string()
}

/// Writes a private key that must not exist yet, readable by the owner only.
pub fn write_secret(path: &Path, pem: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SEC1: &str = "-----BEGIN EC PARAMETERS-----\nBgUrgQQACg==\n-----END EC PARAMETERS-----\n";

    fn message(result: Result<KeyPair, Fault>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn written_key_is_read_back_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let key = KeyPair::generate();
        write_secret(&path, &key_to_pem(&key)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_node_key(&path, Access::OwnerOnly).unwrap().node_id(), key.node_id());
        assert!(write_secret(&path, "other").is_err());
    }

    #[test]
    fn key_that_others_can_read_is_refused_unless_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        write_secret(&path, &key_to_pem(&KeyPair::generate())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(message(read_node_key(&path, Access::OwnerOnly)).contains("chmod 600"));
        assert!(read_node_key(&path, Access::AnyMode).is_ok());
    }

    #[test]
    fn key_and_node_id_must_belong_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let key = KeyPair::generate();
        write_secret(&path, &key_to_pem(&key)).unwrap();
        fs::write(path.with_extension("nodeid"), format!("{}\n", key.node_id())).unwrap();
        assert!(read_node_key(&path, Access::OwnerOnly).is_ok());
        fs::write(path.with_extension("nodeid"), KeyPair::generate().node_id().to_string()).unwrap();
        assert!(message(read_node_key(&path, Access::OwnerOnly)).contains("does not belong"));
    }

    #[test]
    fn damaged_keys_say_what_to_do() {
        let pem = key_to_pem(&KeyPair::generate());
        for text in ["", "hello", &pem.replace('M', "N"), &pem[..pem.len() / 2], SEC1] {
            let reason = parse_key(text).unwrap_err();
            assert!(damaged(Path::new("node.key"), reason).to_string().contains("restore it from a backup"), "{text}");
        }
    }

    #[test]
    fn sec1_key_behind_curve_parameters_is_read() {
        let key = KeyPair::generate();
        let secret = SecretKey::from_slice(&key.secret_bytes()).unwrap();
        let text = format!("{SEC1}{}", secret.to_sec1_pem(LineEnding::CRLF).unwrap().as_str());
        assert_eq!(parse_key(&text).unwrap().node_id(), key.node_id());
    }
}
