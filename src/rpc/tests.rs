//! Tests over real sockets against a fake node that holds the recorded chain.

mod channel;
mod client;
mod fake;
mod hostile;
mod limits;
mod recordings;
mod replay;
mod submission;
