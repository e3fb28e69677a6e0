//! The command line, validated in one place. Everything behind it may rely on the bounds stated here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_base::GroupId;
use millrace_base::fault::{Fault, FaultKind};

/// Accounts of one group: their balances are all read back at the end.
const MAX_ACCOUNTS: u32 = 1_000_000;

/// Transactions of one run: each is remembered with its time until the end, about 200 bytes.
const MAX_COUNT: u64 = 20_000_000;

/// Connections, each with a thread of its own.
const MAX_CONNECTIONS: usize = 1_024;

/// Nodes of one run: each is asked for every block at the end.
const MAX_NODES: usize = 100;

/// Transactions of one request; nodes refuse larger batches.
const MAX_BATCH: usize = millrace_base::limits::MAX_RPC_BATCH;

/// What the transactions do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WorkloadName {
    /// `userTransfer` of the DagTransfer precompiled contract (0x5002).
    Transfer,
    /// Transfers between balances under text names in a Solidity contract.
    Solidity,
    /// Transfers of an ERC-20 token.
    Token,
    /// Rows of a table: select, insert, update, remove.
    Table,
    /// All of these in equal parts.
    Mix,
}

/// How accounts are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Distribution {
    /// Each account equally often.
    Uniform,
    /// A few accounts very often: the share of the k-th is proportional to 1 / k^theta.
    Zipfian,
}

/// How transactions reach a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// JSON-RPC over HTTP, one transaction a request.
    Http,
    /// JSON-RPC over HTTP, `--batch` transactions a request.
    HttpBatch,
    /// The channel port; receipts are pushed.
    Channel,
}

impl Transport {
    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::HttpBatch => "http-batch",
            Self::Channel => "channel",
        }
    }
}

/// Which node a transaction is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Spread {
    /// All transactions of an account go to one node.
    Sticky,
    /// One batch after the other goes to the next node.
    RoundRobin,
}

/// What else this program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Passes TCP connections on, each byte later by a fixed time: distance between nodes of one machine.
    DelayProxy(DelayProxyOptions),
}

/// Options of `delay-proxy`.
#[derive(Clone, Debug, Args)]
pub struct DelayProxyOptions {
    /// Address to accept connections at; repeated together with `--to`.
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,
    /// Where connections to the `--listen` of the same position lead.
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub to: Vec<SocketAddr>,
    /// Delay of each direction.
    #[arg(long, default_value_t = 20, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub delay_ms: u64,
}

