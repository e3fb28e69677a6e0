//! Storage engines on databases: the only crate that links one.
//!
//! [`rocksdb`] is the embedded default, one database directory a group; [`mysql`] is for databases on a server. Every engine here runs the conformance suite of
//! [`millrace_core::storage::conformance`] and maps what its database reports to [`millrace_core::StorageError`], so that no layer above
//! knows which database it runs on.

pub mod mysql;
pub mod rocksdb;
