//! What the kernel knows about this process, from /proc (proc(5)).

use std::fs;

/// The figures that Prometheus client libraries usually export.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_descriptors: u64,
    pub(super) descriptors_max: u64,
    pub(super) start_seconds: f64,
}

impl Process {
    /// As things are now; what can't be read is 0.
    pub(super) fn read() -> Self {
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Numbered from the field after the name, which may hold spaces and ends with the last parenthesis.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
        Self {
            cpu_seconds: (field(14) + field(15)) / ticks,
            resident_bytes: field(24) as u64 * rustix::param::page_size() as u64,
            open_descriptors: fs::read_dir("/proc/self/fd").map_or(0, |d| d.count() as u64),
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            start_seconds: boot_seconds() + field(22) / ticks,
        }
    }
}

fn boot_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or_default()
}

/// The CPU time that a thread of this process has used (its schedstat: nanoseconds on the CPU come first).
pub(super) fn thread_cpu_seconds(thread: i32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let nanos: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanos / 1e9)
}

/// The threads of this process, with their names.
pub(super) fn threads() -> Vec<(i32, String)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut threads: Vec<_> = tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let id = task.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            Some((id, name.trim().to_owned()))
        })
        .collect();
    threads.sort_unstable();
    threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_a_running_process() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20);
        assert!(process.open_descriptors >= 3 && process.descriptors_max >= process.open_descriptors);
        assert!(process.start_seconds > 1.6e9);
        assert!(threads().iter().any(|(id, _)| thread_cpu_seconds(*id).is_some_and(|s| s >= 0.0)));
    }
}
