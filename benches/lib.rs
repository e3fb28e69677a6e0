//! The project's benchmarks live in `benches/` of this crate, one criterion binary; this library is empty.
