//! The binary. It knows its origin, and sets up what belongs to the process as a whole.
//!
//! The allocator: buffers are allocated on one core and freed on another, which mimalloc handles well.
//!
//! Freed memory goes back to the kernel at once. By default mimalloc waits a moment, and then for the thread's next
//! allocation. After a burst of large bodies, an idle server would keep their pages, several times what
//! `limits.in_flight_bytes_max` allows it to hold. The cost is not measurable under load.
//!
//! Name lookups, if glibc is linked statically: it would load the machine's NSS modules, which belong to another glibc.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, in milliseconds. The bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: stores an integer in mimalloc's option table, which is initialized before `main`; the index is checked.
    // No other thread exists that could read it. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    look_names_up_without_modules();
    let (commit, date) = tenantry_origin::origin!();
    tenantry::run_from_args(std::env::args_os(), tenantry::Build { commit, date })
}

/// Has glibc look names up in /etc/hosts and by DNS only, whatever /etc/nsswitch.conf says. Both are part of a static
/// program. Any other service is a module of the machine's own glibc: loaded into this one, it may crash.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
fn look_names_up_without_modules() {
    use std::ffi::{c_char, c_int};
    unsafe extern "C" {
        // <nss.h>
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: the signature is that of <nss.h>. Both texts end with a NUL and live forever; glibc parses the second one
    // and keeps a pointer to neither. No other thread exists, so no lookup is under way. An error leaves the default.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}
