//! Changes single keys in an INI file and leaves every other line, comments included, as it is.
//!
//! Invariant: a file is replaced as a whole by renaming, so a reader or a crash meets the old or the new text. Called by the commands
//! that add nodes to a chain or move a network to other ports.

use std::fs;
use std::path::{Path, PathBuf};

use millrace_base::fault::Fault;

use super::files::{cannot_write, sync_directory, write_synced};
use crate::config::ini::IniFile;

/// The text of one INI file. See the module.
pub struct IniText {
    path: PathBuf,
    present: Option<String>,
    lines: Vec<String>,
}

impl IniText {
    /// Reads a file, which must be well-formed.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        IniFile::read(path)?;
        let text = fs::read_to_string(path).map_err(cannot_write(path))?;
        Ok(Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect(), present: Some(text) })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the text to another place: [`Self::save`] writes it there.
    pub fn at(self, path: &Path) -> Self {
        Self { path: path.to_owned(), present: None, ..self }
    }

    /// Sets a key; it and its section are added where they are missing.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let line = format!("    {key}={value}");
        let (start, end) = self.section(section);
        match (start..end).find(|index| key_of(&self.lines[*index]) == Some(key)) {
            Some(index) => self.lines[index] = line,
            None => self.lines.insert(end, line),
        }
    }

    /// Makes `values` the numbered list with this prefix (`node.`), from 0 on, where the first of it stood.
    pub fn set_list(&mut self, section: &str, prefix: &str, values: &[String]) {
        let (start, end) = self.section(section);
        let is_entry = |line: &String| key_of(line).is_some_and(|key| key.starts_with(prefix));
        let place = (start..end).find(|index| is_entry(&self.lines[*index])).unwrap_or(end);
        let after = self.lines.split_off(end);
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            index <= start || !is_entry(line)
        });
        let entries = values.iter().enumerate().map(|(number, value)| format!("    {prefix}{number}={value}"));
        self.lines.splice(place..place, entries);
        self.lines.extend(after);
    }

    /// Replaces the file, unless it says the same already.
    pub fn save(&self) -> Result<(), Fault> {
        let next = self.path.with_extension("ini.next");
        let text = self.lines.join("\n") + "\n";
        if self.present.as_ref() == Some(&text) {
            return Ok(());
        }
        write_synced(&next, text.as_bytes())?;
        fs::rename(&next, &self.path).map_err(cannot_write(&self.path))?;
        sync_directory(&self.path)
    }

    /// Where a section's entries begin and where the next one belongs: behind its last line that is not empty.
    fn section(&mut self, name: &str) -> (usize, usize) {
        let header = |line: &str| line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim).map(str::to_owned);
        let Some(found) = self.lines.iter().position(|line| header(line).as_deref() == Some(name)) else {
            self.lines.push(format!("[{name}]"));
            return (self.lines.len(), self.lines.len());
        };
        let start = found + 1;
        let next = self.lines[start..].iter().position(|line| header(line).is_some()).map_or(self.lines.len(), |offset| start + offset);
        let blank = self.lines[start..next].iter().rev().take_while(|line| line.trim().is_empty()).count();
        (start, next - blank)
    }
}

/// The key of a line that sets one.
fn key_of(line: &str) -> Option<&str> {
    let content = line.trim();
    match content.starts_with([';', '#', '[']) {
        true => None,
        false => content.split_once('=').map(|(key, _)| key.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "; top\n[p2p]\n    listen_port=1\n    ; nodes\n    node.0=a:1\n    node.1=b:1\n    ;node.2=c:1\n\n[log]\n level=info\n";

    fn edited(change: &dyn Fn(&mut IniText)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.ini");
        fs::write(&path, TEXT).unwrap();
        let mut text = IniText::read(&path).unwrap();
        change(&mut text);
        text.save().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn only_the_named_keys_change() {
        assert_eq!(edited(&|_| {}), TEXT);
        assert_eq!(edited(&|text| text.set("p2p", "listen_port", "22")), TEXT.replace("listen_port=1", "listen_port=22"));
        assert_eq!(edited(&|text| text.set("p2p", "ip", "x")), TEXT.replace(";node.2=c:1\n", ";node.2=c:1\n    ip=x\n"));
        assert_eq!(edited(&|text| text.set("new", "a", "b")), format!("{TEXT}[new]\n    a=b\n"));
    }

    #[test]
    fn lists_are_replaced_where_they_stood() {
        let two = edited(&|text| text.set_list("p2p", "node.", &["x:1".into(), "y:2".into(), "z:3".into()]));
        let lists = "    node.0=x:1\n    node.1=y:2\n    node.2=z:3\n";
        assert_eq!(two, TEXT.replace("    node.0=a:1\n    node.1=b:1\n", lists));
        assert_eq!(edited(&|text| text.set_list("p2p", "node.", &[])), TEXT.replace("    node.0=a:1\n    node.1=b:1\n", ""));
    }
}
