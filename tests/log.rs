//! The log as its reader sees it, and what the server does when the log is not read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use support::server::free_port;
use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};

const ALIVE: &[u8] = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n";
/// What the upstream answers for each tenant whose name begins with `bad`.
const REFUSAL: &str = "there is a lot to be said against this sample";
/// How many tenants are refused. Each of them has its own limit of lines.
const TENANTS: usize = 1_000;
/// How many lines each of them may log in a window.
const TIMES: usize = 5;
const TENANTS_EACH: usize = 250;

/// An upstream that refuses bad tenants with a long text.
fn strict() -> Upstream {
    Upstream::start(|request| match request.tenant().starts_with("bad") {
        true => Reply::new(400, &REFUSAL.repeat(20)),
        false => Reply::ok(),
    })
}

/// A server on two cores that logs into a pipe, and the pipe's other end.
fn start(driver: Driver, upstream: &Upstream) -> (Server, ChildStderr) {
    let more = "log_response_errors: true\ncores: 2\n";
    Server::start_piped(driver, upstream.address, more)
}

/// Has the server log 5 MB, far more than a pipe holds and a queue keeps.
fn fill(server: &Server) {
    let mut client = server.client();
    for first in (0..TENANTS).step_by(TENANTS_EACH) {
        let tenants = (first..first + TENANTS_EACH).map(|n| series(&format!("bad-{n}"), "up", 1.0));
        let request = body(tenants.collect());
        for _ in 0..TIMES {
            assert_eq!(client.push(&request).status, 400);
        }
    }
}

fn serves(server: &Server) {
    let begun = Instant::now();
    assert_eq!(server.client().push(&body(vec![series("good", "up", 1.0)])).status, 200);
    let mut probe = server.client();
    probe.send(ALIVE);
    assert_eq!(probe.response().status, 200);
    assert!(server.metrics_text().contains("tenantry_requests_total"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_reader_of_the_log_that_stalls_stops_nothing() {
    on_both(|driver| {
        let upstream = strict();
        let (mut server, pipe) = start(driver, &upstream);
        fill(&server);
        serves(&server);
        server.signal("HUP");
        serves(&server);
        assert!(server.metric("tenantry_log_lines_dropped_total", "") > 0.0);
        server.signal("TERM");
        let begun = Instant::now();
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        drop(pipe);
    });
}

#[test]
fn a_reader_that_resumes_finds_whole_lines_and_is_told_how_many_are_missing() {
    on_both(|driver| {
        let upstream = strict();
        let (mut server, pipe) = start(driver, &upstream);
        fill(&server);
        let dropped = server.metric("tenantry_log_lines_dropped_total", "");
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines();
            lines.map(|line| line.unwrap()).collect::<Vec<_>>()
        });
        eventually("all is written", || server.metric("tenantry_log_lines_waiting", "") == 0.0);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        let lines = reading.join().unwrap();
        for line in &lines {
            let level = line.split_whitespace().nth(1);
            assert!(line.starts_with("20") && matches!(level, Some("INFO" | "WARN" | "ERROR")), "{line}");
        }
        let missing: usize = lines
            .iter()
            .filter_map(|line| {
                line.split_once(" lines are missing here")?.0.rsplit(' ').next()?.parse::<usize>().ok()
            })
            .sum();
        assert!(missing > 0 && missing as f64 == dropped, "{missing} of {dropped}");
        let refusals = lines.iter().filter(|line| line.contains(REFUSAL)).count();
        assert_eq!(refusals + missing, TENANTS * TIMES, "each line was written or counted");
        assert!(lines.last().unwrap().contains("finishing what is in flight"), "the last line is there");
    });
}

/// Panics while a server runs, in a process that was started for this.
#[test]
fn panics_in_a_process_of_its_own() {
    let Ok(file) = std::env::var("PANIC_OF_SERVER") else { return };
    let config = std::fs::read_to_string(&file).unwrap();
    let (_, address) = config.split_once("listen: ").unwrap();
    let address = address.lines().next().unwrap().to_owned();
    let args = ["tenantry".into(), "-config".into(), file.into()];
    std::thread::spawn(move || tenantry::run_from_args(args, tenantry::Build::UNKNOWN));
    eventually("it listens", || std::net::TcpStream::connect(&*address).is_ok());
    if std::env::var("PANIC_UNREAD").is_ok() {
        // Fills the pipe while it holds the standard library's lock.
        std::thread::spawn(|| std::io::stderr().write_all(&[b'x'; 1 << 20]));
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = std::thread::spawn(|| panic!("made by a test")).join();
    unreachable!("a panic ends the process");
}

#[test]
fn a_panic_is_logged_last_and_ends_the_process_even_if_the_log_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    for unread in [false, true] {
        let (address, metrics) = (free_port(), free_port());
        let file = directory.path().join("f.yml");
        let config =
            format!("listen: {address}\nlisten_metrics_address: {metrics}\ndriver: epoll\nlog_level: info\n");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["panics_in_a_process_of_its_own", "--exact", "--nocapture"])
            .env("PANIC_OF_SERVER", &file);
        if unread {
            command.env("PANIC_UNREAD", "yes");
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let mut text = String::new();
        if !unread {
            pipe.read_to_string(&mut text).unwrap();
            let (log, panic) = text.split_once("made by a test").expect(&text);
            assert!(log.contains("INFO configuration") && !panic.contains("INFO configuration"), "{text}");
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(10) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.signal(), Some(6), "SIGABRT");
    }
}

#[test]
fn the_reason_for_a_failed_start_is_told_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.yml");
    let address = taken.local_addr().unwrap();
    std::fs::write(
        &file,
        format!("listen: {address}\nlisten_metrics_address: {}\nlog_level: error\n", free_port()),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tenantry")).arg("-config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches(&format!("can't listen on {address}")).count(), 1, "{told}");
}

/// Text of an upstream, and how it is logged: `[from, to]`.
const FORGERIES: [[&str; 2]; 6] = [
    ["x\r\n2026-01-01T00:00:00Z ERROR forged", r"x\r\n2026-01-01T00:00:00Z ERROR forged"],
    ["a\u{1b}[2Jb", r"a\u{1b}[2Jb"],
    ["c\u{202e}d\u{2066}e\u{2069}f", r"c\u{202e}d\u{2066}e\u{2069}f"],
    ["g\u{200e}h\u{200f}i\u{61c}j", r"g\u{200e}h\u{200f}i\u{61c}j"],
    ["k\u{200b}l\u{feff}m", r"k\u{200b}l\u{feff}m"],
    ["größe 大きさ", "größe 大きさ"],
];

#[test]
fn text_of_an_upstream_can_neither_forge_nor_hide_log_lines() {
    on_both(|driver| {
        let upstream = Upstream::start(|request| {
            let nth: usize = request.tenant().strip_prefix('t').unwrap().parse().unwrap();
            Reply::new(400, FORGERIES[nth][0])
        });
        let server = Server::start(driver, upstream.address, "log_response_errors: true\n");
        for (nth, [_, written]) in FORGERIES.iter().enumerate() {
            assert_eq!(server.client().push(&body(vec![series(&format!("t{nth}"), "up", 1.0)])).status, 400);
            let log = server.log();
            assert!(log.last().unwrap().contains(written), "{written}: {log:#?}");
            assert!(
                log.iter().all(|line| line.starts_with("20") && !line.starts_with("2026-01-01")),
                "{log:#?}"
            );
        }
    });
}
