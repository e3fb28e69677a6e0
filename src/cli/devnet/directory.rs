//! The directory of a devnet: built when it is new, checked and moved to other ports when it is there.
//!
//! `devnet.json`, written last, says that a directory is complete and what it was built with.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use millrace_base::clock::{Clock, SystemClock};
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::StateKind;
use serde_json::{Value, json};

use super::super::chain::{first_groups, own_program};
use super::{DevnetArguments, mysql, refuse};
use crate::chain_build::ini_text::IniText;
use crate::chain_build::node_files::NetworkPlace;
use crate::chain_build::{self, ChainPlan, Machine, Placement, Ports, Program, Reach};
use crate::chain_change::ChainDirectory;
use crate::chain_change::join::write_place;
use crate::config::ListenAddresses;

const MANIFEST: &str = "devnet.json";

/// The chain id of every devnet.
const CHAIN_ID: u64 = 1;

/// Validity of a devnet's certificates.
const DAYS: u32 = 36_500;

/// A network that can be started.
pub struct Network {
    /// Its directory, absolute.
    pub root: PathBuf,
    /// The nodes' directories, in the order of their numbers; at least one.
    pub nodes: Vec<PathBuf>,
}

/// Makes the directory complete, or checks that it is what was asked for, and sets its ports.
pub fn prepare(arguments: &DevnetArguments) -> Result<Network, Fault> {
    let manifest = arguments.dir.join(MANIFEST);
    let built = match fs::read_to_string(&manifest) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refuse(format!("cannot read {}: {error}", manifest.display()), "check the directory's permissions")),
    };
    if built.is_none() {
        build(arguments, &manifest)?;
    }
    let root = fs::canonicalize(&arguments.dir)
        .map_err(|error| refuse(format!("cannot use {}: {error}", arguments.dir.display()), "check its permissions"))?;
    // Nodes of other machines may have been added to the directory.
    let here = ChainDirectory::open(&root)?.nodes()?.into_iter().filter(|node| node.ip.is_loopback());
    let nodes: Vec<PathBuf> = here.map(|node| node.directory).collect();
    if let Some(text) = built {
        check_manifest(arguments, &manifest, &text, nodes.len())?;
    }
    move_ports(arguments, &nodes)?;
    Ok(Network { root, nodes })
}

fn build(arguments: &DevnetArguments, manifest: &Path) -> Result<(), Fault> {
    let (nodes, groups) = (arguments.nodes.unwrap_or(1), arguments.groups.unwrap_or(1));
    let rules = arguments.rules.chosen()?.unwrap_or_default();
    let state = arguments.state.unwrap_or_default();
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let plan = ChainPlan {
        output: arguments.dir.clone(),
        chain_id: CHAIN_ID,
        machines: vec![Machine { ip: own, nodes, agency: "agency".into(), groups: first_groups(groups) }],
        placements: arguments.placements.clone(),
        ports: wanted_ports(arguments, Ports::default()),
        rpc_ip: own,
        days: DAYS,
        rules,
        state,
        consensus: arguments.consensus.clone().unwrap_or_default(),
        timestamp_ms: SystemClock.now_ms(),
        reach: Reach::Machine,
        program: Program::Link(own_program()?),
    };
    let built = chain_build::build(&plan, &|_| {})?;
    let storage = arguments.storage.as_deref().unwrap_or("rocksdb");
    if storage == "mysql" {
        let directories: Vec<PathBuf> = built.into_iter().map(|node| node.directory).collect();
        mysql::configure(arguments, &directories)?;
    }
    let placements = placements_text(&arguments.placements);
    let consensus = plan.consensus.to_string();
    let text = json!({
        "nodes": nodes, "groups": groups, "placements": placements, "evm": rules.to_string(), "state": state.name(),
        "consensus": consensus, "storage": storage
    });
    let text = text.to_string();
    let finish = || {
        symlink(Path::new("127.0.0.1").join("sdk"), arguments.dir.join("sdk"))?;
        fs::write(manifest, format!("{text}\n"))
    };
    finish().map_err(|error| {
        let what = format!("cannot write {}: {error}", manifest.display());
        Fault::new(FaultKind::Disk, what, "check free space and permissions, remove the directory, and start again")
    })
}

fn wanted_ports(arguments: &DevnetArguments, present: Ports) -> Ports {
    Ports {
        p2p: arguments.p2p_port.unwrap_or(present.p2p),
        channel: arguments.channel_port.unwrap_or(present.channel),
        rpc: arguments.rpc_port.unwrap_or(present.rpc),
    }
}

