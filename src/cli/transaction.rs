//! `millrace tx send`: signs (or takes) a transaction, sends it, waits for its receipt and prints it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{Address, Bytes, GroupId, KeyPair, RawTx, Transaction, U256, hex};
use serde_json::{Value, json};

use super::database::parse_group;
use crate::keys;

/// Blocks from the head within which the transaction must be committed; what SDKs use.
const BLOCK_LIMIT_AHEAD: u64 = 500;

/// Pause between two looks for the receipt.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait for one HTTP reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest reply that is read, bytes.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// Gas and price fields: carried, never charged (`spec/client-protocol.md` 1.4).
const GAS: u64 = 300_000_000;

/// Commands about transactions.
#[derive(Subcommand, Debug)]
pub enum TransactionCommand {
    /// Send one transaction and wait for its receipt.
    Send(SendArguments),
}

/// See [`TransactionCommand::Send`].
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace tx send --group 1 --raw 0xf8…                       a transaction signed elsewhere
  millrace tx send --group 1 --data 0x6080… --key account.pem  a deployment: no --to
  millrace tx send --group 1 --to 0x0000000000000000000000000000000000005002 --data 0x… --key account.pem

The receipt goes to standard output as JSON. Exit code 0 when its status is 0x0, 1 when it is another,
64 when the node refused the transaction, 66 when it cannot be reached.")]
pub struct SendArguments {
    /// The node's JSON-RPC.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8545")]
    rpc: String,
    /// The group.
    #[arg(long, value_name = "G", value_parser = parse_group)]
    group: GroupId,
    /// A signed transaction in hex.
    #[arg(long, value_name = "HEX", required_unless_present = "key", conflicts_with_all = ["to", "data", "key"])]
    raw: Option<HexBytes>,
    /// The callee; without it a contract is created.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    /// Call data or init code in hex; "-" reads it from standard input.
    #[arg(long, value_name = "HEX", default_value = "")]
    data: HexBytes,
    /// The sender's key: a PEM file (PRIVATE KEY or EC PRIVATE KEY, secp256k1).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Seconds to wait for the receipt.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Bytes written in hex, with or without 0x.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HexBytes(Bytes);

impl FromStr for HexBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut text = text.trim().to_owned();
        if text == "-" {
            text.clear();
            io::stdin().read_to_string(&mut text).map_err(|error| format!("cannot read standard input: {error}"))?;
        }
        hex::decode(text.trim()).map(|bytes| Self(bytes.into())).map_err(|error| format!("not hexadecimal: {error}"))
    }
}

