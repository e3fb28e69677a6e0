//! The `millrace` program; everything is in the library.

use std::process::ExitCode;

/// Messages are freed on another thread than the one that made them, where mimalloc is several times faster than glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millrace::cli::main()
}
