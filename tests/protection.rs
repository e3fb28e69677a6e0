//! Clients that mean harm, against a whole node (`spec/reliability.md` X4, X5, Z5, Z6); the figures are printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millrace_base::{Address, Bytes, Transaction, U256};
use serde_json::{Value, json};

use crate::client::{key, receipt, send, shown, text, transaction};
use crate::network::{Network, request};

/// Order of the curve: `n - s` is the other valid value of `s`.
const ORDER: &str = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

fn call(network: &Network) -> Transaction {
    transaction(network, Some(Address::repeat_byte(0x77)), Bytes::new())
}

fn number(value: U256) -> Vec<u8> {
    string(&value.to_be_bytes_trimmed_vec())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [single] if *single < 0x80 => vec![*single],
        _ => [framed(0x80, bytes.len()), bytes.to_vec()].concat(),
    }
}

fn framed(kind: u8, length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short) if short < 56 => vec![kind + short],
        Ok(long) => vec![kind + 56, long],
        Err(_) => [vec![kind + 57], u16::try_from(length).unwrap().to_be_bytes().to_vec()].concat(),
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    [framed(0xc0, payload.len()), payload].concat()
}

/// The thirteen items of a signed transaction, encoded one by one.
fn items(raw: &millrace_base::RawTx) -> Vec<Vec<u8>> {
    let (fields, signature) = (raw.fields(), raw.signature());
    let to = fields.to.map_or_else(Vec::new, |to| to.to_vec());
    let numbers = |values: &[U256]| values.iter().map(|value| number(*value)).collect::<Vec<_>>();
    let mut items = numbers(&[fields.nonce, fields.gas_price, fields.gas, fields.block_limit]);
    items.push(string(&to));
    items.push(number(fields.value));
    items.push(string(&fields.data));
    items.extend(numbers(&[fields.chain_id, fields.group_id]));
    items.push(string(&fields.extra_data));
    items.extend(numbers(&[
        U256::from(signature.recovery_id()) + U256::from(27),
        U256::from_be_bytes(signature.r().0),
        U256::from_be_bytes(signature.s().0),
    ]));
    items
}

#[test]
fn only_one_form_of_a_signed_transaction_has_a_hash() {
    let network = Network::start(1);
    let raw = call(&network).sign(&key("cow"));
    let items = items(&raw);
    assert_eq!(list(&items), raw.encoded().to_vec(), "the test encodes as the node does");
    let order: U256 = ORDER.parse().unwrap();
    let with = |position: usize, item: Vec<u8>| {
        let mut changed = items.clone();
        changed[position] = item;
        list(&changed)
    };
    let s = U256::from_be_bytes(raw.signature().s().0);
    let other_v = 27 + u64::from(raw.signature().recovery_id() ^ 1);
    let mut high_s = items.clone();
    (high_s[10], high_s[12]) = (number(U256::from(other_v)), number(order - s));
    let mut forms = vec![("s above half the order", list(&high_s)), ("s above half the order, same v", with(12, number(order - s)))];
    for v in (0..=255).filter(|v| *v != 27 && *v != 28) {
        forms.push(("v", with(10, number(U256::from(v)))));
    }
    for position in [11, 12] {
        for value in [U256::ZERO, order, order + U256::ONE, U256::MAX] {
            forms.push(("r or s out of range", with(position, number(value))));
        }
    }
    for position in [0, 1, 2, 3, 5, 7, 8, 10, 11, 12] {
        let mut zeros = items[position].clone();
        zeros = if zeros.len() == 1 { string(&[0, zeros[0]]) } else { string(&[vec![0], zeros[1..].to_vec()].concat()) };
        forms.push(("leading zero", with(position, zeros)));
        forms.push(("a list for a number", with(position, vec![0xc1, 0x01])));
    }
    forms.push(("a single byte in a long form", with(0, [vec![0x81], vec![0x05]].concat())));
    forms.push(("a list for data", with(6, vec![0xc0])));
    forms.push(("an address of 19 bytes", with(4, string(&[7; 19]))));
    forms.push(("no signature", list(&items[..10])));
    forms.push(("no s", list(&items[..12])));
    forms.push(("truncated", raw.encoded()[..raw.encoded().len() - 1].to_vec()));
    for (name, form) in &forms {
        let reply = send(&network, form);
        assert_eq!(reply["error"]["code"], -32603, "{name}: {reply}");
    }
    // What 2.x lets pass has no hash of its own: an item, or bytes, behind the last one do not count.
    for form in [list(&[items.clone(), vec![vec![0x01]]].concat()), [raw.encoded().to_vec(), vec![0]].concat()] {
        let reply = send(&network, &form);
        let hash = raw.hash().to_string();
        assert!(reply["result"] == hash || reply["error"]["code"] == -32603, "{reply}");
    }
    let reply = send(&network, raw.encoded());
    assert!(
        reply["result"] == raw.hash().to_string()
            || text(&reply["error"]["message"]).contains("Alread")
            || text(&reply["error"]["message"]).contains("Nonce")
    );
    receipt(&network, &raw.hash().to_string());
    assert_eq!(network.result("getTotalTransactionCount", "[1]")["txSum"], "0x1", "{} forms, one transaction", forms.len() + 3);
}

