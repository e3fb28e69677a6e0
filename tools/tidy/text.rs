//! Words that have no place in a repository: paths of somebody's machine, hosts of mirrors, talk about how the text came to be.

use crate::Finding;
use crate::tree::Tree;

/// This file spells the words.
const OWN: &str = "tools/tidy/text.rs";

/// Generated, and checked by its own rule.
const SKIPPED: &[&str] = &[OWN, "Cargo.lock"];

const PATHS: &[&str] = &["/work/", "/root/", "/home/"];

const HOSTS: &[&str] =
    &["static.crates.io", "index.crates.io", "registry.npmjs.org", "files.pythonhosted.org", "proxy.golang.org", "artifactory"];

const TALK: &[&str] = &[
    "claude",
    "anthropic",
    "chatgpt",
    "openai",
    "language model",
    "subagent",
    "sub-agent",
    "coding session",
    "helper session",
    "scratch/common",
];

/// Checks all text files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let paths = tree.paths.iter().filter(|path| !SKIPPED.contains(&path.as_str()));
    paths.filter_map(|path| Some(check_text(path, &tree.read(path)?))).flatten().collect()
}

fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        if let Some(word) = PATHS.iter().find(|word| is_absolute(&lower, word)) {
            findings.push(Finding::error(
                path,
                index + 1,
                "machine path",
                format!("{word}: paths begin at the repository, or are options"),
            ));
        }
        if let Some(word) = HOSTS.iter().find(|word| lower.contains(**word)) {
            findings.push(Finding::error(path, index + 1, "registry host", format!("{word}: leave the choice of a mirror to the machine")));
        }
        if let Some(word) = TALK.iter().find(|word| lower.contains(**word)) {
            findings.push(Finding::error(path, index + 1, "talk", format!("{word}: say what is true of the program, not how it was made")));
        }
    }
    findings
}

/// Whether a path begins here: `tests/work/` is one of ours.
fn is_absolute(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"_.})-*~$".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_of_a_machine_are_found_and_our_own_are_not() {
        assert_eq!(check_text("a.md", "see /work/x\nand src/work/x\nand $(ROOT)/root/x\n").len(), 1);
        assert_eq!(check_text("a.sh", "cd \"/root/x\"").len(), 1);
    }

    #[test]
    fn hosts_and_talk_are_found() {
        assert_eq!(check_text("a.toml", "index = \"https://index.crates.io\"")[0].rule, "registry host");
        assert_eq!(check_text("a.rs", "// A subagent wrote this")[0].rule, "talk");
        assert!(check_text("a.rs", "// An SDK session ends here.").is_empty());
    }
}
