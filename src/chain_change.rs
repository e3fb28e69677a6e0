//! Extends a chain that [`crate::chain_build`] made: agencies, nodes, clients, and certificates that are renewed.
//!
//! Works on the chain's directory (`cert/`, `<IP>/nodeN`), or on a part of it: an agency needs `cert/ca.crt` and `cert/<agency>/` only;
//! the chain's own key is used for agencies alone and can otherwise stay offline. Invariant: nothing that is there is lost: what is
//! replaced stays beside it as `.old`, and new directories appear complete or not at all. Called by the `chain` commands.

pub mod join;
pub mod renew;
#[cfg(test)]
#[path = "chain_change/tests.rs"]
mod tests;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};

use crate::certificates::{Authority, Credential, Validity};
use crate::chain_build::files::{cannot_write, refuse};
use crate::chain_build::{Agency, write_sdk};

/// A chain's directory. See the module.
pub struct ChainDirectory {
    root: PathBuf,
}

/// A node in a chain's directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PresentNode {
    /// Its machine, as the directory above it is called.
    pub ip: IpAddr,
    /// The number in its name.
    pub index: u32,
    /// Its directory.
    pub directory: PathBuf,
}

impl ChainDirectory {
    /// Takes a directory in which `cert/ca.crt` stands.
    pub fn open(root: &Path) -> Result<Self, Fault> {
        match root.join("cert/ca.crt").is_file() {
            true => Ok(Self { root: root.to_owned() }),
            false => Err(refuse(
                format!("{} is no chain's directory: it has no cert/ca.crt", root.display()),
                "name the directory that `millrace chain build` wrote (its default is ./nodes) with --chain",
            )),
        }
    }

    /// Adds an agency; its name must be new.
    pub fn add_agency(&self, name: &str, days: u32) -> Result<PathBuf, Fault> {
        let directory = self.agency_directory(name);
        if directory.exists() {
            return Err(refuse(
                format!("there is an agency {name} already: {}", directory.display()),
                "choose another name, or renew its certificates with `millrace chain renew agency`",
            ));
        }
        let validity = Validity::days(days);
        let agency = Agency::new(name, &self.authority(validity)?, validity)?;
        let staging = self.stage(&self.root.join("cert"))?;
        agency.write(&staging.join(name))?;
        publish(&staging, name, &directory)?;
        Ok(directory)
    }

    /// Makes the files of another client of an agency.
    pub fn add_sdk(&self, agency: &str, (name, output): (&str, &Path), days: u32) -> Result<(), Fault> {
        if output.join("sdk.key").exists() || output.join("sdk.crt").exists() {
            let what = format!("{} holds a client's files already", output.display());
            return Err(refuse(what, "name another directory, or renew them with `millrace chain renew sdk`"));
        }
        write_sdk(output, &self.agency(agency, Validity::days(days))?, name)
    }

    /// The nodes below the directory, by machine and number.
    pub fn nodes(&self) -> Result<Vec<PresentNode>, Fault> {
        let mut nodes = Vec::new();
        for (machine, name) in subdirectories(&self.root)? {
            let Ok(ip) = name.parse::<IpAddr>() else { continue };
            for (directory, name) in subdirectories(&machine)? {
                let index = name.strip_prefix("node").and_then(|digits| digits.parse().ok());
                if let Some(index) = index.filter(|_| directory.join("config.ini").is_file()) {
                    nodes.push(PresentNode { ip, index, directory });
                }
            }
        }
        nodes.sort();
        Ok(nodes)
    }

    /// The chain's authority, with its key.
    fn authority(&self, validity: Validity) -> Result<Authority, Fault> {
        load(&self.root.join("cert"), "ca", validity)
    }

    /// The certificate of the chain's authority.
    fn chain_certificate(&self) -> Result<String, Fault> {
        read_text(&self.root.join("cert/ca.crt"))
    }

    fn agency_directory(&self, name: &str) -> PathBuf {
        self.root.join("cert").join(name)
    }

    fn agency(&self, name: &str, validity: Validity) -> Result<Agency, Fault> {
        let directory = self.agency_directory(name);
        if name.contains(['/', '\\']) || !directory.join("agency.crt").is_file() {
            let known: Vec<String> = subdirectories(&self.root.join("cert"))?.into_iter().map(|(_, name)| name).collect();
            return Err(refuse(
                format!("{} has no agency {name}", self.root.join("cert").display()),
                format!("agencies that are there: {}; `millrace chain add-agency` makes another", known.join(", ")),
            ));
        }
        Ok(Agency { peers: load(&directory, "agency", validity)?, channel: load(&directory.join("channel"), "ca", validity)? })
    }

    /// A directory for what is not complete yet, on the same file system as its later place.
    fn stage(&self, parent: &Path) -> Result<PathBuf, Fault> {
        let staging = parent.join(".adding");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(cannot_write(&staging))?;
        }
        fs::create_dir_all(&staging).map_err(cannot_write(&staging))?;
        Ok(staging)
    }
}

/// Moves what was staged to its place and removes the stage.
fn publish(staging: &Path, name: &str, target: &Path) -> Result<(), Fault> {
    fs::rename(staging.join(name), target).map_err(cannot_write(target))?;
    fs::remove_dir_all(staging).map_err(cannot_write(staging))
}

fn load(directory: &Path, name: &str, validity: Validity) -> Result<Authority, Fault> {
    let (certificate, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
    let credential = Credential { certificate: read_text(&certificate)?, key: read_text(&key)? };
    Authority::load(credential, validity).map_err(|reason| {
        Fault::new(
            FaultKind::Config,
            format!("the authority {} with {} cannot be used: {reason}", certificate.display(), key.display()),
            "restore both files from a backup, or have what ended renewed: `millrace chain renew agency`",
        )
    })
}

fn read_text(path: &Path) -> Result<String, Fault> {
    fs::read_to_string(path).map_err(|error| {
        Fault::new(
            FaultKind::Operation,
            format!("cannot read {}: {error}", path.display()),
            "bring the file back for this command: keys of authorities are kept offline, in the cert directory of `millrace chain build`",
        )
    })
}

/// Directories in a directory with their names, sorted; hidden ones are left out.
fn subdirectories(directory: &Path) -> Result<Vec<(PathBuf, String)>, Fault> {
    let unreadable = |error: std::io::Error| refuse(format!("cannot list {}: {error}", directory.display()), "check its permissions");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            found.push((entry.path(), name));
        }
    }
    found.sort();
    Ok(found)
}
