//! The operator's faults: conditions that end the program with their own exit code and say what to do.
//!
//! Refusals of bad input are values of other types; bugs are assertions. Neither is a [`Fault`].

use std::fmt;

/// What kind of operator fault ended the program; decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A configuration file, key or certificate cannot be used.
    Config,
    /// A port is taken or an address cannot be bound.
    Network,
    /// The database is damaged, belongs to another chain, or is held by another process.
    Storage,
    /// The disk is full or cannot be written.
    Disk,
    /// Something else the operator asked for failed.
    Operation,
}

impl FaultKind {
    /// Exit code of the process, from 64 upwards so that shells and panics do not collide with it.
    pub fn exit_code(self) -> u8 {
        match self {
            FaultKind::Operation => 64,
            FaultKind::Config => 65,
            FaultKind::Network => 66,
            FaultKind::Storage => 67,
            FaultKind::Disk => 68,
        }
    }
}

/// An operator fault: what happened and what to do about it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Decides the exit code.
    pub kind: FaultKind,
    /// What happened, with the file, key or address concerned.
    pub what: String,
    /// What the operator can do.
    pub remedy: String,
}

impl Fault {
    /// Builds a fault; both texts are shown to the operator.
    pub fn new(kind: FaultKind, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  what to do: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Fault {}
