//! Chains of several nodes as their operators run them: killed, wiped, cut off from each other, joined and removed while they are loaded.
//!
//! Names in `docs/reliability.md` lead from the rows of the reliability specification to these tests. Figures that a test measures are
//! printed: `cargo nextest run --release nodes:: --no-capture`.

mod access;
mod agreement;
mod cluster;
mod crashes;
mod data;
mod hostile;
mod isolation;
mod lifecycle;
mod machines;
mod membership;
mod partition;
mod raft;
mod stranger;
mod tries;
