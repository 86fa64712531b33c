//! Tenantry, the program. All it has of its own is the allocator: buffers are made on one core and freed on
//! another, which mimalloc is good at.
//!
//! What is freed goes back to the kernel at once. By itself mimalloc waits for a moment, and then for the thread to
//! allocate again: a server that has got over a burst of large bodies would keep their pages for as long as it is
//! quiet, several times what `limits.in_flight_bytes_max` lets it hold. Under load that costs nothing to be found.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, milliseconds: the bindings have no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: stores an integer in mimalloc's table of options, which is set up before `main` and checks the index;
    // no other thread is there to read it. What `MIMALLOC_PURGE_DELAY` in the environment says goes before it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    tenantry::run_from_args(std::env::args_os())
}
