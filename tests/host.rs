//! What the host may do to a server: signals that mean nothing, files that are none, system calls that are forbidden.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use support::server::{configuration, free_port};
use support::{Driver, Reply, Server, Upstream, body, series};

fn pushes(server: &Server) {
    assert_eq!(server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
}

/// Has the kernel answer `io_uring_enter` with `errno` in what `command` starts, as a seccomp profile of a container may.
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
