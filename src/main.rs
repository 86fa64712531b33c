//! Tenantry, the program. All it has of its own is the allocator: buffers are made on one core and freed on
//! another, which mimalloc is good at.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tenantry::run_from_args(std::env::args_os())
}
