//! Dependencies: named once, in the root manifest, each under a comment that says why.

use crate::Finding;
use crate::tree::Tree;

const RULE: &str = "dependencies";

/// Crates that may be fetched from one place only.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks the root manifest, the members' manifests and the lock file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in tree.ending("Cargo.toml") {
        let text = tree.read(path).unwrap_or_default();
        findings.extend(if path == "Cargo.toml" { check_root(&text) } else { check_member(path, &text) });
    }
    if let Some(lock) = tree.read("Cargo.lock") {
        let is_foreign = |line: &str| line.starts_with("source = ") && line != format!("source = \"{SOURCE}\"");
        let foreign = lock.lines().enumerate().filter(|(_, line)| is_foreign(line));
        findings.extend(foreign.map(|(index, line)| Finding::error("Cargo.lock", index + 1, RULE, format!("{line}: use crates.io only"))));
    }
    findings
}

/// Lines of dependency sections with their section, without blank lines.
fn dependency_lines(text: &str) -> Vec<(usize, &str, &str)> {
    let (mut section, mut lines) = ("", Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && !line.trim().is_empty() {
            lines.push((index + 1, section, line));
        }
    }
    lines
}

fn check_root(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut has_reason = false;
    for (number, section, line) in dependency_lines(text) {
        if section != "[workspace.dependencies]" {
            findings.extend(own_version("Cargo.toml", number, line));
            continue;
        }
        let is_ours = line.contains("path = ");
        if !line.starts_with('#') && !has_reason && !is_ours {
            let name = line.split([' ', '.']).next().unwrap_or_default();
            findings.push(Finding::error("Cargo.toml", number, RULE, format!("say in a comment above {name} why we need it")));
        }
        has_reason = line.starts_with('#');
    }
    findings
}

fn check_member(path: &str, text: &str) -> Vec<Finding> {
    dependency_lines(text).into_iter().filter_map(|(number, _, line)| own_version(path, number, line)).collect()
}

fn own_version(path: &str, number: usize, line: &str) -> Option<Finding> {
    let is_inherited = line.starts_with('#') || line.contains("workspace = true");
    (!is_inherited).then(|| Finding::error(path, number, RULE, "name it in the root manifest and inherit it: workspace = true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_its_own_reason_is_found() {
        let text = "[workspace.dependencies]\nours = { path = \"x\" }\n\n# Reason.\na = \"1\"\nb = \"1\"\n\n[profile.dev]\ndebug = 1\n";
        let findings = check_root(text);
        assert_eq!((findings.len(), findings[0].line), (1, 6));
    }

    #[test]
    fn members_inherit() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { workspace = true }\n";
        assert_eq!(check_member("x/Cargo.toml", text).into_iter().map(|finding| finding.line).collect::<Vec<_>>(), [5]);
    }
}
