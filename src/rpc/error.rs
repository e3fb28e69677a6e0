//! JSON-RPC errors in the words of the reference node (`spec/client-protocol.md` 1.6).
//!
//! SDKs and test suites match on codes and on substrings of messages, so the texts here are protocol. Errors of the envelope have no
//! `data` member, errors raised inside a method carry `"data":null`.

use std::borrow::Cow;

use millrace_base::hex;
use millrace_base::rlp::RlpError;
use millrace_base::transaction::DecodeError;
use millrace_ledger::view::{CallError, StateError, StorageError, SubmitError};

use crate::limits::MAX_ECHO_BYTES;

/// Where an error arose; decides whether it has a `data` member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Before a method ran.
    Envelope,
    /// Inside a method.
    Method,
}

/// A JSON-RPC error object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcError {
    /// Number that clients match on.
    pub code: i32,
    /// Text that clients match substrings of.
    pub message: Cow<'static, str>,
    /// Decides whether `data` is shown.
    pub origin: Origin,
}

const INVALID_PARAMS: &str = "INVALID_PARAMS: Invalid method parameters (invalid name and/or type) recognised";

impl RpcError {
    const fn envelope(code: i32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), origin: Origin::Envelope }
    }

    /// An error raised inside a method.
    pub fn method(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), origin: Origin::Method }
    }

    /// The body is not JSON.
    pub const PARSE: Self = Self::envelope(-32700, "JSON_PARSE_ERROR: The JSON-Object is not JSON-Valid");
    /// The JSON is not a request.
    pub const INVALID_REQUEST: Self = Self::envelope(-32600, "INVALID_JSON_REQUEST: The JSON sent is not a valid JSON-RPC Request object");
    /// A batch has more requests than [`millrace_base::limits::MAX_RPC_BATCH`].
    pub const BATCH_TOO_LONG: Self = Self::envelope(-32600, "INVALID_JSON_REQUEST: too many requests in one batch; split it");
    /// No such method.
    pub const METHOD_NOT_FOUND: Self =
        Self::envelope(-32601, "METHOD_NOT_FOUND: The method being requested is not available on this server");
    /// Count or type of parameters differs from the declared one.
    pub const INVALID_PARAMS: Self = Self::envelope(-32602, INVALID_PARAMS);
    /// A parameter has the declared type but cannot be converted.
    pub const CONVERSION: Self = Self { code: -32602, message: Cow::Borrowed(INVALID_PARAMS), origin: Origin::Method };
    /// A request without id.
    pub const NOTIFICATION: Self = Self::envelope(-32604, "PROCEDURE_IS_METHOD: The requested notification is declared as a method");

    const fn known(code: i32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), origin: Origin::Method }
    }

    /// The group does not run here.
    pub const NO_GROUP: Self = Self::known(-40001, "GroupID does not exist");
    /// No block has this hash.
    pub const NO_BLOCK_HASH: Self = Self::known(-40003, "BlockHash does not exist");
    /// No block has this height.
    pub const NO_BLOCK_NUMBER: Self = Self::known(-40004, "BlockNumber does not exist");
    /// The block has fewer transactions.
    pub const NO_INDEX: Self = Self::known(-40005, "TransactionIndex is out of range");
    /// A `call` without sender.
    pub const NO_FROM: Self = Self::known(-40006, "Call needs a 'from' field");
    /// Views are a notion of PBFT.
    pub const NO_VIEW: Self = Self::known(-40007, "Only pbft consensus supports the view property");
    /// Not one of the on-chain settings.
    pub const NO_SYSTEM_CONFIG: Self = Self::known(-40008, "Invalid System Config");
    /// The node is neither sealer nor observer of the group.
    pub const NOT_A_MEMBER: Self = Self::known(-40009, "Don't send request to this node who doesn't belong to the group");
    /// The code of [`Self::not_allowed`].
    pub const NOT_ALLOWED_CODE: i32 = -40012;

    /// The client is not on the group's list of clients.
    pub fn not_allowed(method: &str) -> Self {
        Self::method(Self::NOT_ALLOWED_CODE, format!("{method} The SDK is not allowed to access this group"))
    }

    /// More requests a second than `flow_control.limit_req` lets in.
    pub fn over_rate(method: &str) -> Self {
        Self::method(-40011, format!("{method} Over QPS limit"))
    }

    /// Group management is switched off.
    pub const GROUPS_FORBIDDEN: Self = Self::known(-100001, "Dynamic group related interfaces are forbidden to access");

    /// A failure inside the node, in the frame that SDKs know: prefix, exception name, bracketed comment.
    pub fn internal(exception: &str, details: &str) -> Self {
        let message = format!(
            "INTERNAL_ERROR: : INTERNAL_ERROR: : Dynamic exception type: {exception}\nstd::exception::what: std::exception\n{details}"
        );
        Self::method(-32603, message)
    }

    /// The node cannot answer now; nothing is wrong with the request.
    pub fn unavailable(reason: &str) -> Self {
        Self::internal("boost::wrapexcept<dev::eth::TransactionRefused>", &comment(reason))
    }

    /// The code of a block that this node does not keep any more. Not of the reference node, which keeps all: another node may have it.
    pub const PRUNED_CODE: i32 = -40_100;

    /// Storage failed, and the details are for the operator, who finds them in the log too; or the block is not kept here.
    pub fn storage(error: &StorageError) -> Self {
        if let StorageError::Pruned { .. } = error {
            return Self::method(Self::PRUNED_CODE, error.to_string());
        }
        tracing::error!(%error, "a client's request failed on storage");
        Self::internal("millrace::StorageError", &comment(&error.to_string()))
    }

    /// A text parameter that should be a number is none.
    pub fn not_a_number(text: &str) -> Self {
        Self::internal("boost::wrapexcept<dev::BadCast>", &comment(&format!("can't convert {} to int", echo(text))))
    }

    /// A text parameter has digits that are not hexadecimal.
    pub fn bad_hex() -> Self {
        Self::internal("boost::wrapexcept<dev::BadHexCharacter>", "")
    }

    /// A number does not fit its type.
    pub fn out_of_range() -> Self {
        Self::method(
            -32603,
            "INTERNAL_ERROR: : INTERNAL_ERROR: : Dynamic exception type: boost::wrapexcept<boost::bad_lexical_cast>\n\
             std::exception::what: bad lexical cast: source type value could not be interpreted as target\n",
        )
    }

    /// A text parameter is not an address of 40 hexadecimal digits.
    pub fn bad_address() -> Self {
        Self::internal("boost::wrapexcept<dev::InvalidAddress>", "")
    }

    /// A text parameter is not hexadecimal data.
    pub fn bad_data(text: &str) -> Self {
        // "intepret" is the reference node's spelling.
        Self::method(
            -32603,
            format!(
                "INTERNAL_ERROR: : INTERNAL_ERROR: : Dynamic exception type: std::invalid_argument\n\
                 std::exception::what: Cannot intepret '{}' as bytes; must be 0x-prefixed hex or decimal.\n",
                echo(text)
            ),
        )
    }

    /// Why a transaction was not accepted. `raw` is what the client sent.
    pub fn submission(error: &SubmitError, raw: &[u8]) -> Self {
        match error {
            SubmitError::Decode(error) => decode_error(*error, raw),
            SubmitError::Refused(refusal) => Self::internal("boost::wrapexcept<dev::eth::TransactionRefused>", &comment(&refusal.comment)),
            SubmitError::NoSuchGroup => Self::NO_GROUP,
            SubmitError::Busy(reason) => Self::unavailable(reason),
        }
    }

    /// Why a `call` has no result.
    pub fn call(error: &CallError) -> Self {
        match error {
            CallError::Busy => Self::unavailable(&error.to_string()),
            CallError::State(error) => Self::state(error),
        }
    }

    /// Why the state of a block cannot be read. 2.x clients never ask for one.
    pub fn state(error: &StateError) -> Self {
        match error {
            StateError::NoSuchBlock => Self::NO_BLOCK_NUMBER,
            StateError::NotKept | StateError::NoProofs | StateError::Tables => Self::method(-40020, error.to_string()),
            StateError::Storage(error) => Self::storage(error),
        }
    }
}

