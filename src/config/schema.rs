//! Which keys exist, what their values look like, and what becomes of them: checked in this one place for every configuration file.
//!
//! After [`Checked::new`] every value in the file has the form its key demands, so the typed readers cannot fail on a value.
//! Three kinds of keys: those that are used, those that are accepted for files of 2.x but have no effect (each gets a note for the
//! log), and values of features that this version lacks (refused: running without them would break what the file promises).

use std::net::IpAddr;
use std::path::Path;

use millrace_base::NodeId;
use millrace_base::fault::Fault;

use super::ini::{Entry, IniFile, clip};
use super::nearest::nearest;

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// `true`, `false`, `1` or `0`.
    Flag,
    /// A decimal number in a range, with what it counts.
    Number {
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
        /// What it counts, for messages.
        unit: &'static str,
    },
    /// A decimal fraction, in thousandths when read.
    Fraction {
        /// Least allowed, in thousandths.
        min_thousandths: u64,
        /// Most allowed, in thousandths.
        max_thousandths: u64,
    },
    /// One of the words this version supports; the others belong to features that are not there yet.
    Choice {
        /// Accepted.
        supported: &'static [&'static str],
        /// Known from 2.x or planned, and refused.
        lacking: &'static [&'static str],
    },
    /// An IPv4 or IPv6 address.
    Ip,
    /// `host:port`.
    HostPort,
    /// 128 hexadecimal digits.
    NodeId,
    /// A client's key: 128 hexadecimal digits, or the 64 of the digest of a key of another kind.
    SdkKey,
}

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It is read.
    Used,
    /// It is checked and has no effect; the text says why.
    None(&'static str),
}

/// One key of a section; a name that ends with `.N` stands for a numbered list.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// What it does.
    pub effect: Effect,
}

/// A section with its keys.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Name in current files.
    pub name: &'static str,
    /// Name in old files, if it had another.
    pub old_name: Option<&'static str>,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.old_name == Some(name)
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| match key.name.strip_suffix('N') {
            Some(prefix) if prefix.ends_with('.') => list_index(name, prefix).is_some(),
            _ => key.name == name,
        })
    }
}

/// The number behind `prefix` (`node.`) in a key of a list; at most six digits.
fn list_index(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A file whose keys and values were checked.
#[derive(Clone, Debug)]
pub struct Checked {
    file: IniFile,
    schema: &'static [Section],
    notes: Vec<String>,
}

impl Checked {
    /// Reads and checks a file.
    pub fn read(path: &Path, schema: &'static [Section]) -> Result<Self, Fault> {
        Self::new(IniFile::read(path)?, schema)
    }

    /// Checks a parsed file.
    pub fn new(file: IniFile, schema: &'static [Section]) -> Result<Self, Fault> {
        for (name, line) in file.sections() {
            if !schema.iter().any(|section| section.is_called(name)) {
                let remedy = match nearest(name, schema.iter().map(|section| section.name)) {
                    Some(known) => format!("did you mean [{known}]? Otherwise remove the section"),
                    None => {
                        format!("remove it; known sections: {}", schema.iter().map(|section| section.name).collect::<Vec<_>>().join(", "))
                    }
                };
                return Err(file.fault_at(*line, format!("unknown section [{}]", clip(name)), remedy));
            }
        }
        let mut notes = Vec::new();
        for entry in file.entries() {
            let section = schema.iter().find(|section| section.is_called(&entry.section)).expect("sections were checked above");
            let key = section.key(&entry.key).ok_or_else(|| unknown_key(&file, schema, section, entry))?;
            check_form(&file, section, key, entry)?;
            if let Effect::None(why) = key.effect {
                notes.push(format!("{}:{}: {}.{} has no effect: {why}", file.path().display(), entry.line, section.name, entry.key));
            }
        }
        Ok(Self { file, schema, notes })
    }

    /// One line for each key that is there but has no effect.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        let known = self.schema.iter().find(|known| known.name == section).expect("readers ask for sections of the schema");
        assert!(known.keys.iter().any(|candidate| candidate.name == key), "readers ask for keys of the schema: {section}.{key}");
        self.file.entries().iter().find(|entry| known.is_called(&entry.section) && entry.key == key)
    }

    /// The text of a key; `None` when absent or empty.
    pub fn text(&self, section: &str, key: &str) -> Option<&str> {
        self.entry(section, key).map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    }

    /// A number, within its range.
    pub fn number(&self, section: &str, key: &str) -> Option<u64> {
        self.text(section, key).map(|text| text.parse().expect("the schema check parsed it"))
    }

    /// A flag.
    pub fn flag(&self, section: &str, key: &str) -> Option<bool> {
        self.text(section, key).map(|text| parse_flag(text).expect("the schema check parsed it"))
    }

    /// A fraction in thousandths.
    pub fn thousandths(&self, section: &str, key: &str) -> Option<u64> {
        self.text(section, key).map(|text| parse_thousandths(text).expect("the schema check parsed it"))
    }

    /// An IP address.
    pub fn ip(&self, section: &str, key: &str) -> Option<IpAddr> {
        self.text(section, key).map(|text| text.parse().expect("the schema check parsed it"))
    }

    /// The values of a numbered list (`node.N`, named by its prefix `node.`), by number.
    pub fn list(&self, section: &str, prefix: &str) -> Vec<&str> {
        let known = self.schema.iter().find(|known| known.name == section).expect("readers ask for sections of the schema");
        let entries = self.file.entries().iter().filter(|entry| known.is_called(&entry.section));
        let mut found: Vec<_> = entries.filter_map(|entry| Some((list_index(&entry.key, prefix)?, entry.value.as_str()))).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// A fault at a key, or of the file when the key is absent.
    pub fn fault(&self, section: &str, key: &str, what: impl AsRef<str>, remedy: impl Into<String>) -> Fault {
        match self.entry(section, key) {
            Some(entry) => self.file.fault_at(entry.line, what, remedy),
            None => self.file.fault(what, remedy),
        }
    }
}

fn unknown_key(file: &IniFile, schema: &'static [Section], section: &Section, entry: &Entry) -> Fault {
    let what = format!("unknown key \"{}\" in section [{}]", clip(&entry.key), entry.section);
    let elsewhere = schema.iter().find(|other| other.key(&entry.key).is_some());
    let remedy = match (nearest(&entry.key, section.keys.iter().map(|key| key.name)), elsewhere) {
        (_, Some(other)) => format!("it belongs to section [{}]", other.name),
        (Some(known), None) => format!("did you mean \"{known}\"? Otherwise remove the line"),
        (None, None) => format!("remove the line; known keys: {}", section.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
    };
    file.fault_at(entry.line, what, remedy)
}

fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A plain decimal fraction of at most nine digits before and any number behind the point, cut to thousandths.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + part.parse::<u64>().ok()?)
}

