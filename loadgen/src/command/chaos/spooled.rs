//! What the servers of a run had to do with their spool, by their own metrics. A server that ends is asked before.

use std::iter::Sum;
use std::str::FromStr;

use serde::Serialize;

use crate::command::server::Server;

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SpoolUse {
    /// Parts that went into it.
    pub(super) parts: u64,
    /// Parts that it could not take, as the disk was full or late.
    pub(super) refused: u64,
    /// Writes of what had come.
    pub(super) commits: u64,
    /// Those that failed.
    pub(super) commits_failed: u64,
    /// How long they took together, in seconds.
    pub(super) commit_seconds: f64,
}

impl SpoolUse {
    /// Adds what a server tells. One that does not answer any more tells nothing.
    pub(super) fn add(&mut self, server: &Server) {
        if let Ok(page) = server.page("metrics") {
            self.add_page(&page);
        }
    }

    fn add_page(&mut self, page: &str) {
        self.parts += sum::<u64>(page, "tenantry_spooled_parts_total");
        self.refused += sum::<u64>(page, "tenantry_spool_refused_parts_total{");
        self.commits += sum::<u64>(page, "tenantry_spool_commit_seconds_count");
        self.commits_failed += sum::<u64>(page, "tenantry_spool_errors_total{operation=\"commit\"}");
        self.commit_seconds += sum::<f64>(page, "tenantry_spool_commit_seconds_sum");
    }

    /// How long one write took, in milliseconds.
    pub(super) fn commit_ms(&self) -> f64 {
        self.commit_seconds * 1e3 / (self.commits.max(1) as f64)
    }
}

/// The sum of the metrics whose lines begin so.
fn sum<N: FromStr + Sum>(page: &str, series: &str) -> N {
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<N>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_several_servers_are_added_up() {
        let page = "# TYPE tenantry_spooled_parts_total counter\n\
                    tenantry_spooled_parts_total 5\n\
                    tenantry_spool_refused_parts_total{reason=\"full\"} 1\n\
                    tenantry_spool_refused_parts_total{reason=\"failed\"} 2\n\
                    tenantry_spool_commit_seconds_bucket{le=\"+Inf\"} 4\n\
                    tenantry_spool_commit_seconds_sum 0.5\n\
                    tenantry_spool_commit_seconds_count 4\n\
                    tenantry_spool_errors_total{operation=\"commit\"} 1\n\
                    tenantry_spool_errors_total{operation=\"tidy\"} 7\n";
        let mut used = SpoolUse::default();
        (0..2).for_each(|_| used.add_page(page));
        assert_eq!((used.parts, used.refused, used.commits, used.commits_failed), (10, 6, 8, 2));
        assert!((used.commit_ms() - 125.0).abs() < 1e-9);
    }
}