/// Load generator: signs FISCO BCOS 2.x transactions, sends them, follows the chain, and checks that nothing was lost or done twice.
///
/// The exit status is 0 only if every acknowledged transaction got exactly one receipt and balances conserve.
#[derive(Clone, Debug, Parser)]
#[command(name = "txgen", version, max_term_width = 110, args_override_self = true)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    /// Another task than load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// JSON-RPC endpoints of nodes of the chain, repeated or separated by commas. A group uses those of its members; all are compared at
    /// the end.
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL")]
    pub rpc: Vec<String>,
    /// Channel endpoints of the same nodes in the same order, for `--transport channel`.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    pub channel: Vec<String>,
    /// Directory with ca.crt, sdk.crt and sdk.key for the channel port.
    #[arg(long, value_name = "DIR")]
    pub certificates: Option<PathBuf>,
    /// How transactions reach a node. Several, separated by commas, are measured one after the other.
    #[arg(long, value_enum, default_value = "http-batch", value_delimiter = ',')]
    pub transport: Vec<Transport>,
    /// Which node a transaction is sent to.
    #[arg(long, value_enum, default_value = "sticky")]
    pub spread: Spread,
    /// Process ids of the nodes in the order of `--rpc`, on this machine: their CPU time is measured beside the load.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    pub node_pid: Vec<u32>,
    /// Groups that are loaded at the same time, separated by commas.
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "G")]
    pub group: Vec<i64>,
    /// What the transactions do.
    #[arg(long, value_enum, default_value = "transfer")]
    pub workload: WorkloadName,
    /// Measured transactions, all groups together.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub count: u64,
    /// Transactions a second, all groups together: open loop. Latency counts from the moment a transaction was due, so a slow node cannot
    /// hide behind a slow client. Without it: closed loop, as fast as `--in-flight` allows.
    #[arg(long, alias = "open-loop", value_name = "R")]
    pub rate: Option<f64>,
    /// Seconds after which no more is sent, however many of `--count` are left.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<u64>,
    /// Closed loop: transactions of one group that may be sent and not yet committed.
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    pub in_flight: usize,
    /// Stop sending as soon as FILE exists, and go on to the checks.
    #[arg(long, value_name = "FILE")]
    pub stop_file: Option<PathBuf>,
    /// Connections, all groups together; at least one a group is used.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub connections: usize,
    /// Transactions in one HTTP request; 1 sends each on its own, without a JSON-RPC batch. On the channel port: sent before an answer is
    /// waited for.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub batch: usize,
    /// Transactions sent before the measurement, all groups together.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u64,
    /// Accounts in each group.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub accounts: u32,
    /// How accounts are chosen.
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: Distribution,
    /// Skew of the zipfian distribution.
    #[arg(long, default_value_t = 0.99, value_name = "THETA")]
    pub theta: f64,
    /// Share of transactions, 0 to 1, that all move between the same two accounts.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub conflict: f64,
    /// Same seed, same choice of accounts and operations.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds without progress after which the run is given up.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
    /// Seconds without an answer after which a node counts as silent; what it was given is sent to another. At most `--timeout`.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub request_timeout: u64,
    /// Prepare accounts and contracts, write signed transactions to FILE and end. One group only.
    #[arg(long, value_name = "FILE", conflicts_with = "from_file")]
    pub presign: Option<PathBuf>,
    /// Send the transactions that `--presign` wrote, on the same chain. They are signed anew where their block limit has passed.
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Write the results as JSON to FILE; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure one secp256k1 recovery on this machine after the run, for the JSON's `recovery_us`.
    #[arg(long, requires = "json")]
    pub measure_recovery: bool,
    /// `chain.id` to sign for; by default the node is asked.
    #[arg(long, value_name = "ID")]
    pub chain_id: Option<u64>,
}

impl Options {
    /// Refuses what lies outside the bounds.
    pub fn validate(&self) -> Result<(), Fault> {
        let checks = [
            (self.count >= 1 && self.count <= MAX_COUNT, format!("--count must be 1 to {MAX_COUNT}")),
            (self.warmup <= MAX_COUNT, format!("--warmup must be at most {MAX_COUNT}")),
            (self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "--rate must be above 0".into()),
            (self.in_flight >= 1, "--in-flight must be at least 1".into()),
            ((1..=MAX_CONNECTIONS).contains(&self.connections), format!("--connections must be 1 to {MAX_CONNECTIONS}")),
            ((1..=MAX_BATCH).contains(&self.batch), format!("--batch must be 1 to {MAX_BATCH}")),
            ((2..=MAX_ACCOUNTS).contains(&self.accounts), format!("--accounts must be 2 to {MAX_ACCOUNTS}")),
            ((0.0..=1.0).contains(&self.conflict), "--conflict must be 0 to 1".into()),
            ((0.0..=10.0).contains(&self.theta), "--theta must be 0 to 10".into()),
            (self.timeout >= 1, "--timeout must be at least 1".into()),
            (self.request_timeout >= 1, "--request-timeout must be at least 1".into()),
            (self.duration != Some(0), "--duration must be at least 1".into()),
            ((1..=MAX_NODES).contains(&self.rpc.len()), format!("--rpc must name 1 to {MAX_NODES} nodes")),
            (!self.uses_channel() || self.channel.len() == self.rpc.len(), "--transport channel needs one --channel for each --rpc".into()),
            (!self.uses_channel() || self.certificates.is_some(), "--transport channel needs --certificates".into()),
            (self.node_pid.is_empty() || self.node_pid.len() == self.rpc.len(), "--node-pid must name one process for each --rpc".into()),
            (self.rpc.iter().all(|url| url.starts_with("http://")), "--rpc takes addresses that begin with http://".into()),
            (self.is_one_group() || (self.presign.is_none() && self.from_file.is_none()), "a file of transactions is for one group".into()),
            (
                self.is_one_door() || (self.presign.is_none() && self.from_file.is_none()),
                "a file of transactions is for one transport".into(),
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Fault::new(FaultKind::Config, what, "run `txgen --help` for the options")),
            None => self.groups().map(|_| ()),
        }
    }

