//! What the allocator knows about memory.

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Write;

/// The figures of mimalloc, as text.
pub fn allocator() -> String {
    let mut text = process();
    text.push_str(
        "\nThe figures of arenas and of the system's memory (reserved, committed, purged) are of the whole process. \
         Those of\nheaps, pages and sizes are of this thread and of threads that have ended.\n\n",
    );
    // SAFETY: mimalloc calls `append` with texts that end with a NUL and with the pointer that it is given here, on
    // this thread and before it returns. Nothing else uses `text` meanwhile.
    unsafe { libmimalloc_sys::mi_stats_print_out(Some(append), (&raw mut text).cast()) };
    text
}

/// The figures of the whole process.
fn process() -> String {
    let mut figures = [0_usize; 8];
    let [elapsed, user, system, rss, rss_max, committed, committed_max, faults] = &mut figures;
    // SAFETY: each pointer is to a number that the function sets.
    unsafe {
        libmimalloc_sys::mi_process_info(
            elapsed,
            user,
            system,
            rss,
            rss_max,
            committed,
            committed_max,
            faults,
        );
    }
    let mut text = String::new();
    for (name, value) in [
        ("resident bytes", *rss),
        ("resident bytes at most", *rss_max),
        ("committed bytes", *committed),
        ("committed bytes at most", *committed_max),
        ("page faults that read a file", *faults),
    ] {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<30} {value:>14}");
    }
    text
}

/// Appends a text to the String that `to` points to.
unsafe extern "C" fn append(message: *const c_char, to: *mut c_void) {
    // SAFETY: see the only caller of `mi_stats_print_out`: both are valid, and `to` is a String that nothing else uses.
    let (message, text) = unsafe { (CStr::from_ptr(message), &mut *to.cast::<String>()) };
    text.push_str(&message.to_string_lossy());
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_names_what_the_process_has() {
        let text = super::allocator();
        let resident = text.lines().next().and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value);
        assert!(resident.unwrap().parse::<usize>().unwrap() > 1 << 20, "{text}");
        assert!(text.contains("committed"), "{text}");
    }
}
