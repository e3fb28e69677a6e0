//! A part of the public Ethereum state tests, by the command that operators have, when the archive of them is at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What is run of the archive: storage, creation, destruction, refunds, fees, access lists, blobs; a few thousand cases.
const SUITES: [&str; 10] = [
    "legacytests/Cancun/GeneralStateTests/stSStoreTest",
    "legacytests/Cancun/GeneralStateTests/stCreate2",
    "legacytests/Cancun/GeneralStateTests/stRevertTest",
    "legacytests/Cancun/GeneralStateTests/stEIP1559",
    "legacytests/Cancun/GeneralStateTests/stEIP2930",
    "legacytests/Cancun/GeneralStateTests/stEIP158Specific",
    "legacytests/Cancun/GeneralStateTests/stRefundTest",
    "legacytests/Cancun/GeneralStateTests/stSystemOperationsTest",
    "tests/GeneralStateTests/Pyspecs/cancun/eip4844_blobs",
    "tests/GeneralStateTests/Pyspecs/cancun/eip6780_selfdestruct",
];

/// Unpacks the suites; `None` with a message when this checkout has no archive.
fn unpack(directory: &Path) -> Option<PathBuf> {
    let archive: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../shared/data/eth-fixtures.tar.xz"].iter().collect();
    if !archive.is_file() {
        eprintln!("skipped: {} is not there", archive.display());
        return None;
    }
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(&archive).arg("-C").arg(directory).args(SUITES.map(|suite| format!("eth-fixtures/{suite}")));
    assert!(tar.status().unwrap().success(), "tar needs xz-utils");
    Some(directory.join("eth-fixtures"))
}

fn statetest(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).arg("statetest").arg(directory).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn cases_of_the_public_state_tests_pass_over_both_kinds_of_state() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(fixtures) = unpack(scratch.path()) else { return };
    let report = scratch.path().join("report.json");
    let output = statetest(&fixtures, &["--json", report.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    for fork in ["Istanbul", "Berlin", "London", "Paris", "Shanghai", "Cancun"] {
        let counts = &report["forks"][fork];
        assert!(counts["run"].as_u64().unwrap() > 500 && counts["run"] == counts["passed"], "{fork}: {counts}");
        assert!(counts["batches"].as_u64().unwrap() > 50 && counts["failedBatches"] == 0, "{fork}: {counts}");
    }
}

#[test]
fn a_wrong_root_fails_the_command_and_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(fixtures) = unpack(scratch.path()) else { return };
    let file = fixtures.join("legacytests/Cancun/GeneralStateTests/stSStoreTest/sstore_0to0.json");
    let mut tests: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let (_, test) = tests.as_object_mut().unwrap().iter_mut().next().unwrap();
    test["post"]["London"][0]["hash"] = Value::from(format!("0x{}", "11".repeat(32)));
    std::fs::write(&file, tests.to_string()).unwrap();
    let output = statetest(&file, &["--fork", "london"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAILED") && text.contains("sstore_0to0.json: London") && text.contains("expected 0x1111"), "{text}");
    assert_eq!(statetest(&scratch.path().join("none"), &[]).status.code(), Some(64));
}
