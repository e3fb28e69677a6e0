//! Machines of a partition test: a network namespace for each node, joined by a bridge, and rules that drop what comes from some of them.
//!
//! Needs root, `ip` and `nft`. Names and addresses carry the process id, so that tests beside each other do not meet.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::nodes::cluster::Place;

/// See the module.
pub struct Machines {
    bridge: String,
    names: Vec<String>,
    subnet: [u8; 3],
}

impl Machines {
    /// Makes machines; `None`, with a message, where that is not possible.
    pub fn new(count: u8) -> Option<Self> {
        sweep();
        let process = std::process::id();
        let [.., high, low] = process.to_be_bytes();
        // 10.64.0.0 to 10.127.255.255, by process.
        let machines = Self {
            bridge: format!("mr{process}"),
            names: (0..count).map(|index| format!("mr{process}n{index}")).collect(),
            subnet: [10, 64 | high & 63, low],
        };
        // A container's root may be allowed one and not the other.
        let may_part = run("ip", &["netns", "add", &machines.bridge]) && run("ip", &["netns", "del", &machines.bridge]);
        if !may_part || !run("nft", &["--version"]) || !run("ip", &["link", "add", &machines.bridge, "type", "bridge"]) {
            eprintln!("skipped: network namespaces need root, and the packages iproute2 and nftables");
            return None;
        }
        let (bridge, gateway) = (machines.bridge.as_str(), format!("{}/24", machines.address(253)));
        must("ip", &["addr", "add", &gateway, "dev", bridge]);
        must("ip", &["link", "set", bridge, "up"]);
        for (index, name) in (0..).zip(&machines.names) {
            let (own, address) = (format!("{name}e"), format!("{}/24", machines.address(index)));
            must("ip", &["netns", "add", name]);
            must("ip", &["link", "add", &own, "type", "veth", "peer", "name", "eth0", "netns", name]);
            must("ip", &["link", "set", &own, "master", bridge, "up"]);
            must("ip", &["-n", name, "addr", "add", &address, "dev", "eth0"]);
            must("ip", &["-n", name, "link", "set", "eth0", "up"]);
            must("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        Some(machines)
    }

    fn address(&self, index: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, index + 1)
    }

    /// Where a cluster's nodes lie: one on each machine.
    pub fn place(&self) -> Place {
        let list: Vec<String> = (0..).zip(&self.names).map(|(index, _)| format!("{}:1", self.address(index))).collect();
        let prefix = |name: &String| ["ip", "netns", "exec", name].map(str::to_owned).to_vec();
        Place { machines: vec!["-l".into(), list.join(",")], prefixes: self.names.iter().map(prefix).collect() }
    }

    /// From now on the machine `at` gets nothing from those in `from`, and everything from the others.
    pub fn deafen(&self, at: u8, from: &[u8]) {
        let drops: String = from.iter().map(|index| format!("ip saddr {} drop\n", self.address(*index))).collect();
        let rules = format!(
            "table ip cut\ndelete table ip cut\ntable ip cut {{\nchain input {{\ntype filter hook input priority 0\n{drops}}}\n}}\n"
        );
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.names[usize::from(at)], "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
    }

    /// Parts those of `one` from those of `other`, both ways.
    pub fn part(&self, one: &[u8], other: &[u8]) {
        one.iter().for_each(|at| self.deafen(*at, other));
        other.iter().for_each(|at| self.deafen(*at, one));
    }

    /// Everybody hears everybody again.
    pub fn heal(&self) {
        (0..).zip(&self.names).for_each(|(index, _)| self.deafen(index, &[]));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            run("ip", &["netns", "del", name]);
        }
        run("ip", &["link", "del", &self.bridge]);
    }
}

/// Takes away what tests left that were killed.
fn sweep() {
    let is_gone = |name: &str| {
        let process = name.strip_prefix("mr").and_then(|rest| rest.split('n').next()).filter(|process| process.parse::<u32>().is_ok());
        process.is_some_and(|process| !Path::new("/proc").join(process).exists())
    };
    for (folder, kind) in [("/run/netns", "netns"), ("/sys/class/net", "link")] {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_gone(name)).for_each(|name| drop(Command::new("ip").args([kind, "del", &name]).output()));
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
