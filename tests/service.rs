//! The server under a service manager: notifications, the watchdog, sockets that are passed on, and the log's format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::load::{Push, push_while, stored};
use support::server::{configuration, free_port};
use support::{Driver, Reply, Server, Upstream, eventually, on_both, one};

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path, _directory: directory }
    }

    /// Starts a server with two cores under it. `watch` is the watchdog's time in milliseconds.
    fn start(&self, driver: Driver, upstream: &Upstream, watch: Option<u64>) -> Server {
        let metrics = free_port();
        let config = configuration(driver, upstream.address, "cores: 2\ntimeout_shutdown: 1s\n", metrics);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(millis) = watch {
            command.env("WATCHDOG_USEC", (1_000 * millis).to_string());
        }
        Server::start_by(command, &config, metrics)
    }

    /// The next message, as its lines, if one comes in time.
    fn hears(&self, within: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut message = [0; 4_096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect())
    }

    /// The next message that is none of the watchdog's.
    fn hears_next(&self) -> Vec<String> {
        loop {
            let message = self.hears(Duration::from_secs(10)).expect("no message within ten seconds");
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }

    /// The times of the watchdog's messages during `length`.
    fn counts_feeds(&self, length: Duration) -> usize {
        let until = Instant::now() + length;
        let mut feeds = 0;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            feeds += usize::from(self.hears(left).is_some_and(|message| message == ["WATCHDOG=1"]));
        }
        feeds
    }
}

fn value<'a>(message: &'a [String], name: &str) -> Option<&'a str> {
    message.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_service_manager_is_told_of_each_step() {
    on_both(|driver| {
        let (manager, upstream) = (Manager::new(), Upstream::start(|_| Reply::ok()));
        let mut server = manager.start(driver, &upstream, None);
        let ready = manager.hears_next();
        assert!(ready.contains(&"READY=1".into()), "{ready:?}");
        let status = value(&ready, "STATUS").unwrap();
        for part in
            [server.address.to_string(), upstream.address.to_string(), format!("2 cores, {}", driver.name())]
        {
            assert!(status.contains(&part), "{part}: {status}");
        }

        server.reload();
        let reloading = manager.hears_next();
        assert!(reloading.contains(&"RELOADING=1".into()), "{reloading:?}");
        assert!(value(&reloading, "MONOTONIC_USEC").unwrap().parse::<u64>().unwrap() > 0);
        assert!(manager.hears_next().contains(&"READY=1".into()));

        server.reload_with("cores: 2\n", "cores: 2\nno_such_key: 1\n");
        assert!(manager.hears_next().contains(&"RELOADING=1".into()));
        let refused = manager.hears_next();
        assert!(refused.contains(&"READY=1".into()));
        assert!(value(&refused, "STATUS").unwrap().contains("the last reload was refused"), "{refused:?}");

        server.signal("TERM");
        let stopping = manager.hears_next();
        assert!(stopping.contains(&"STOPPING=1".into()), "{stopping:?}");
        // The drain may take seven timeouts of ten seconds.
        assert!(value(&stopping, "EXTEND_TIMEOUT_USEC").unwrap().parse::<u64>().unwrap() > 60_000_000);
        assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
    });
}

#[test]
fn the_watchdog_is_fed_while_the_server_runs_and_while_it_drains() {
    on_both(|driver| {
        let (manager, upstream) =
            (Manager::new(), Upstream::start(|_| Reply::ok().after(Duration::from_secs(3))));
        let mut server = manager.start(driver, &upstream, Some(800));
        assert!(manager.counts_feeds(Duration::from_millis(1_500)) >= 3);
        let mut client = server.client();
        client.send(&[support::client::push_head(one("a").len(), "").as_bytes(), &one("a")].concat());
        eventually("it is under way", || server.metric("tenantry_requests_in_flight", "") == 1.0);
        server.signal("TERM");
        assert!(manager.hears_next().contains(&"STOPPING=1".into()));
        // A second of notice, and then a drain of nearly another.
        assert!(manager.counts_feeds(Duration::from_millis(700)) >= 2);
        eventually("the notice is over", || {
            server.log().iter().any(|line| line.contains("finishing what is in flight"))
        });
        assert!(manager.counts_feeds(Duration::from_millis(800)) >= 2);
        assert_eq!(client.response().status, 200);
        assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
    });
}

#[test]
fn the_watchdog_is_not_fed_while_one_core_hangs() {
    on_both(|driver| {
        let (manager, upstream) = (Manager::new(), Upstream::start(|_| Reply::ok()));
        let server = manager.start(driver, &upstream, Some(800));
        assert!(manager.counts_feeds(Duration::from_millis(1_000)) >= 1);
        let stopped = Stopped::thread(&server, "core-1");
        // The core may have answered a beat before.
        let late = |line: &String| line.contains("these cores do not turn") && line.contains("[1]");
        eventually("the core is late", || server.log().iter().any(late));
        manager.counts_feeds(Duration::from_millis(50));
        assert_eq!(manager.counts_feeds(Duration::from_millis(1_500)), 0);
        drop(stopped);
        assert!(manager.counts_feeds(Duration::from_millis(1_500)) >= 2, "the core turns again");
    });
}

/// A thread of the server that a debugger has stopped. It goes on when this is dropped.
struct Stopped {
    thread: libc::pid_t,
}

