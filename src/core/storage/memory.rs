//! The in-memory engine, for tests and as the model the conformance suite compares others with.
