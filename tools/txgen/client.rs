//! JSON-RPC over HTTP/1.1 with one kept connection a [`Client`]. Blocking: each connection has a thread of its own.

use std::fmt;
use std::time::Duration;

use millrace_base::status::TransactionStatus;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// Largest answer that is read: a block of 100,000 receipts with logs.
const MAX_ANSWER_BYTES: u64 = 512 << 20;

/// Why a request has no result.
#[derive(Clone, Debug)]
pub enum ClientError {
    /// No connection: the request never left.
    Unreachable(String),
    /// The connection failed or timed out on the way: whether the node acted on the request is unknown.
    Transport(String),
    /// The node answered with another HTTP status than 200.
    Http(u16),
    /// The answer is not JSON-RPC.
    Protocol(String),
    /// The node answered with an error.
    Rpc(RpcError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "cannot connect: {why}"),
            Self::Transport(why) => write!(f, "connection failed: {why}"),
            Self::Http(status) => write!(f, "HTTP status {status}"),
            Self::Protocol(why) => write!(f, "not a JSON-RPC answer: {why}"),
            Self::Rpc(error) => write!(f, "error {}: {}", error.code, error.message),
        }
    }
}

/// The `error` member of an answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RpcError {
    /// JSON-RPC code; -32603 carries the refusals of the pool.
    pub code: i64,
    /// Text; the words of the pool's refusals are in it.
    #[serde(default)]
    pub message: String,
}

/// Statuses with which a pool refuses, most telling word first: the reference node's texts name `TransactionRefused` in all of them.
const REFUSALS: [TransactionStatus; 10] = [
    TransactionStatus::TxPoolIsFull,
    TransactionStatus::OverGroupMemoryLimit,
    TransactionStatus::BlockLimitCheckFail,
    TransactionStatus::NonceCheckFail,
    TransactionStatus::AlreadyKnown,
    TransactionStatus::AlreadyInChain,
    TransactionStatus::InvalidChainId,
    TransactionStatus::InvalidGroupId,
    TransactionStatus::MalformedTx,
    TransactionStatus::TransactionRefused,
];

impl RpcError {
    /// The pool's status that the text names, if any.
    pub fn refusal(&self) -> Option<TransactionStatus> {
        if self.message.contains("TxPoolNonceCheckFail") {
            return Some(TransactionStatus::NonceCheckFail);
        }
        REFUSALS.into_iter().find(|status| self.message.contains(status.refusal_word()))
    }

    /// Key under which the error is counted: the pool's status where it is known, else the JSON-RPC code.
    pub fn count_key(&self) -> String {
        match self.refusal() {
            Some(status) => format!("{} {}", status.code(), status.refusal_word()),
            None => self.code.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct RawAnswer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// One answer of a batch.
pub struct Answer {
    /// Id of the request; `None` when the answer is to the batch as a whole.
    pub id: Option<u64>,
    /// JSON text of the result.
    pub outcome: Result<Box<RawValue>, RpcError>,
}

impl From<RawAnswer> for Answer {
    fn from(raw: RawAnswer) -> Self {
        let outcome = match (raw.error, raw.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(result),
            (None, None) => Ok(RawValue::from_string("null".into()).expect("null is JSON")),
        };
        Self { id: raw.id.as_u64(), outcome }
    }
}

/// A connection to one endpoint.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    /// Nothing is connected before the first request.
    pub fn new(url: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .user_agent("txgen")
            .build();
        Self { agent: config.new_agent(), url: url.to_owned() }
    }

    /// Address of the endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a body and returns the body of the answer.
    pub fn post(&self, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut response = self.agent.post(&self.url).content_type("application/json").send(body).map_err(|error| sort_error(&error))?;
        if response.status().as_u16() != 200 {
            return Err(ClientError::Http(response.status().as_u16()));
        }
        let reader = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        reader.read_to_vec().map_err(|error| ClientError::Transport(error.to_string()))
    }

    /// One call, its result decoded.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T, ClientError> {
        let answer = self.post(request(method, params, 1).as_bytes())?;
        let answer: RawAnswer = parse(&answer)?;
        let result = Answer::from(answer).outcome.map_err(ClientError::Rpc)?;
        parse(result.get().as_bytes())
    }

    /// Several calls of one method in one batch; results in the order of `params`, `None` where the node answered an error.
    pub fn call_many<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<Vec<Option<T>>, ClientError> {
        let requests: Vec<String> = params.iter().enumerate().map(|(id, params)| request(method, params, id)).collect();
        let answers = parse_answers(&self.post(format!("[{}]", requests.join(",")).as_bytes())?)?;
        let mut results: Vec<Option<T>> = params.iter().map(|_| None).collect();
        for answer in answers {
            let Some(id) = answer.id else {
                return Err(ClientError::Rpc(answer.outcome.err().unwrap_or_default()));
            };
            let slot = usize::try_from(id).ok().and_then(|id| results.get_mut(id));
            if let (Some(slot), Ok(result)) = (slot, answer.outcome) {
                *slot = Some(parse(result.get().as_bytes())?);
            }
        }
        Ok(results)
    }
}

fn request(method: &str, params: &Value, id: usize) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params},\"id\":{id}}}")
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// Answers to a batch or to a single request.
pub fn parse_answers(text: &[u8]) -> Result<Vec<Answer>, ClientError> {
    let is_batch = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let raw: Vec<RawAnswer> = if is_batch { parse(text)? } else { vec![parse(text)?] };
    Ok(raw.into_iter().map(Answer::from).collect())
}

fn sort_error(error: &ureq::Error) -> ClientError {
    use std::io::ErrorKind;
    let is_unsent = match error {
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound | ureq::Error::BadUri(_) => true,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
        ureq::Error::Io(io) => matches!(io.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable),
        _ => false,
    };
    if is_unsent { ClientError::Unreachable(error.to_string()) } else { ClientError::Transport(error.to_string()) }
}

/// A number as the node prints it: `0x` and hexadecimal digits.
pub fn parse_number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> RpcError {
        RpcError { code: -32603, message: message.into() }
    }

    #[test]
    fn the_word_in_the_text_decides_the_code() {
        let full = error("std: Dynamic exception type: wrapexcept<TransactionRefused> = TransactionPoolIsFull, txHash=1");
        assert_eq!(full.count_key(), "28 TransactionPoolIsFull");
        assert_eq!(error("wrapexcept<TransactionRefused> TxPoolNonceCheckFail").refusal(), Some(TransactionStatus::NonceCheckFail));
        assert_eq!(RpcError { code: -40001, message: "GroupID does not exist".into() }.count_key(), "-40001");
    }

    #[test]
    fn answers_are_read_singly_and_in_batches() {
        let answers = parse_answers(br#" [{"id":4,"result":"0x1"},{"id":5,"error":{"code":-1,"message":"no"}}]"#).unwrap();
        assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), [Some(4), Some(5)]);
        assert!(answers[0].outcome.is_ok() && answers[1].outcome.is_err());
        let whole = parse_answers(br#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#).unwrap();
        assert_eq!(whole[0].id, None);
        assert!(parse_answers(b"busy").is_err());
    }
}