fn check_form(file: &IniFile, section: &Section, key: &Key, entry: &Entry) -> Result<(), Fault> {
    let value = entry.value.as_str();
    // An empty value means "not set", as in the templates of 2.x.
    if value.is_empty() {
        return Ok(());
    }
    let name = format!("{}.{}", section.name, entry.key);
    let bad = |expected: String| file.fault_at(entry.line, format!("{name}={} is not allowed", clip(value)), format!("use {expected}"));
    match key.form {
        Form::Text => Ok(()),
        Form::Flag => parse_flag(value).map(drop).ok_or_else(|| bad("true or false".into())),
        Form::Number { min, max, unit } => match value.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ => Err(bad(format!("a number from {min} to {max} ({unit})"))),
        },
        Form::Fraction { min_thousandths: min, max_thousandths: max } => match parse_thousandths(value) {
            Some(number) if (min..=max).contains(&number) => Ok(()),
            _ => Err(bad(format!("a fraction from {}.{:03} to {}.{:03}", min / 1000, min % 1000, max / 1000, max % 1000))),
        },
        Form::Choice { supported, .. } if supported.contains(&value) => Ok(()),
        Form::Choice { supported, lacking } if lacking.contains(&value) => {
            let what = format!("{name}={value} is not supported by this version of Millrace");
            Err(file.fault_at(entry.line, what, format!("supported: {}", supported.join(", "))))
        }
        Form::Choice { supported, .. } => Err(bad(format!("one of: {}", supported.join(", ")))),
        Form::Ip => value.parse::<IpAddr>().map(drop).map_err(|_| bad("an IPv4 or IPv6 address, for example 127.0.0.1".into())),
        Form::HostPort => match value.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
            _ => Err(bad("host:port, for example 127.0.0.1:30300".into())),
        },
        Form::SdkKey => {
            let fits = matches!(value.len(), 64 | 128) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then_some(()).ok_or_else(|| {
                bad("a client's key: 128 hexadecimal digits, or for RSA the 64 of the SHA-256 of its public key (see docs/clients.md)"
                    .into())
            })
        }
        Form::NodeId => NodeId::parse(value).map(drop).map_err(|_| bad("a node id: 128 hexadecimal digits, as in conf/node.nodeid".into())),
    }
}
