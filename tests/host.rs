//! What the host may do to a server: unknown signals, configurations that are no regular files, forbidden system calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::server::{configuration, free_port};
use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};
use tenantry::signal;
use tenantry::supervisor;

fn pushes(server: &Server) {
    assert_eq!(server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
}

#[test]
fn signals_without_a_meaning_do_not_end_the_server() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = Server::start(driver, upstream.address, "");
        let signals =
            ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "PIPE", "XFSZ", "34", "64"];
        for signal in signals {
            server.signal(signal);
        }
        for name in ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPROF"] {
            eventually("it is logged", || server.log().iter().any(|line| line.contains(name)));
        }
        assert!(server.is_running());
        pushes(&server);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    });
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs the program with these arguments until it ends by itself, which must be soon.
fn ends(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let mut child = command.args(args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?}: the program does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_configuration_that_is_no_regular_file_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.yml");
    make_fifo(&fifo);
    let map = directory.path().join("map-is-fifo.yml");
    std::fs::write(&map, format!("tenant: {{map: {}}}\n", fifo.display())).unwrap();
    for (file, told) in [
        (fifo.to_str().unwrap(), "fifo.yml: is a FIFO, not a regular file"),
        (directory.path().to_str().unwrap(), ": is a directory, not a regular file"),
        ("/dev/zero", "/dev/zero: is a device, not a regular file"),
        (map.to_str().unwrap(), "fifo.yml\" is a FIFO, not a regular file"),
    ] {
        for args in [&["-config", file][..], &["--check-config", "-config", file]] {
            let output = ends(args);
            assert_eq!(output.status.code(), Some(64), "{args:?}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains(told), "{told}: {stderr}");
        }
    }
}

#[test]
fn a_fifo_in_place_of_the_configuration_does_not_keep_the_server_from_ending() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = Server::start(driver, upstream.address, "");
        std::fs::remove_file(server.file()).unwrap();
        make_fifo(server.file());
        server.signal("HUP");
        let refused = || server.metric("tenantry_config_reloads_total", "refused") == 1.0;
        eventually("it is refused", refused);
        assert!(server.log().iter().any(|line| line.contains("is a FIFO, not a regular file")));
        pushes(&server);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    });
}

/// A dead mount has this effect.
#[test]
fn a_configuration_that_can_not_be_read_to_its_end_does_not_keep_the_server_from_ending() {
    for driver in Driver::all() {
        let upstream = Upstream::start(|_| Reply::ok());
        let (listen, metrics) = (free_port(), free_port());
        let config = configuration(driver, upstream.address, "", metrics)
            .replace("listen: 127.0.0.1:0\n", &format!("listen: {listen}\n"));
        let plan = tenantry::config::parse("f", &config, []).unwrap();
        let (wish, wishes) = crossbeam_channel::bounded(4);
        let (begun, has_begun) = crossbeam_channel::bounded(4);
        let (ended, has_ended) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let read = move || {
                begun.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            };
            ended.send(supervisor::run_until(plan, "", read, &wishes)).unwrap();
        });
        eventually("it listens", || std::net::TcpStream::connect(listen).is_ok());
        wish.send(signal::Command::Reload).unwrap();
        has_begun.recv_timeout(Duration::from_secs(5)).unwrap();
        wish.send(signal::Command::Reload).unwrap();
        wish.send(signal::Command::Shutdown).unwrap();
        has_ended.recv_timeout(Duration::from_secs(5)).expect("it leaves").unwrap();
        assert!(has_begun.try_recv().is_err(), "one is read at a time");
    }
}

/// Has the kernel answer `io_uring_enter` with `errno` in what `command` starts, as a seccomp profile of a container
/// may.
fn without_io_uring_enter(mut command: Command, errno: i32) -> Command {
    let step =
        |code: u32, jt, jf, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let call = u32::try_from(libc::SYS_io_uring_enter).unwrap();
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let filter = [
        // The number of the system call is the first word of what a filter sees (`struct seccomp_data`, seccomp(2)).
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: both calls only read their arguments: numbers, and a program whose length is that of `filter`, which
        // lives as long as this closure.
        let results = unsafe {
            let private = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            (private, libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program))
        };
        if results == (0, 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
    command
}

#[test]
fn a_profile_that_forbids_io_uring_enter_alone_leads_to_epoll() {
    let upstream = Upstream::start(|_| Reply::ok());
    for (errno, told) in [(libc::EPERM, "not permitted"), (libc::ENOSYS, "not implemented")] {
        let metrics = free_port();
        let config = configuration(Driver::Epoll, upstream.address, "", metrics)
            .replace("driver: epoll", "driver: auto");
        let command = without_io_uring_enter(Command::new(env!("CARGO_BIN_EXE_tenantry")), errno);
        let mut server = Server::start_by(command, &config, metrics);
        pushes(&server);
        assert_eq!(server.metric("tenantry_build_info", "driver=\"epoll\""), 1.0);
        let line = "io_uring does not work here: using epoll";
        assert!(server.log().iter().any(|l| l.contains(line) && l.contains(told)), "{:#?}", server.log());
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f.yml");
        std::fs::write(&file, config.replace("driver: auto", "driver: io_uring")).unwrap();
        let mut command = without_io_uring_enter(Command::new(env!("CARGO_BIN_EXE_tenantry")), errno);
        let output = command.arg("-config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("driver io_uring does not work here") && stderr.contains(told), "{stderr}");
    }
}
