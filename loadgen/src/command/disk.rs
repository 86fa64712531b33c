//! The disk that a server's spool lies on: slow, small, or the usual one.
//!
//! Constraints that shaped it:
//! - It has to work without root, and change nothing for other processes.
//! - Chaos kills the server. So the process that is started becomes the server: whatever is before it on the command
//!   line executes what follows, and takes no process of its own.
//! - What a server has written to a small disk is there for the next one. So a process of its own holds the mount.
//!
//! A slow disk is strace, which lets a thread wait once it has made a file durable. With `-D` it traces its parent, and
//! with `--seccomp-bpf` other system calls cost nothing. A small disk is a tmpfs in a mount namespace, which each
//! server enters.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::args::DiskArgs;

/// The longest delay: beyond it no part is durable before the server gives it up.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Mounts a file system, says so, and lives until its input ends.
const HOLD: &str = "mount -t tmpfs -o mode=700,size=\"$1\" tmpfs \"$0\" && echo mounted && exec cat";

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    delay: Option<Duration>,
    small: Option<Arc<SmallDisk>>,
}

/// A file system in a mount namespace of its own. Dropping it gives it up, once no server has it.
#[derive(Debug)]
struct SmallDisk {
    holder: std::process::Child,
    folder: PathBuf,
}

impl Disk {
    /// Makes it for a spool in `folder`, and tries whether it works here.
    pub(crate) fn new(args: &DiskArgs, folder: &Path) -> anyhow::Result<Self> {
        if let Some(delay) = args.slow_disk {
            try_delay(delay).context("--slow-disk")?;
        }
        let small = args.disk_bytes.map(|bytes| SmallDisk::mount(folder, bytes)).transpose();
        Ok(Self { delay: args.slow_disk, small: small.context("--disk-bytes")?.map(Arc::new) })
    }

    /// A command that starts a program on it, to which the program's arguments may be added. Its process becomes that
    /// of the program.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = Vec::new();
        words.extend(self.small.iter().flat_map(|small| small.enter()));
        words.extend(self.delay.iter().flat_map(|delay| delayed(*delay)));
        words.push(program.into());
        let mut command = Command::new(words.remove(0));
        command.args(words);
        command
    }

    /// Copies what is on a small disk to `folder`, where only the server has seen it.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        self.small.as_ref().map_or(Ok(()), |small| small.save(folder))
    }
}

/// What is before a command whose files take this long to become durable.
fn delayed(delay: Duration) -> impl Iterator<Item = OsString> {
    let calls = "fsync,fdatasync";
    let inject = format!("inject={calls}:delay_exit={}", delay.as_micros());
    let trace = format!("trace={calls}");
    let words =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    words.map(OsString::from).into_iter()
}

fn try_delay(delay: Duration) -> anyhow::Result<()> {
    ensure!(delay <= DELAY_MAX, "at most {} s", DELAY_MAX.as_secs());
    let mut words = delayed(delay);
    let output = Command::new(words.next().unwrap_or_default()).args(words).arg("true").output();
    let output = output.context("strace is needed, and cannot be started")?;
    ensure!(output.status.success(), "strace does not work here: {}", told(&output.stderr));
    Ok(())
}

impl SmallDisk {
    fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", HOLD]).arg(folder).arg(bytes.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let holder = command.spawn().context("unshare is needed, and cannot be started")?;
        let mut small = Self { holder, folder: folder.to_owned() };
        let mut line = String::new();
        small.holder.stdout.take().map(BufReader::new).map(|mut out| out.read_line(&mut line)).transpose()?;
        if line.trim() != "mounted" {
            let mut why = Vec::new();
            small.holder.stderr.take().map(|mut err| err.read_to_end(&mut why)).transpose()?;
            bail!("this user may not mount a file system in a namespace of its own: {}", told(&why));
        }
        let mut enter = small.enter();
        let entered = Command::new(enter.next().unwrap_or_default()).args(enter).arg("true").output();
        let entered = entered.context("nsenter is needed, and cannot be started")?;
        ensure!(entered.status.success(), "its namespace cannot be entered: {}", told(&entered.stderr));
        Ok(small)
    }

    /// What is before a command that sees it.
    fn enter(&self) -> impl Iterator<Item = OsString> + use<> {
        let pid = self.holder.id().to_string();
        let words = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &pid];
        words.map(OsString::from).into_iter()
    }

    fn save(&self, to: &Path) -> io::Result<()> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let from = root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder));
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The first line of what a command says.
fn told(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or("it does not say why").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_through_what_makes_the_disk_and_then_becomes_the_program() {
        let usual = Disk::default().command(Path::new("/bin/server"));
        assert_eq!((usual.get_program(), usual.get_args().len()), ("/bin/server".as_ref(), 0));
        let slow = Disk { delay: Some(Duration::from_millis(200)), small: None };
        let slow = slow.command(Path::new("/bin/server"));
        let words: Vec<_> = slow.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(slow.get_program(), "strace");
        assert!(words.contains(&"inject=fsync,fdatasync:delay_exit=200000".into()), "{words:?}");
        assert_eq!(words.last().map(AsRef::as_ref), Some("/bin/server"));
    }
}
