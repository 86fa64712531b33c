//! Figures of this process from /proc (proc(5)).

use std::fs;

/// The figures that Prometheus client libraries usually export.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) open_descriptors: u64,
    pub(super) descriptors_max: u64,
    pub(super) start_seconds: f64,
}

impl Process {
    /// The current figures; those that cannot be read are 0.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            cpu_seconds: stat_cpu_seconds(&stat),
            resident_bytes: stat_field(&stat, 24) * rustix::param::page_size() as f64,
            open_descriptors: fs::read_dir("/proc/self/fd").map_or(0, |d| d.count() as u64),
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            start_seconds: boot_seconds() + stat_field(&stat, 22) / ticks_per_second(),
        }
    }
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second().max(1) as f64
}

/// A field of a `stat` file by its number in proc(5), which must be above 2; 0 if it cannot be read. The second field
/// is a name that may contain spaces and parentheses, so the fields are counted from its closing parenthesis.
fn stat_field(stat: &str, number: usize) -> f64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = behind_name.split_whitespace().nth(number - 3);
    field.and_then(|f| f.parse().ok()).unwrap_or_default()
}

fn boot_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or_default()
}

/// The CPU time that a thread of this process has used; None if there is no such thread. `schedstat` has it in
/// nanoseconds, but sandboxes such as gVisor lack that file; `stat` has it in ticks.
pub(super) fn thread_cpu_seconds(thread: i32) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
    let nanos = read("schedstat").and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanos.map(|nanos| nanos / 1e9).or_else(|| read("stat").map(|stat| stat_cpu_seconds(&stat)))
}

fn stat_cpu_seconds(stat: &str) -> f64 {
    (stat_field(stat, 14) + stat_field(stat, 15)) / ticks_per_second()
}

/// IDs and names of the threads of this process.
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
        assert!(process.resident_bytes > 1e6);
        assert!(process.open_descriptors >= 3 && process.descriptors_max >= process.open_descriptors);
        assert!(process.start_seconds > 1.6e9);
        assert!(threads().iter().any(|(id, _)| thread_cpu_seconds(*id).is_some_and(|s| s >= 0.0)));
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_no_field() {
        let stat = "7 (a b) 1 (c) S 1 2 3 4 5 6 7 8 9 10 300 45 0 0 20 0 3 0 987 1000 55 0";
        assert_eq!(stat_cpu_seconds(stat), 345.0 / ticks_per_second());
        assert_eq!((stat_field(stat, 22), stat_field(stat, 24)), (987.0, 55.0));
        assert_eq!((stat_field(stat, 99), stat_field("", 14)), (0.0, 0.0));
    }

    #[test]
    fn a_busy_thread_uses_its_own_cpu_time() {
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let before = thread_cpu_seconds(me).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(50) {}
        let used = thread_cpu_seconds(me).unwrap() - before;
        assert!(used > 0.0 && used < 1.0, "{used}");
        assert!(thread_cpu_seconds(i32::MAX).is_none());
    }
}
