//! The INI files of 2.x: sections, `key=value`, comments from `;` or `#` at the start of a line; no quoting and no escapes.
//!
//! Every entry keeps its line, so each complaint can name it. A key or section that stands twice is an error, as it is for 2.x nodes.
//! Called by the typed readers in [`super`]; knows nothing about what keys mean.

use std::fs;
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};

/// Largest configuration file, in bytes: a genesis of 1,000 sealers has 150 KB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One `key=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Name of the section it stands in.
    pub section: String,
    /// The key, as written.
    pub key: String,
    /// The value without surrounding white space.
    pub value: String,
    /// Line in the file, from 1.
    pub line: usize,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub struct IniFile {
    path: PathBuf,
    sections: Vec<(String, usize)>,
    entries: Vec<Entry>,
}

impl IniFile {
    /// Reads and parses a file of at most 1 MiB.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let unreadable = |error: std::io::Error| {
            Fault::new(
                FaultKind::Config,
                format!("cannot read {}: {error}", path.display()),
                "name an existing, readable file; `millrace chain build` makes complete node directories",
            )
        };
        let size = fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            return Err(Fault::new(
                FaultKind::Config,
                format!("{} has {size} bytes; a configuration file has at most {MAX_FILE_BYTES}", path.display()),
                "check that the right file was named",
            ));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            Fault::new(
                FaultKind::Config,
                format!("{}:{line}: not UTF-8 text", path.display()),
                "the file is damaged or not a configuration file; restore it from a copy",
            )
        })?;
        Self::parse(path, &text)
    }

    /// Parses text that stands for the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Fault> {
        let mut file = Self { path: path.to_owned(), sections: Vec::new(), entries: Vec::new() };
        for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let (line, content) = (index + 1, raw.trim());
            if content.is_empty() || content.starts_with([';', '#']) {
                continue;
            }
            match content.strip_prefix('[') {
                Some(rest) => file.open_section(rest, line)?,
                None => file.add_entry(content, line)?,
            }
        }
        Ok(file)
    }

    fn open_section(&mut self, rest: &str, line: usize) -> Result<(), Fault> {
        let Some(name) = rest.strip_suffix(']').map(str::trim) else {
            return Err(self.fault_at(line, "a section's name ends with ]", "write it as [name] on a line of its own"));
        };
        if let Some((_, first)) = self.sections.iter().find(|(known, _)| known == name) {
            let what = format!("section [{name}] stands in line {first} already");
            return Err(self.fault_at(line, what, "put all its keys under one heading"));
        }
        self.sections.push((name.to_owned(), line));
        Ok(())
    }

    fn add_entry(&mut self, content: &str, line: usize) -> Result<(), Fault> {
        let Some((key, value)) = content.split_once('=') else {
            return Err(self.fault_at(
                line,
                format!("\"{}\" is neither [section] nor key=value", clip(content)),
                "mend the line or start it with ;",
            ));
        };
        let Some((section, _)) = self.sections.last() else {
            return Err(self.fault_at(line, format!("{} stands before the first [section]", clip(key)), "put it under its section"));
        };
        let (section, key) = (section.clone(), key.trim().to_owned());
        if let Some(first) = self.entries.iter().find(|entry| entry.section == section && entry.key == key) {
            let what = format!("{section}.{key} stands in line {} already", first.line);
            return Err(self.fault_at(line, what, "keep one of the two lines"));
        }
        self.entries.push(Entry { section, key, value: value.trim().to_owned(), line });
        Ok(())
    }

    /// The file's path as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the sections with their lines, in file order.
    pub fn sections(&self) -> &[(String, usize)] {
        &self.sections
    }

    /// All entries in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A fault at a line of this file.
    pub fn fault_at(&self, line: usize, what: impl AsRef<str>, remedy: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Config, format!("{}:{line}: {}", self.path.display(), what.as_ref()), remedy)
    }

    /// A fault of the file as a whole: something is missing.
    pub fn fault(&self, what: impl AsRef<str>, remedy: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Config, format!("{}: {}", self.path.display(), what.as_ref()), remedy)
    }
}

/// At most 60 characters of text from a file, for messages.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
