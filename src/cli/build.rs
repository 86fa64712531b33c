//! What the program says of its origin.
#![forbid(unsafe_code)]

/// The drivers that every build has (`io/driver.rs`). Which one works is found out at the start.
const DRIVERS: &str = "io_uring, epoll";

/// The commit that a program was built from.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The commit's hash, or its beginning; empty if it is not known.
    pub commit: &'static str,
    /// The day of the commit, as `2026-11-26`; empty if it is not known.
    pub date: &'static str,
}

impl Build {
    /// A build of unknown origin.
    pub const UNKNOWN: Self = Self { commit: "", date: "" };

    /// The release and the origin: `0.1.0 (commit cc44a34, 2026-11-26), drivers: io_uring, epoll`.
    ///
    /// clap keeps names for as long as the program runs, so this leaks its text. It is called once or twice.
    pub(super) fn long_version(self) -> &'static str {
        let release = env!("CARGO_PKG_VERSION");
        let commit = if self.commit.is_empty() { "unknown" } else { self.commit };
        let date = if self.date.is_empty() { String::new() } else { format!(", {}", self.date) };
        format!("{release} (commit {commit}{date}), drivers: {DRIVERS}").leak()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_is_known() {
        let build = Build { commit: "cc44a34", date: "2026-11-26" };
        assert!(build.long_version().ends_with(" (commit cc44a34, 2026-11-26), drivers: io_uring, epoll"));
        assert!(Build::UNKNOWN.long_version().contains(" (commit unknown), "));
    }
}
