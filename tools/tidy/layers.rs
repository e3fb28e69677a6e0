//! The arrows between crates. This table is the one place that allows them; ARCHITECTURE.md explains it.

use std::process::Command;

use serde_json::Value;

use crate::Finding;
use crate::tree::Tree;

const RULE: &str = "layers";

/// A crate of the workspace.
struct Layer {
    package: &'static str,
    folder: &'static str,
    /// Arrows point to lower numbers only.
    number: u8,
    /// Crates of ours that it may use; test dependencies may be any lower layer.
    may_use: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    Layer { package: "millrace-base", folder: "src/base", number: 0, may_use: &[] },
    Layer { package: "millrace-core", folder: "src/core", number: 1, may_use: &["millrace-base"] },
    Layer { package: "millrace-network", folder: "src/network", number: 1, may_use: &["millrace-base"] },
    // Consensus and sync see no storage, socket, thread or pool.
    Layer { package: "millrace-administration", folder: "src/administration", number: 1, may_use: &["millrace-base"] },
    // The load generator cannot reach into the node.
    Layer { package: "listeners", folder: "tools/listeners", number: 0, may_use: &[] },
    Layer { package: "txgen", folder: "tools/txgen", number: 1, may_use: &["millrace-base"] },
    Layer { package: "millrace-vm", folder: "src/vm", number: 2, may_use: &["millrace-base", "millrace-core"] },
    Layer { package: "millrace-backends", folder: "src/backends", number: 2, may_use: &["millrace-base", "millrace-core"] },
    Layer { package: "millrace-access", folder: "src/access", number: 3, may_use: &["millrace-base", "millrace-core", "millrace-vm"] },
    Layer {
        package: "millrace-ledger",
        folder: "src/ledger",
        number: 4,
        // The machine, because the ledger builds each group's executor from its genesis.
        may_use: &["millrace-base", "millrace-core", "millrace-administration", "millrace-vm", "millrace-access"],
    },
    Layer {
        package: "millrace-rpc",
        folder: "src/rpc",
        number: 5,
        may_use: &["millrace-base", "millrace-network", "millrace-access", "millrace-ledger"],
    },
    Layer {
        package: "millrace-pipeline",
        folder: "pipeline",
        number: 5,
        may_use: &[
            "millrace-base",
            "millrace-core",
            "millrace-network",
            "millrace-administration",
            "millrace-vm",
            "millrace-access",
            "millrace-ledger",
        ],
    },
    Layer {
        package: "millrace",
        folder: "",
        number: 6,
        may_use: &[
            "millrace-base",
            "millrace-core",
            "millrace-network",
            "millrace-administration",
            "millrace-vm",
            "millrace-backends",
            "millrace-access",
            "millrace-ledger",
            "millrace-rpc",
            "millrace-pipeline",
        ],
    },
    // Whole clusters in one thread: no sockets, no database.
    Layer {
        package: "sim",
        folder: "tools/sim",
        number: 6,
        may_use: &[
            "millrace-base",
            "millrace-core",
            "millrace-administration",
            "millrace-vm",
            "millrace-access",
            "millrace-ledger",
            "millrace-pipeline",
        ],
    },
    Layer { package: "tidy", folder: "tools/tidy", number: 0, may_use: &[] },
    Layer {
        package: "millrace-benches",
        folder: "benches",
        number: 7,
        may_use: &[
            "millrace-base",
            "millrace-core",
            "millrace-administration",
            "millrace-vm",
            "millrace-backends",
            "millrace-access",
            "millrace-ledger",
            "millrace-rpc",
            "millrace-pipeline",
        ],
    },
];

/// Crates of others that only some of ours may link, and why. Test dependencies are free.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["millrace-backends"], "the one crate that links a database"),
    ("mysql", &["millrace-backends"], "the one crate that links a database"),
    ("axum", &["millrace-rpc"], "the one place with an async runtime"),
    ("tokio", &["millrace-rpc"], "the one place with an async runtime"),
    ("mio", &["millrace-network"], "the one place with an event loop"),
    ("revm", &["millrace-vm"], "the one binding of the virtual machine"),
];

fn layer(package: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.package == package)
}

/// Compares the manifests, as cargo understands them, with the table.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(&tree.root)
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        findings.extend(check_package(tree, package));
    }
    Ok(findings)
}

fn check_package(tree: &Tree, package: &Value) -> Vec<Finding> {
    let name = text(&package["name"]);
    let manifest = manifest_of(tree, package);
    let Some(layer) = layer(name) else {
        return vec![Finding::error(&manifest, 1, RULE, format!("{name} is in no layer: add it to the table in tools/tidy/layers.rs"))];
    };
    let mut findings = Vec::new();
    let expected = if layer.folder.is_empty() { "Cargo.toml".to_owned() } else { format!("{}/Cargo.toml", layer.folder) };
    if manifest != expected {
        findings.push(Finding::error(&manifest, 1, RULE, format!("{name} belongs into {expected}")));
    }
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let (used, is_test) = (text(&dependency["name"]), dependency["kind"] == "dev");
        if let Some(advice) = fault_of_arrow(layer, used, is_test) {
            findings.push(Finding::error(&manifest, line_of(tree, &manifest, used), RULE, advice));
        }
    }
    findings
}

/// What is wrong with a dependency, if anything.
fn fault_of_arrow(from: &Layer, used: &str, is_test: bool) -> Option<String> {
    let name = from.package;
    if let Some(to) = layer(used) {
        if to.number >= from.number {
            return Some(format!("{name} (layer {}) must not use {used} (layer {}): arrows point down", from.number, to.number));
        }
        let is_allowed = is_test || from.may_use.contains(&used);
        return (!is_allowed)
            .then(|| format!("{name} may not use {used}: move the code, or allow the arrow in ARCHITECTURE.md and tidy's table"));
    }
    let (_, owners, why) = RESERVED.iter().find(|(reserved, ..)| *reserved == used)?;
    (!is_test && !owners.contains(&name)).then(|| format!("{used} is for {} only: {why}", owners.join(", ")))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Path of a package's manifest from the root. Cargo's root may spell the same place differently, so folders are compared as they end.
fn manifest_of(tree: &Tree, package: &Value) -> String {
    let path = std::path::Path::new(text(&package["manifest_path"]));
    let root = tree.root.canonicalize().unwrap_or_else(|_| tree.root.clone());
    path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned()
}

fn line_of(tree: &Tree, manifest: &str, dependency: &str) -> usize {
    let text = tree.read(manifest).unwrap_or_default();
    text.lines().position(|line| line.trim_start().starts_with(dependency)).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_of_the_table_point_down_to_known_crates() {
        for from in LAYERS {
            for used in from.may_use {
                let to = layer(used).unwrap_or_else(|| panic!("{used} is in the table"));
                assert!(to.number < from.number, "{} -> {used}", from.package);
            }
        }
    }

    #[test]
    fn a_wrong_arrow_is_found() {
        let fault = |from, used, is_test| fault_of_arrow(layer(from).unwrap(), used, is_test);
        assert!(fault("millrace-administration", "millrace-core", false).unwrap().contains("arrows point down"));
        assert!(fault("millrace-rpc", "millrace-core", false).unwrap().contains("may not use"));
        assert!(fault("millrace-rpc", "millrace-core", true).is_none());
        assert!(fault("txgen", "millrace-ledger", true).is_some());
        assert!(fault("millrace-ledger", "rocksdb", false).unwrap().contains("millrace-backends only"));
        assert!(fault("millrace-core", "millrace-base", false).is_none());
    }
}
