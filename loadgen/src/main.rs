//! `loadgen send`, `sink`, `verify`, `demo`, `chaos`, `trial`, `compare`, `report`.

mod command;

use std::process::ExitCode;

/// The demo's server runs in this very program, so it gets the allocator that the server's own program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run()
}
