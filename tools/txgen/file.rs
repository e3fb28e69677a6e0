//! Files of signed transactions: one JSON line about the run, then a line a transaction.
//!
//! The header names seed and salt, from which the keys follow: such files hold no secrets worth keeping, they are for test chains.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{Address, RawTx, hex};
use serde_json::{Value, json};

use crate::options::WorkloadName;
use crate::supply::{Prepared, Signer, raw_of};

/// Version of the format.
const FORMAT: u64 = 1;

/// What the transactions of a file rely on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Chain they are signed for.
    pub chain_id: u64,
    /// Group they are signed for.
    pub group: u16,
    /// What they do.
    pub workload: WorkloadName,
    /// Seed of the keys.
    pub seed: u64,
    /// Salt of keys, names and nonces.
    pub salt: String,
    /// Number of accounts.
    pub accounts: u32,
    /// Contracts, in the order of the workloads.
    pub contracts: Vec<Address>,
}

impl Header {
    fn to_json(&self) -> Value {
        let workload = self.workload.to_possible_value().expect("no workload is hidden");
        json!({
            "txgen": FORMAT, "chain_id": self.chain_id, "group": self.group, "workload": workload.get_name(), "seed": self.seed,
            "salt": self.salt, "accounts": self.accounts,
            "contracts": self.contracts.iter().map(Address::to_string).collect::<Vec<_>>(),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        (value["txgen"] == FORMAT).then_some(())?;
        let contracts = value["contracts"].as_array()?.iter().map(|address| address.as_str()?.parse().ok());
        Some(Self {
            chain_id: value["chain_id"].as_u64()?,
            group: u16::try_from(value["group"].as_u64()?).ok()?,
            workload: WorkloadName::from_str(value["workload"].as_str()?, false).ok()?,
            seed: value["seed"].as_u64()?,
            salt: value["salt"].as_str()?.to_owned(),
            accounts: u32::try_from(value["accounts"].as_u64()?).ok().filter(|count| (2..=1_000_000).contains(count))?,
            contracts: contracts.collect::<Option<_>>()?,
        })
    }
}

fn fault(path: &Path, why: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Config, format!("{}: {why}", path.display()), "write the file anew with --presign, on this chain")
}

/// Writes header and transactions.
pub fn write(path: &Path, header: &Header, transactions: &[Prepared]) -> Result<(), Fault> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", header.to_json())?;
        for item in transactions {
            let raw = raw_of(&item.request).expect("requests are made by the supply");
            let (from, to) = item.transfer.map_or(("-".into(), "-".into()), |(from, to)| (from.to_string(), to.to_string()));
            writeln!(file, "{} {} {} {from} {to} 0x{}", item.id, item.workload, item.signer, hex::encode(raw.encoded()))?;
        }
        file.flush()
    };
    write().map_err(|error: std::io::Error| {
        Fault::new(FaultKind::Disk, format!("{}: {error}", path.display()), "free space or name another file")
    })
}

/// Reads the header alone: groups are opened with it before transactions can be read.
pub fn read_header(path: &Path) -> Result<Header, Fault> {
    let mut line = String::new();
    BufReader::new(File::open(path).map_err(|error| fault(path, error))?).read_line(&mut line).map_err(|error| fault(path, error))?;
    let value = serde_json::from_str(&line).map_err(|error| fault(path, error))?;
    Header::from_json(&value).ok_or_else(|| fault(path, "this is no file of transactions"))
}

/// Reads the transactions, at most `limit`.
pub fn read(path: &Path, signer: &Signer, header: &Header, limit: u64) -> Result<Vec<Prepared>, Fault> {
    let lines = BufReader::new(File::open(path).map_err(|error| fault(path, error))?).lines();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut transactions = Vec::new();
    for (index, line) in lines.enumerate().skip(1).take(limit) {
        let line = line.map_err(|error| fault(path, error))?;
        let item = parse_line(&line, signer, header).ok_or_else(|| fault(path, format!("line {} is malformed", index + 1)))?;
        transactions.push(item);
    }
    Ok(transactions)
}

fn parse_line(line: &str, signer: &Signer, header: &Header) -> Option<Prepared> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let workload = words.next()?.parse().ok().filter(|index| usize::from(*index) < header.contracts.len())?;
    let is_account = |index: &u32| *index < header.accounts;
    let account = words.next()?.parse().ok().filter(is_account)?;
    let (from, to) = (words.next()?, words.next()?);
    let transfer = match (from, to) {
        ("-", "-") => None,
        _ => Some((from.parse().ok().filter(is_account)?, to.parse().ok().filter(is_account)?)),
    };
    let raw = RawTx::decode(&hex::decode(words.next()?).ok()?).ok()?;
    let block_limit = u64::try_from(raw.fields().block_limit).ok()?;
    let mut prepared = Prepared { id, workload, signer: account, transfer, block_limit, ..Prepared::default() };
    signer.fill(&mut prepared, &raw);
    Some(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Accounts, Picker};
    use crate::supply::Target;
    use crate::tracker::Phase;
    use crate::workload::workloads;

    #[test]
    fn what_is_written_is_read_back() {
        let options = clap::Parser::parse_from(["txgen", "--rpc", "http://a:1"]);
        let signer = Signer { chain_id: 1, group: 3, seed: 5, accounts: Accounts::derive(5, "salt", 4), picker: Picker::new(&options, 4) };
        let contract = Address::repeat_byte(9);
        let targets: Vec<Target> = workloads(WorkloadName::Table).into_iter().map(|workload| Target { workload, contract }).collect();
        let made = signer.make_many(&targets, Phase::Measured, 0..20, 10);
        let header = Header {
            chain_id: 1,
            group: 3,
            workload: WorkloadName::Table,
            seed: 5,
            salt: "salt".into(),
            accounts: 4,
            contracts: vec![contract],
        };
        let path = std::env::temp_dir().join(format!("txgen-test-{}", std::process::id()));
        write(&path, &header, &made).unwrap();
        assert_eq!(read_header(&path).unwrap(), header);
        let read_back = read(&path, &signer, &header, 100).unwrap();
        assert_eq!(read(&path, &signer, &header, 7).unwrap().len(), 7);
        std::fs::remove_file(&path).unwrap();
        let parts = |item: &Prepared| (item.hash, item.id, item.signer, item.transfer, item.block_limit, item.request.clone());
        assert_eq!(made.iter().map(parts).collect::<Vec<_>>(), read_back.iter().map(parts).collect::<Vec<_>>());
    }
}
