//! `tidy`: checks what the compiler cannot: the arrows between crates and the rules of STYLE.md. A command and, by its test, part of
//! `cargo test`.
//!
//! Each finding is `file:line: rule: what to do`. Remarks are shown and do not fail; errors make the exit code 1.

mod functions;
mod layers;
mod manifest;
mod markdown;
mod source;
mod style;
mod text;
mod tree;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::tree::Tree;

/// Whether a finding fails the check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// A rule is broken.
    Error,
    /// A soft limit is passed.
    Remark,
}

/// Something that breaks a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// Errors sort first.
    pub weight: Weight,
    /// Path from the root of the repository.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Short name of the rule.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub advice: String,
}

impl Finding {
    /// A broken rule.
    pub fn error(file: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { weight: Weight::Error, file: file.to_owned(), line, rule, advice: advice.into() }
    }

    /// A passed soft limit.
    pub fn remark(file: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { weight: Weight::Remark, ..Self::error(file, line, rule, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.weight == Weight::Remark { "remark: " } else { "" };
        write!(f, "{}:{}: {mark}{}: {}", self.file, self.line, self.rule, self.advice)
    }
}

/// Checks a repository; errors come first. The error text says why it could not be read.
fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let tree = Tree::open(root)?;
    let mut findings = layers::check(&tree)?;
    findings.extend(style::check(&tree));
    findings.extend(manifest::check(&tree));
    findings.extend(text::check(&tree));
    findings.extend(markdown::check(&tree));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// The repository that this program was built from, unless an argument names another.
fn root() -> PathBuf {
    match std::env::args_os().nth(1) {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
    }
}

fn main() -> ExitCode {
    let findings = match check(&root()) {
        Ok(findings) => findings,
        Err(why) => {
            eprintln!("tidy: {why}");
            return ExitCode::from(2);
        }
    };
    let mut out = String::new();
    for finding in &findings {
        out.push_str(&format!("{finding}\n"));
    }
    let errors = findings.iter().filter(|finding| finding.weight == Weight::Error).count();
    out.push_str(&format!("tidy: {errors} errors, {} remarks\n", findings.len() - errors));
    // A reader that went away early is no fault: the exit code says what matters.
    let _ = std::io::stdout().write_all(out.as_bytes());
    ExitCode::from(u8::from(errors > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let findings = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
        let errors: Vec<String> = findings.iter().filter(|finding| finding.weight == Weight::Error).map(Finding::to_string).collect();
        assert!(errors.is_empty(), "{} errors:\n{}", errors.len(), errors.join("\n"));
    }
}
