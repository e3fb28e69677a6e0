//! Writing the files of a chain: keys for their owner only, whole files or none, faults that say what to do.
//!
//! Invariant: what replaces a file is complete and on the disk before it takes the name. Called by everything that makes or changes
//! directories of a chain.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};

use super::Program;
use crate::certificates::Credential;
use crate::keys;

/// A refusal of what was asked for.
pub fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Operation, what, remedy)
}

/// The fault of a file that cannot be written.
pub fn cannot_write(path: &Path) -> impl Fn(io::Error) -> Fault {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => FaultKind::Disk,
            _ => FaultKind::Operation,
        };
        Fault::new(
            kind,
            format!("cannot write {}: {error}", path.display()),
            "check free space and permissions, or name another output directory",
        )
    }
}

/// Puts the program, or a link to it, beside nodes.
pub fn place_program(program: &Program, target: &Path) -> Result<(), Fault> {
    match program {
        Program::Copy(source) => fs::copy(source, target).map(drop),
        Program::Link(source) => symlink(source, target),
    }
    .map_err(cannot_write(target))
}

/// Makes a directory that only its owner can look into.
pub fn private_directory(path: &Path) -> Result<(), Fault> {
    DirBuilder::new().mode(0o700).create(path).map_err(cannot_write(path))
}

/// Writes `<name>.crt` and `<name>.key`, neither of which may exist.
pub fn write_credential(directory: &Path, name: &str, credential: &Credential) -> Result<(), Fault> {
    write_text(&directory.join(format!("{name}.crt")), &credential.certificate)?;
    write_secret(&directory.join(format!("{name}.key")), &credential.key)
}

/// Writes a private key that must not exist yet, readable by the owner only.
pub fn write_secret(path: &Path, pem: &str) -> Result<(), Fault> {
    keys::write_secret(path, pem).map_err(cannot_write(path))
}

/// Writes a text.
pub fn write_text(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(cannot_write(path))
}

/// Writes a script that can be run.
pub fn write_script(path: &Path, text: &str) -> Result<(), Fault> {
    write_text(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(cannot_write(path))
}

/// Writes a file and waits for the disk; its mode is that of any text.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(cannot_write(path))
}

/// Makes a renaming in the file's directory last.
pub fn sync_directory(file: &Path) -> Result<(), Fault> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(cannot_write(directory))
}

/// What a replaced file is kept as: `p2p.crt.old` beside `p2p.crt`.
pub fn old_name(path: &Path) -> PathBuf {
    with_suffix(path, ".old")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that takes the place of another; keys keep their mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// Everybody may read it.
    Public(&'a str),
    /// A private key.
    Secret(&'a str),
}

/// Replaces files, each kept as `.old` (an older `.old` is lost). All new texts are on the disk before the first takes its place, so
/// a full disk changes nothing. A file whose text would stay the same is left alone.
pub fn replace_all(files: &[(PathBuf, Content<'_>)]) -> Result<(), Fault> {
    let next = |path: &Path| with_suffix(path, ".next");
    let mut changed = Vec::new();
    for (path, content) in files {
        let (text, mode) = match content {
            Content::Public(text) => (text, 0o644),
            Content::Secret(text) => (text, 0o600),
        };
        if fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
            continue;
        }
        let _ = fs::remove_file(next(path));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(next(path))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(cannot_write(path))?;
        changed.push(path);
    }
    for path in changed {
        // A copy rather than a renaming: at every moment there is a file of this name.
        match fs::copy(path, old_name(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_write(&old_name(path))(error)),
            _ => fs::rename(next(path), path).map_err(cannot_write(path))?,
        }
        sync_directory(path)?;
    }
    Ok(())
}