impl Stopped {
    fn thread(server: &Server, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let has_name = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).unwrap().trim_end() == name
        };
        let task = tasks.map(|task| task.unwrap().path()).find(has_name).unwrap();
        let thread = task.file_name().unwrap().to_str().unwrap().parse::<libc::pid_t>().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: attaches to a thread of a child process. Neither request reads or writes memory here.
        let (seized, interrupted) = unsafe {
            (
                libc::ptrace(libc::PTRACE_SEIZE, thread, none, none),
                libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none),
            )
        };
        assert_eq!((seized, interrupted), (0, 0), "{}", std::io::Error::last_os_error());
        // SAFETY: waits until the thread has stopped. The status is not asked for.
        let waited = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, thread, "{}", std::io::Error::last_os_error());
        Self { thread }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. The thread runs on.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.thread, none, none) };
    }
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    on_both(|driver| {
        let (manager, upstream) = (Manager::new(), Upstream::start(|_| Reply::ok()));
        let Manager { socket, path, _directory } = manager;
        drop(socket);
        let metrics = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
        let mut server =
            Server::start_by(command, &configuration(driver, upstream.address, "", metrics), metrics);
        assert_eq!(server.client().push(&one("a")).status, 200);
        server.reload();
        std::thread::sleep(Duration::from_millis(300));
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
        let told =
            server.log().iter().filter(|line| line.contains("can't notify the service manager")).count();
        assert_eq!(told, 1, "{:?}", server.log());
    });
}

#[test]
fn a_service_manager_that_does_not_read_stops_nothing() {
    on_both(|driver| {
        let (manager, upstream) = (Manager::new(), Upstream::start(|_| Reply::ok()));
        let mut server = manager.start(driver, &upstream, Some(40));
        // Its socket takes some ten messages.
        std::thread::sleep(Duration::from_millis(500));
        server.reload();
        assert_eq!(server.client().push(&one("a")).status, 200);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
        assert!(server.log().iter().any(|line| line.contains("can't notify the service manager")));
    });
}

/// Starts a server that gets `socket` as a service manager passes it on.
fn command_with(socket: &TcpListener) -> Command {
    let mut command = Command::new("sh");
    // The shell becomes the server, so its process ID is the server's.
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_tenantry"));
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    command
}

fn listening_on(listen: SocketAddr, driver: Driver, upstream: &Upstream, metrics: SocketAddr) -> String {
    configuration(driver, upstream.address, "cores: 2\n", metrics)
        .replace("listen: 127.0.0.1:0\n", &format!("listen: {listen}\n"))
}

#[test]
fn a_restart_on_a_passed_socket_refuses_no_connection() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, metrics) = (socket.local_addr().unwrap(), free_port());
        let start = || {
            let config = listening_on(address, driver, &upstream, metrics);
            Server::start_by(command_with(&socket), &config, metrics)
        };
        let mut server = start();
        assert_eq!(server.address, address);
        let pushes = push_while(address, || {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(100));
                server.signal("TERM");
                assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
                server = start();
            }
            std::thread::sleep(Duration::from_millis(100));
        });
        let (stored, mut closed) = (stored(&upstream), 0);
        for push in &pushes {
            match push {
                Push::Acknowledged(name) => {
                    assert!(stored.iter().all(|names| names.contains(name)), "{name} is lost")
                }
                // A sender that connects and then does not run for half a second.
                Push::Broken(why) if why.contains("closed without an answer") => closed += 1,
                Push::Broken(why) => panic!("of {} pushes over five restarts: {why}", pushes.len()),
            }
        }
        assert!(closed <= 1, "{closed} of {} were closed without an answer", pushes.len());
        assert!(pushes.len() > 50, "{}", pushes.len());
    });
}

#[test]
fn connections_of_a_passed_socket_are_spread_over_the_cores() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = free_port();
        let config = listening_on(socket.local_addr().unwrap(), driver, &upstream, metrics);
        let server = Server::start_by(command_with(&socket), &config, metrics);
        let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.push(&one("a")).status, 200));
        for core in 0..2 {
            let open = server.metric("tenantry_connections_open", &format!("core=\"{core}\""));
            assert_eq!(open, 3.0, "{}", server.metrics_text());
        }
    });
}

#[test]
fn a_passed_socket_that_no_setting_names_ends_the_server() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    // Another port, and the same one of another address: the server must not listen where its configuration does not
    // say.
    for listen in [free_port(), SocketAddr::from(([127, 0, 0, 2], port))] {
        refuses(&socket, listen);
    }
}

fn refuses(socket: &TcpListener, listen: SocketAddr) {
    let upstream = Upstream::start(|_| Reply::ok());
    let config = listening_on(listen, Driver::Epoll, &upstream, free_port());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenantry.yml");
    std::fs::write(&file, config).unwrap();
    let ended = command_with(socket).arg("-config").arg(&file).output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{log}");
    for part in [&socket.local_addr().unwrap().to_string(), &format!("listen is {listen}"), "ListenStream="] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn the_log_has_the_format_that_is_set() {
    let upstream = Upstream::start(|_| Reply::ok());
    let logged = |format: &str| {
        let metrics = free_port();
        let extra = format!("log_format: {format}\n");
        let config = configuration(Driver::Epoll, upstream.address, &extra, metrics);
        let server = Server::start_with(&config, metrics, &[]);
        server.log()
    };
    for line in logged("json") {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(object["time"].is_string() && object["message"].is_string(), "{line}");
        assert!(["warn", "info"].contains(&object["level"].as_str().unwrap()), "{line}");
    }
    assert!(logged("journald").iter().all(|line| line.starts_with("<4>") || line.starts_with("<6>")));
    assert!(logged("auto").iter().all(|line| line.contains(" WARN ") || line.contains(" INFO ")));
}
