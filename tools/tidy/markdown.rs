//! Markdown: relative links lead somewhere, and the code map names files that exist.

use crate::Finding;
use crate::tree::Tree;

/// Pages whose mentions of files are a map: a wrong one misleads.
const MAPS: &[&str] = &["README.md", "ARCHITECTURE.md"];

/// Beginnings of paths from the root.
const FOLDERS: &[&str] = &["src/", "pipeline/", "tools/", "tests/", "benches/", "perf/", "docs/"];

/// Checks all pages.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in tree.ending(".md") {
        let text = tree.read(path).unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (index, line) in text.lines().enumerate() {
            let dead = links(line).into_iter().filter(|link| !tree.has(format!("{folder}/{link}").trim_start_matches('/')));
            findings.extend(dead.map(|link| Finding::error(path, index + 1, "links", format!("{link} does not exist"))));
            if MAPS.contains(&path) {
                let dead = mentions(line).into_iter().filter(|mention| !tree.has(mention));
                findings.extend(dead.map(|mention| Finding::error(path, index + 1, "code map", format!("{mention} does not exist"))));
            }
        }
    }
    findings
}

/// Targets of relative links, without their anchors.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
        .collect()
}

/// Paths in backquotes; patterns and placeholders are not paths.
fn mentions(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted
        .filter(|text| FOLDERS.iter().any(|folder| text.starts_with(folder)))
        .filter(|text| !text.contains(|c: char| c.is_whitespace() || "*{<$…".contains(c)))
        .map(|text| text.split(':').next().unwrap_or(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_are_seen_and_others_are_not() {
        let line = "[a](docs/a.md#part) [b](https://b.example) [c](#here) ![d](d.png \"title\") [e](mailto:x)";
        assert_eq!(links(line), ["docs/a.md", "d.png"]);
    }

    #[test]
    fn paths_in_backquotes_are_mentions() {
        assert_eq!(mentions("`src/base` and `src/*.rs`, `cargo test`, `perf/demo.sh:3`"), ["src/base", "perf/demo.sh"]);
    }
}