    fn is_one_group(&self) -> bool {
        self.group.len() == 1
    }

    fn uses_channel(&self) -> bool {
        self.transport.contains(&Transport::Channel)
    }

    /// One run for each transport, in order.
    pub fn runs(&self) -> Vec<Self> {
        let run = |transport: &Transport| {
            let batch = if *transport == Transport::Http { 1 } else { self.batch };
            Self { transport: vec![*transport], batch, ..self.clone() }
        };
        self.transport.iter().map(run).collect()
    }

    /// The transport of one of [`Self::runs`].
    pub fn door(&self) -> Transport {
        self.transport.first().copied().unwrap_or(Transport::HttpBatch)
    }

    fn is_one_door(&self) -> bool {
        self.transport.len() == 1
    }

    /// The groups, each once.
    pub fn groups(&self) -> Result<Vec<GroupId>, Fault> {
        let mut groups = Vec::with_capacity(self.group.len());
        for &id in &self.group {
            let group = GroupId::new(id).ok_or_else(|| {
                Fault::new(FaultKind::Config, format!("{id} is no group"), format!("group ids are 1 to {}", GroupId::MAX))
            })?;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    /// [`Self::timeout`] as a duration.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// [`Self::request_timeout`] as a duration.
    pub fn request_patience(&self) -> Duration {
        Duration::from_secs(self.request_timeout.min(self.timeout))
    }
}

/// Part `index` of `total` split into `parts` as evenly as possible.
pub fn share(total: u64, parts: usize, index: usize) -> u64 {
    let (parts, index) = (parts as u64, index as u64);
    total / parts + u64::from(index < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_documented_command_line_is_understood() {
        let options = parse("txgen --rpc http://a:1,http://b:2 --group 1,2,2 --workload mix --count 7 --rate 2.5 --json out");
        options.validate().unwrap();
        assert_eq!(options.groups().unwrap().len(), 2);
        assert_eq!(options.rpc.len(), 2);
        assert_eq!(options.rate, Some(2.5));
    }

    #[test]
    fn values_outside_the_bounds_are_refused() {
        for bad in ["--count 0", "--rate 0", "--batch 0", "--accounts 1", "--conflict 1.5", "--group 0", "--group 1,2 --presign f"] {
            assert!(parse(&format!("txgen --rpc http://a:1 {bad}")).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_may_be_repeated_and_a_subcommand_needs_none() {
        let options = parse("txgen --rpc http://a:1 --rpc http://b:2,http://c:3 --open-loop 5 --spread round-robin");
        options.validate().unwrap();
        assert_eq!((options.rpc.len(), options.rate, options.spread), (3, Some(5.0), Spread::RoundRobin));
        let proxy = parse("txgen delay-proxy --listen 127.0.0.1:1 --to 127.0.0.1:2 --delay-ms 20");
        assert!(matches!(proxy.command, Some(Command::DelayProxy(proxy)) if proxy.delay_ms == 20));
    }

    #[test]
    fn each_transport_is_a_run_of_its_own() {
        let options = parse("txgen --rpc http://a:1 --channel a:2 --certificates sdk --transport http,http-batch,channel --batch 50");
        options.validate().unwrap();
        let runs: Vec<_> = options.runs().iter().map(|run| (run.door().name(), run.batch)).collect();
        assert_eq!(runs, [("http", 1), ("http-batch", 50), ("channel", 50)]);
        assert!(parse("txgen --rpc http://a:1 --transport channel --certificates sdk").validate().is_err());
    }

    #[test]
    fn shares_add_up() {
        assert_eq!((0..3).map(|index| share(10, 3, index)).collect::<Vec<_>>(), [4, 3, 3]);
    }
}
