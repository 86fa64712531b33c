//! The binary. It only sets up the allocator: buffers are allocated on one core and freed on another, which mimalloc
//! handles well.
//!
//! Freed memory goes back to the kernel at once. By default mimalloc waits a moment, and then for the thread's next
//! allocation. After a burst of large bodies, an idle server would keep their pages, several times what
//! `limits.in_flight_bytes_max` allows it to hold. The cost is not measurable under load.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, in milliseconds. The bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: stores an integer in mimalloc's option table, which is initialized before `main`; the index is checked.
    // No other thread exists that could read it. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    tenantry::run_from_args(std::env::args_os())
}