/// The groups with places of their own, in one form.
fn placements_text(placements: &[Placement]) -> String {
    let text = |placement: &Placement| {
        let mut nodes = placement.nodes.clone();
        nodes.sort();
        (placement.group, format!("{}={}", placement.group, nodes.join(",")))
    };
    let mut texts: Vec<_> = placements.iter().map(text).collect();
    texts.sort();
    texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
}

fn check_manifest(arguments: &DevnetArguments, manifest: &Path, text: &str, nodes: usize) -> Result<(), Fault> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let (Some(groups), Some(evm)) = (value["groups"].as_u64(), value["evm"].as_str()) else {
        let what = format!("{} is damaged", manifest.display());
        return Err(Fault::new(FaultKind::Config, what, "remove the network's directory and start again, or restore the file"));
    };
    if nodes == 0 {
        let what = format!("the network in {} has no node any more", arguments.dir.display());
        return Err(refuse(what, "remove the directory and start again, or restore the nodes"));
    }
    let differs = |what: &str, has: &str, wanted: &str| {
        let what = format!("the network in {} has {what} {has}, and {wanted} was asked for", arguments.dir.display());
        refuse(what, "leave the option out to start it as it is, or name another directory for a new network")
    };
    if let Some(wanted) = arguments.nodes.filter(|wanted| *wanted != nodes) {
        return Err(differs("a number of nodes of", &nodes.to_string(), &wanted.to_string()));
    }
    if let Some(wanted) = arguments.groups.filter(|wanted| u64::from(*wanted) != groups) {
        return Err(differs("groups 1 to", &groups.to_string(), &wanted.to_string()));
    }
    let (placed, wanted) = (value["placements"].as_str().unwrap_or_default(), placements_text(&arguments.placements));
    if !arguments.placements.is_empty() && wanted != placed {
        let has = if placed.is_empty() { "no group on some nodes only" } else { placed };
        return Err(differs("placements:", has, &wanted));
    }
    // Older directories do not name it.
    let state = value["state"].as_str().unwrap_or(StateKind::Storage.name());
    if let Some(wanted) = arguments.state.filter(|wanted| wanted.name() != state) {
        return Err(differs("state", state, wanted.name()));
    }
    let consensus = value["consensus"].as_str().unwrap_or("pbft");
    if let Some(wanted) = arguments.consensus.as_ref().map(ToString::to_string).filter(|wanted| wanted != consensus) {
        return Err(differs("consensus", consensus, &wanted));
    }
    // Networks of before there was a choice do not say.
    let storage = value["storage"].as_str().unwrap_or("rocksdb");
    if let Some(wanted) = arguments.storage.as_deref().filter(|wanted| *wanted != storage) {
        return Err(differs("storage", storage, wanted));
    }
    match arguments.rules.chosen()?.filter(|wanted| wanted.to_string() != evm) {
        Some(wanted) => Err(differs("EVM rules", evm, &wanted.to_string())),
        None => Ok(()),
    }
}

/// Writes the ports of this command line into the nodes' files; what is not named stays.
fn move_ports(arguments: &DevnetArguments, nodes: &[PathBuf]) -> Result<(), Fault> {
    if (arguments.rpc_port, arguments.channel_port, arguments.p2p_port) == (None, None, None) {
        return Ok(());
    }
    let listen = nodes.iter().map(|node| ListenAddresses::read(&node.join("config.ini"))).collect::<Result<Vec<_>, _>>()?;
    let [first, ..] = &listen[..] else { return Ok(()) };
    let present = Ports { p2p: first.p2p.port(), channel: first.channel.port(), rpc: first.rpc.port() };
    chain_build::check_ports(wanted_ports(arguments, present), nodes.len())?;
    let moved = |port: Option<u16>, index: usize, present: SocketAddr| {
        let port = port.map(|first| u16::try_from(usize::from(first) + index).expect("the ports were checked"));
        SocketAddr::new(present.ip(), port.unwrap_or(present.port()))
    };
    let places: Vec<NetworkPlace> = listen
        .iter()
        .enumerate()
        .map(|(index, listen)| NetworkPlace {
            rpc: moved(arguments.rpc_port, index, listen.rpc),
            channel: moved(arguments.channel_port, index, listen.channel),
            p2p: moved(arguments.p2p_port, index, listen.p2p),
        })
        .collect();
    let peers: Vec<String> = places.iter().map(|place| place.p2p.to_string()).collect();
    for (node, place) in nodes.iter().zip(&places) {
        let mut text = IniText::read(&node.join("config.ini"))?;
        write_place(&mut text, place);
        if arguments.p2p_port.is_some() {
            text.set_list("p2p", "node.", &peers);
        }
        text.save()?;
    }
    Ok(())
}
