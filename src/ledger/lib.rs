//! Ledger layer: one group's objects, the registry of groups, and recovery at start.

pub mod view;
