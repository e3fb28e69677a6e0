//! The files of the repository: what git tracks, and what it would track.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Larger files are data, not text that somebody wrote.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// A repository.
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
    /// Paths from the root, sorted. Deleted files are left out.
    pub paths: Vec<String>,
}

impl Tree {
    /// Asks git for the files; new files count unless they are ignored, so that a check before a commit sees them.
    pub fn open(root: &Path) -> Result<Self, String> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("{} is no git repository: {}", root.display(), String::from_utf8_lossy(&output.stderr)));
        }
        let names = String::from_utf8(output.stdout).map_err(|_| "a path is not UTF-8".to_owned())?;
        let mut paths: Vec<String> = names.split('\0').filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
        paths.sort();
        paths.dedup();
        Ok(Self { root: root.to_owned(), paths })
    }

    /// Content of a file; `None` for binary and for very large files.
    pub fn read(&self, path: &str) -> Option<String> {
        let full = self.root.join(path);
        let is_small = full.metadata().is_ok_and(|metadata| metadata.len() <= MAX_TEXT_BYTES);
        is_small.then(|| std::fs::read_to_string(full).ok()).flatten()
    }

    /// Whether something lies at a path.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Paths that end so.
    pub fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a str> {
        self.paths.iter().map(String::as_str).filter(move |path| path.ends_with(suffix))
    }
}