fn comment(text: &str) -> String {
    format!("[dev::tag_comment*] = {text}\n")
}

/// A client's own text, cut to a bounded length.
fn echo(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ECHO_BYTES)]
}

fn decode_error(error: DecodeError, raw: &[u8]) -> RpcError {
    let field = || {
        let shown = hex::encode(&raw[..raw.len().min(MAX_ECHO_BYTES)]);
        format!("[dev::eth::tag_field*] = invalid rc2 transaction format, invalid Field:{}, RLP: {shown}\n", error.field())
    };
    let sizes = |announced: usize, available: usize| comment(&format!("Actual size: {announced}, data size: {available}"));
    let (exception, details) = match error {
        DecodeError::Envelope(RlpError::Oversize { announced, available }) => ("dev::OversizeRLP", sizes(announced, available)),
        DecodeError::Envelope(RlpError::Undersize { announced, available }) => ("dev::UndersizeRLP", sizes(announced, available)),
        DecodeError::Envelope(error) => ("dev::BadRLP", comment(&error.to_string())),
        DecodeError::TooLarge(_) => ("dev::eth::InvalidTransactionFormat", comment(&error.to_string())),
        DecodeError::NotAList | DecodeError::DataNotAString => {
            ("dev::eth::InvalidTransactionFormat", comment(&error.to_string()) + &field())
        }
        DecodeError::Field(_, RlpError::Missing) => ("dev::BadRLP", field()),
        DecodeError::Field(..) => ("dev::BadCast", field()),
        DecodeError::Signature => ("dev::eth::InvalidSignature", field()),
    };
    RpcError::internal(&format!("boost::wrapexcept<{exception}>"), &details)
}
