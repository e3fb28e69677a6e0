//! A node whose disk fills under load: it says so, serves on, damages nothing, and goes on when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use millrace_base::{Address, Bytes};
use tempfile::TempDir;

use crate::client::{key, receipt, send, shown, text, transaction};
use crate::network::{Network, Setup, txgen, verify};

/// How long the disk may take to fill, and the node to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for the answer to one request, whatever the disk does.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Left for blocks when the ballast is on the disk, bytes.
const ROOM: u64 = 6 << 20;

/// A small file system, when this process may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    /// Takes all space but `ROOM`.
    fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        let block = vec![1; 64 << 10];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - ROOM).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// What the node said: in its log files, and on standard error what these did not take.
fn said(network: &Network, errors: &Path) -> String {
    let logs = fs::read_dir(network.directory().join("127.0.0.1/node0/log")).unwrap().map(|entry| entry.unwrap().path());
    logs.chain([errors.to_owned()]).map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
}

#[test]
fn node_on_a_full_disk_says_so_serves_on_and_commits_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(256) else {
        eprintln!("skipped: file systems cannot be mounted here");
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let errors = elsewhere.path().join("errors");
    let setup = Setup { parent: Some(disk.0.path()), errors: Some(errors.clone()), ..Setup::default() };
    let mut network = Network::start_with(1, setup);
    let output = txgen(&network, &["--group", "1", "--workload", "transfer", "--count", "500"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    disk.fill();
    let load = network.txgen_in_background(&["--group", "1", "--workload", "transfer", "--count", "300000", "--timeout", "50"]);
    let deadline = Instant::now() + PATIENCE;
    while !said(&network, &errors).contains("disk full") {
        assert!(Instant::now() < deadline, "the node did not say that its disk is full");
        assert!(network.is_running(), "the node ended: {}", said(&network, &errors));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(said(&network, &errors).contains("free space on the device"));
    let told = network.block(1, network.height(1));
    // Every request has an answer, be it a refusal; none hangs.
    for _ in 0..20 {
        let raw = transaction(&network, Some(Address::with_last_byte(4)), Bytes::from(vec![0; 4])).sign(&key("cow"));
        let asked = Instant::now();
        let reply = send(&network, raw.encoded());
        assert!(reply["result"] == shown(raw.hash()) || reply["error"]["message"].is_string(), "{reply}");
        assert!(asked.elapsed() < ANSWER_TIME, "an answer took {:?}", asked.elapsed());
    }
    assert!(network.is_running());
    load.end();

    let height = network.height(1);
    disk.empty();
    network.wait_for_height_above(1, height);
    assert_eq!(network.block(1, told.0), told);
    network.halt();
    verify(network.directory(), "1");
    network.restart();
    assert_eq!(network.block(1, told.0), told);
    let raw = transaction(&network, Some(Address::with_last_byte(4)), Bytes::from(vec![0; 4])).sign(&key("cow"));
    receipt(&network, text(&send(&network, raw.encoded())["result"]));
    network.halt();
    verify(network.directory(), "1");
}
