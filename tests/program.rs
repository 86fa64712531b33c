//! The program's command line, and what it says when it can't start.
#![expect(clippy::unwrap_used, reason = "helpers of tests: where they cannot go on, the test fails")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tenantry::config::KEYS;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tenantry");

/// The user `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

/// A command without variables that would be settings. A server that starts against expectation is killed.
fn command(program: impl AsRef<Path>, args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "20"]).arg(program.as_ref());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CT_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

fn tenantry(args: &[&str]) -> Output {
    command(PROGRAM, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = tenantry(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command answers to this input, both its streams together. `None` if it is not installed.
fn checked(program: &str, args: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{program} is not installed");
            return None;
        }
        spawned => spawned.unwrap(),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    Some(said)
}

#[test]
fn the_version_tells_commit_and_drivers() {
    let release = format!("tenantry {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["-V"]), format!("{release}\n"));
    let told = printed(&["--version"]);
    assert!(told.starts_with(&format!("{release} (commit ")), "{told}");
    assert!(told.ends_with("), drivers: io_uring, epoll\n"), "{told}");
    assert_eq!(printed(&["-version"]), told);
    let root = env!("CARGO_MANIFEST_DIR");
    let git = Command::new("git").current_dir(root).args(["show", "-s", "--format=%H"]).output();
    let is_set = option_env!("TENANTRY_COMMIT").is_some_and(|commit| !commit.is_empty());
    if let Some(git) =
        git.ok().filter(|git| git.status.success() && !is_set && Path::new(root).join(".git").exists())
    {
        assert!(told.contains(&format!("(commit {}", &text(&git.stdout)[..12])), "{told}");
    }
}

#[test]
fn the_pages_of_the_manual_are_right_for_mandoc_and_groff() {
    for page in ["tenantry.1", "tenantry.yml.5"] {
        let roff = printed(&["-print-man", page]);
        let lint = checked("mandoc", &["-T", "lint", "-W", "warning"], &roff);
        assert_eq!(lint.as_deref().unwrap_or_default(), "", "{page}");
        let groff = checked("groff", &["-k", "-man", "-Tutf8", "-ww", "-z"], &roff);
        assert_eq!(groff.as_deref().unwrap_or_default(), "", "{page}");
        if let Some(shown) = checked("mandoc", &["-T", "utf8", "-O", "width=1000"], &roff) {
            let shown = plain(&shown);
            let known = KEYS.iter().filter(|key| shown.contains(&format!("[{}]", key.variable())));
            assert_eq!(known.count(), if page == "tenantry.1" { 0 } else { KEYS.len() });
        }
    }
}

/// A page for a terminal, without the strokes that make letters bold or underlined.
fn plain(page: &str) -> String {
    let mut plain = String::new();
    for c in page.chars() {
        if c == '\u{8}' {
            plain.pop();
        } else {
            plain.push(c);
        }
    }
    plain
}

#[test]
fn shells_accept_their_completions() {
    for (shell, shown) in
        [("bash", "complete -F"), ("zsh", "#compdef tenantry"), ("fish", "complete -c tenantry")]
    {
        let rules = printed(&["--print-completions", shell]);
        assert!(rules.contains(shown) && rules.contains("check-config"), "{rules}");
        if let Some(said) = checked(shell, &["-n"], &rules) {
            assert_eq!(said, "", "{shell}");
        }
    }
}

#[test]
fn it_starts_by_the_name_of_cortex_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let (link, file) = (folder.path().join("cortex-tenant"), folder.path().join("f.yml"));
    symlink(PROGRAM, &link).unwrap();
    fs::write(&file, "tenant: {default: a}\n").unwrap();
    let file = file.to_str().unwrap();
    let of_that_name = format!("-config={file}");
    // Without a file it takes variables and defaults, as cortex-tenant does, and looks for none.
    for args in [&["-config", file][..], &[&of_that_name], &["--config", file], &[], &["-config", ""]] {
        let output = command(&link, args).arg("-check-config").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    let output = command(&link, &["-config", "/none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

/// A folder that every user may enter, with a copy of the program. `None` if this process may not become another user.
fn for_another_user() -> Option<(TempDir, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this test needs root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("tenantry");
    // Not by `fs::copy`: a child of another test would hold the copy open for writing, and it could not be run.
    assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
    Some((folder, program))
}

/// What the program says to `nobody`, and its exit code.
fn as_nobody(program: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = command(program, args).uid(NOBODY).gid(NOBODY).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_file_that_may_not_be_read_is_told_with_owner_mode_and_remedy() {
    let Some((folder, program)) = for_another_user() else { return };
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [closed, named] = ["closed.yml", "named.yml"].map(at);
    fs::write(&closed, "").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
    fs::write(
        &named,
        format!(
            "auth:\n  egress:\n    bearer_token_file: {closed}\n  ingress:\n    tls_config:\n      cert_file: {closed}\n      \
             key_file: {closed}\ntenant:\n  map: {closed}\n"
        ),
    )
    .unwrap();
    let reason = format!(
        "Permission denied (os error 13): it belongs to user root and group root with mode 0600, and this process runs as \
         user {NOBODY} and group {NOBODY}: give it to a group of the process, for example: chgrp {NOBODY} {closed} && \
         chmod 0640 {closed}\n"
    );
    let (code, told) = as_nobody(&program, &["-config", &closed]);
    assert_eq!((code, told.as_str()), (Some(64), &*format!("{closed}: cannot be read: {reason}")));
    // The same for the files that a configuration names: the token, certificate and key, the map.
    let (code, told) = as_nobody(&program, &["-config", &named]);
    assert_eq!((code, told.matches(&reason).count()), (Some(64), 4), "{told}");
    // What it advises helps.
    chown(&closed, None, Some(NOBODY)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(as_nobody(&program, &["--check-config", "-config", &closed]).0, Some(0));
}

#[test]
fn a_directory_that_may_not_be_entered_is_told() {
    let Some((folder, program)) = for_another_user() else { return };
    let directory = folder.path().join("etc");
    fs::create_dir_all(directory.join("tenantry")).unwrap();
    let file = directory.join("tenantry/f.yml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let (code, told) = as_nobody(&program, &["-config", file.to_str().unwrap()]);
    assert_eq!(code, Some(64));
    let told_of =
        format!("the directory {} belongs to user root and group root with mode 0700", directory.display());
    assert!(told.contains(&told_of), "{told}");
    chown(&directory, None, Some(NOBODY)).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o710)).unwrap();
    assert_eq!(as_nobody(&program, &["--check-config", "-config", file.to_str().unwrap()]).0, Some(0));
}

/// The ends of a start on these addresses: the exit code and the log.
fn started(program: &Path, as_user: Option<u32>, addresses: [&str; 3]) -> (Option<i32>, String) {
    let names = ["CT_LISTEN", "CT_LISTEN_METRICS_ADDRESS", "CT_LISTEN_PPROF"];
    let mut command = command(program, &[]);
    command.envs(names.into_iter().zip(addresses)).stdout(Stdio::null());
    if let Some(user) = as_user {
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_port_that_is_taken_is_told_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = &*taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (setting, addresses) in [
        ("listen", [taken, free, free]),
        ("listen_metrics_address", [free, taken, free]),
        ("listen_pprof", [free, free, taken]),
    ] {
        let (code, told) = started(Path::new(PROGRAM), None, addresses);
        assert_eq!(code, Some(1), "{told}");
        let expected = format!(
            "can't listen on {taken} ({setting}): Address already in use (os error 98): another program"
        );
        assert!(told.contains(&expected) && told.contains("`ss -ltnp`"), "{told}");
    }
    // TEST-NET-1: no machine has it.
    let (code, told) = started(Path::new(PROGRAM), None, ["192.0.2.1:8081", free, free]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("can't listen on 192.0.2.1:8081 (listen): ") && told.contains("no interface"),
        "{told}"
    );
}

#[test]
fn a_port_that_needs_a_capability_is_told() {
    let Some((_folder, program)) = for_another_user() else { return };
    // Containers may allow every port.
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim().parse::<u16>().is_ok_and(|first| first <= 1) {
        return;
    }
    let (code, told) = started(&program, Some(NOBODY), ["127.0.0.1:1", "127.0.0.1:0", ""]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("can't listen on 127.0.0.1:1 (listen): Permission denied"), "{told}");
    assert!(told.contains("CAP_NET_BIND_SERVICE"), "{told}");
}
