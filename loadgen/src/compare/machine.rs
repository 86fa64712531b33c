//! Where a comparison ran: what its figures depend on besides the contenders.

use std::process::{Command, Stdio};
use std::thread;

use procfs::{CpuInfo, Current, Meminfo};
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of its kernel.
    pub kernel: String,
}

impl Machine {
    /// This one. What cannot be found out is `unknown` or 0.
    pub fn own() -> Self {
        let cpu = CpuInfo::current().ok().and_then(|cpu| cpu.model_name(0).map(str::to_owned));
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: Meminfo::current().map_or(0, |memory| memory.mem_total),
            kernel,
        }
    }
}

/// The commit that is checked out here, `-dirty` behind it if there are changes; None outside a repository.
pub fn commit() -> Option<String> {
    let git = |args: &str| output(&format!("git {args}").split(' ').map(str::to_owned).collect::<Vec<_>>());
    let commit = git("rev-parse --short=12 HEAD")?;
    let dirty = git("status --porcelain --untracked-files=no").is_some();
    Some(if dirty { format!("{commit}-dirty") } else { commit })
}

/// The first line that a command prints, to standard output or else to standard error; None when it fails or says
/// nothing.
pub(super) fn output(command: &[String]) -> Option<String> {
    let (program, args) = command.split_first()?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].into_iter().find(|text| !text.trim_ascii().is_empty())?;
    let line = String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty())?.trim().to_owned();
    output.status.success().then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::own();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 26, "{machine:?}");
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
    }

    #[test]
    fn a_version_is_the_first_line_of_what_a_command_says() {
        let say = |script: &str| output(&["sh".to_owned(), "-c".to_owned(), script.to_owned()]);
        assert_eq!(say("echo; echo ' v 1 '; echo more"), Some("v 1".to_owned()));
        assert_eq!(say("echo v2 >&2"), Some("v2".to_owned()));
        assert_eq!(say("echo v3; exit 1"), None);
        assert_eq!(say("true"), None);
        assert_eq!(output(&["/nowhere/program".to_owned()]), None);
        assert_eq!(output(&[]), None);
    }
}