#[test]
fn transaction_sent_again_is_refused_by_name_also_after_a_restart() {
    let mut network = Network::start(2);
    let raw = call(&network).sign(&key("cow")).encoded().clone();
    let sent = send(&network, &raw);
    receipt(&network, text(&sent["result"]));
    let refusal = |network: &Network, group: u16, raw: &Bytes| {
        let reply = network.ask("sendRawTransaction", &json!([group, shown(raw)]).to_string());
        assert_eq!(reply["error"]["code"], -32603, "{reply}");
        text(&reply["error"]["message"]).to_owned()
    };
    let again = refusal(&network, 1, &raw);
    assert!(again.contains("NonceCheckFail") || again.contains("TransactionAlreadyInChain"), "{again}");
    assert!(refusal(&network, 2, &raw).contains("InvalidGroupId"));
    let of_another_chain = Transaction { chain_id: U256::from(2), ..call(&network) }.sign(&key("cow")).encoded().clone();
    assert!(refusal(&network, 1, &of_another_chain).contains("InvalidChainId"));
    network.kill();
    network.restart();
    let again = refusal(&network, 1, &raw);
    assert!(again.contains("NonceCheckFail") || again.contains("TransactionAlreadyInChain"), "{again}");
    assert_eq!(network.result("getTotalTransactionCount", "[1]")["txSum"], "0x1");
    assert_eq!(network.result("getTotalTransactionCount", "[2]")["txSum"], "0x0");
}

/// Memory of the node that is in use, bytes.
fn resident(network: &Network) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", network.process())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// The reply to a body on a connection of its own, and how long it took; nothing when the node closes first.
fn post(network: &Network, body: &[u8]) -> (String, Duration) {
    let mut stream = TcpStream::connect(network.socket(0)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let started = Instant::now();
    stream.write_all(head.as_bytes()).unwrap();
    // The node may refuse by the head alone and close.
    let _ = stream.write_all(body);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    (String::from_utf8_lossy(&reply).into_owned(), started.elapsed())
}

#[test]
fn oversized_requests_are_refused_at_once_and_leave_no_memory_behind() {
    const MEGABYTE: usize = 1 << 20;
    let network = Network::start(1);
    network.height(1);
    let before = resident(&network);
    let call = r#"{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":1}"#;
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("a body of 64 MB", vec![b'x'; 64 * MEGABYTE], "413"),
        ("nesting of 100,000", b"[".repeat(100_000), "stackLimit"),
        ("a batch of 100,000", format!("[{}]", vec![call; 100_000].join(",")).into_bytes(), "-32600"),
        ("an id of 1 MB", call.replace("\"id\":1", &format!("\"id\":\"{}\"", "i".repeat(MEGABYTE))).into_bytes(), "200 OK"),
        ("a method of 1 MB", call.replace("getBlockNumber", &"m".repeat(MEGABYTE)).into_bytes(), "-32601"),
    ];
    for (name, body, answer) in &cases {
        let slowest = (0..5).map(|_| post(&network, body)).map(|(reply, time)| {
            // A client that still writes may see the connection reset before it reads the refusal.
            assert!(reply.contains(answer) || *answer == "413" && reply.is_empty(), "{name}: {}", &reply[..reply.len().min(300)]);
            time
        });
        println!("{name}: answered within {:?}", slowest.max().unwrap());
    }
    assert_eq!(network.height(1), 0);
    let grown = resident(&network).saturating_sub(before) / MEGABYTE as u64;
    println!("memory grew by {grown} MB");
    assert!(grown < 128, "{grown} MB");
}

/// A client that behaves, on one connection that it keeps.
struct Honest(BufReader<TcpStream>);

impl Honest {
    fn ask(&mut self) -> Value {
        let body = request("getBlockNumber", "[1]");
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all((head + &body).as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection is kept");
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => assert!(line.contains("200"), "{line}"),
            }
        }
        let mut reply = vec![0; length];
        self.0.read_exact(&mut reply).unwrap();
        serde_json::from_slice(&reply).unwrap()
    }

    /// Whether a request is answered at all.
    fn try_ask(&mut self) -> bool {
        let body = request("getBlockNumber", "[1]");
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = self.0.get_mut().write_all((head + &body).as_bytes());
        self.0.read_line(&mut String::new()).is_ok_and(|read| read > 0)
    }

    /// The time within which 99 of 100 requests are answered.
    fn p99(&mut self) -> Duration {
        let mut times: Vec<_> = (0..500)
            .map(|_| {
                let started = Instant::now();
                assert_eq!(self.ask()["result"], "0x0");
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[495]
    }
}

#[test]
fn thousands_of_idle_connections_and_half_handshakes_leave_honest_clients_alone() {
    const EACH: usize = 1_500;
    let network = Network::start(1);
    let mut client = Honest(BufReader::new(TcpStream::connect(network.socket(0)).unwrap()));
    let before = (resident(&network), client.p99());
    let mut open = Vec::new();
    let mut connect = |port: u16, greeting: &[u8]| {
        for _ in 0..EACH {
            let Ok(mut stream) = TcpStream::connect_timeout(&network.socket(port), Duration::from_secs(2)) else { continue };
            let _ = stream.write_all(greeting);
            open.push(stream);
        }
    };
    // HTTP without a head and with a slow one; the channel port with nothing, and with the start of a TLS record.
    connect(0, b"");
    connect(0, b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    connect(1, b"");
    connect(1, &[0x16, 3, 1, 2, 0]);
    // All come from one address, which does not get more places for that; who is inside already is served as before.
    let during = client.p99();
    let grown = resident(&network).saturating_sub(before.0) / (1 << 20);
    println!("{} connections were tried: honest p99 {during:?}, before {:?}; memory grew by {grown} MB", open.len(), before.1);
    assert!(grown < 256, "{grown} MB");
    assert!(during < Duration::from_millis(100), "{during:?}");
    drop(open);
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(network.socket(0)).map(|stream| Honest(BufReader::new(stream)).try_ask()).is_ok_and(|answered| !answered) {
        assert!(Instant::now() < end, "places are not given back");
    }
}