/// Sends the transaction.
pub fn send(arguments: SendArguments) -> Result<ExitCode, Fault> {
    let client = Client::new(&arguments.rpc, arguments.group);
    let raw = match (&arguments.raw, &arguments.key) {
        (Some(raw), _) => raw.0.clone(),
        (None, Some(file)) => sign(&client, &arguments, file)?.encoded().clone(),
        (None, None) => return Err(Fault::new(FaultKind::Operation, "there is nothing to send", "give --raw, or --key with --data")),
    };
    let hash = client.ask("sendRawTransaction", json!([arguments.group.get(), hex::encode_prefixed(&raw)]))?;
    eprintln!("transaction {}", hash.as_str().unwrap_or_default());
    let receipt = client.wait_for_receipt(&hash, Duration::from_secs(arguments.timeout))?;
    super::print(&format!("{receipt:#}\n"))?;
    Ok(if receipt["status"] == "0x0" { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn sign(client: &Client, arguments: &SendArguments, file: &Path) -> Result<RawTx, Fault> {
    let key: KeyPair = keys::read_key(file, keys::Access::OwnerOnly)?;
    let group = arguments.group.get();
    let height = client.number("getBlockNumber", json!([group]))?;
    let version = client.ask("getClientVersion", json!([]))?;
    let chain_id: u64 =
        version["Chain Id"].as_str().and_then(|text| text.parse().ok()).ok_or_else(|| client.unexpected("getClientVersion", &version))?;
    let transaction = Transaction {
        nonce: U256::from_be_slice(&rand::random::<[u8; 31]>()),
        gas_price: U256::from(GAS),
        gas: U256::from(GAS),
        block_limit: U256::from(height + BLOCK_LIMIT_AHEAD),
        to: arguments.to,
        value: U256::ZERO,
        data: arguments.data.0.clone(),
        chain_id: U256::from(chain_id),
        group_id: U256::from(group),
        extra_data: Bytes::new(),
    };
    Ok(transaction.sign(&key))
}

/// JSON-RPC over HTTP.
struct Client {
    agent: ureq::Agent,
    url: String,
    group: GroupId,
}

impl Client {
    fn new(url: &str, group: GroupId) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(REPLY_TIMEOUT)).http_status_as_error(false).build().into();
        Self { agent, url: url.to_owned(), group }
    }

    fn unexpected(&self, method: &str, reply: &Value) -> Fault {
        let mut text = reply.to_string();
        text.truncate(text.char_indices().nth(300).map_or(text.len(), |(end, _)| end));
        Fault::new(
            FaultKind::Operation,
            format!("{} answered {method} with {text}", self.url),
            "check that --rpc names a node's JSON-RPC port",
        )
    }

    /// The `result` of a request.
    fn ask(&self, method: &str, params: Value) -> Result<Value, Fault> {
        let unreachable = |error: ureq::Error| {
            let what = format!("{} cannot be asked: {error}", self.url);
            Fault::new(
                FaultKind::Network,
                what,
                "check that the node runs and that --rpc names its JSON-RPC port, for example http://127.0.0.1:8545",
            )
        };
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut response = self.agent.post(&self.url).header("content-type", "application/json").send(&body).map_err(unreachable)?;
        let text = response.body_mut().with_config().limit(MAX_REPLY_BYTES).read_to_string().map_err(unreachable)?;
        let mut reply: Value = serde_json::from_str(&text).map_err(|_| self.unexpected(method, &Value::String(text)))?;
        if let Some(error) = reply.get("error") {
            let (code, message) = (error["code"].as_i64().unwrap_or_default(), error["message"].as_str().unwrap_or_default());
            let what = format!("the node refused {method}: {message} (code {code})");
            return Err(Fault::new(FaultKind::Operation, what, format!("correct the request; group asked: {}", self.group)));
        }
        match reply.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(self.unexpected(method, &reply)),
        }
    }

    /// A result that is a hexadecimal number.
    fn number(&self, method: &str, params: Value) -> Result<u64, Fault> {
        let result = self.ask(method, params)?;
        let digits = result.as_str().and_then(|text| text.strip_prefix("0x"));
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| self.unexpected(method, &result))
    }

    fn wait_for_receipt(&self, hash: &Value, timeout: Duration) -> Result<Value, Fault> {
        let started = Instant::now();
        loop {
            let receipt = self.ask("getTransactionReceipt", json!([self.group.get(), hash]))?;
            if !receipt.is_null() {
                return Ok(receipt);
            }
            if started.elapsed() > timeout {
                let what = format!("there is no receipt of {hash} after {} seconds", timeout.as_secs());
                return Err(Fault::new(
                    FaultKind::Operation,
                    what,
                    "it may still be committed: ask getTransactionReceipt later, and do not send it again before its block limit",
                ));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn hex_is_read_with_and_without_prefix() {
        assert_eq!("0x01ff".parse::<HexBytes>().unwrap().0[..], [1, 0xff]);
        assert_eq!("01FF".parse::<HexBytes>().unwrap().0[..], [1, 0xff]);
        assert_eq!("".parse::<HexBytes>().unwrap().0.len(), 0);
        assert!("0x1".parse::<HexBytes>().is_err());
    }

    /// A server that answers one request with a fixed body, and the address it listens on.
    fn answer_once(body: &'static str) -> (thread::JoinHandle<()>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
        });
        (server, url)
    }

    fn ask(body: &'static str) -> Result<u64, Fault> {
        let (server, url) = answer_once(body);
        let result = Client::new(&url, GroupId::new(1).unwrap()).number("getBlockNumber", json!([1]));
        server.join().unwrap();
        result
    }

    #[test]
    fn replies_are_results_refusals_or_nonsense() {
        assert_eq!(ask(r#"{"id":1,"jsonrpc":"2.0","result":"0x1f"}"#).unwrap(), 31);
        let refused = ask(r#"{"id":1,"jsonrpc":"2.0","error":{"code":-40009,"message":"no"}}"#).unwrap_err();
        assert!(refused.to_string().contains("-40009") && refused.kind == FaultKind::Operation);
        assert!(ask("<html>").unwrap_err().to_string().contains("JSON-RPC port"));
    }

    #[test]
    fn node_that_does_not_run_is_a_network_fault() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let fault = Client::new(&format!("http://{free}"), GroupId::new(1).unwrap()).ask("getBlockNumber", json!([1])).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Network);
    }
}
