//! Profiles of the running server: what they hold, their limits, and that they disturb no push.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use prost::Message;
use quick_xml::Reader;
use quick_xml::events::Event;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use testkit::proto_profile::{Profile, Stack};

use support::load::{Push, push_while, stored};
use support::server::{configuration, free_port};
use support::{Client, Driver, Reply, Server, Upstream, body, eventually, on_both, series};

struct Rig {
    server: Server,
    upstream: Upstream,
    profiles: SocketAddr,
}

impl Rig {
    fn start(driver: Driver) -> Self {
        let upstream = Upstream::start(|_| Reply::ok());
        let profiles = free_port();
        let server = Server::start(driver, upstream.address, &format!("listen_pprof: {profiles}\n"));
        Self { server, upstream, profiles }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.profiles, path, "")
    }

    /// A connection that has asked for a long profile, which has begun.
    fn long_profile(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.profiles).unwrap();
        client.write_all(b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("the profile has begun", || {
            self.get("/debug/threads").text().lines().any(|line| line.contains(" profile "))
        });
        client
    }
}

/// An answer whose body need not be text.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets a page, with these header lines.
fn ask(address: SocketAddr, path: &str, lines: &str) -> Answer {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
    let body = bytes.split_off(at + 4);
    let head = String::from_utf8(bytes).unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    Answer { status: head[9..12].parse().unwrap(), head, body }
}

/// The profile in an answer.
fn decode(response: &Answer) -> Profile {
    assert_eq!(response.status, 200, "{}", response.text());
    let mut bytes = Vec::new();
    GzDecoder::new(response.body.as_slice()).read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

fn has(stack: &Stack, part: &str) -> bool {
    stack.functions.iter().any(|name| name.contains(part))
}

/// All pushes are acknowledged and stored.
fn nothing_is_lost(upstream: &Upstream, pushes: Vec<Push>) {
    assert!(pushes.len() > 100, "{}", pushes.len());
    let stored = stored(upstream);
    for push in pushes {
        match push {
            Push::Acknowledged(name) => assert!(stored.iter().all(|of| of.contains(&name)), "{name}"),
            Push::Broken(why) => panic!("{why}"),
        }
    }
}

#[test]
fn a_profile_names_functions_and_threads_and_disturbs_no_push() {
    on_both(|driver| {
        let rig = Rig::start(driver);
        let mut profile = None;
        let pushes = push_while(rig.server.address, || {
            profile = Some(decode(&rig.get("/debug/pprof/profile?seconds=3")));
        });
        nothing_is_lost(&rig.upstream, pushes);
        let profile = profile.unwrap();
        let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].as_str();
        let types: Vec<_> = profile.sample_type.iter().map(|t| (text(t.kind), text(t.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!((profile.period, text(profile.default_sample_type)), (10_000_000, "cpu"));
        let seconds = profile.duration_nanos as f64 / 1e9;
        assert!((3.0..6.0).contains(&seconds), "{seconds}");
        assert!(text(profile.mapping[0].filename).contains("tenantry"));

        let stacks = profile.stacks();
        let samples: i64 = stacks.iter().map(|stack| stack.count).sum();
        assert!(samples > 20, "{samples}");
        assert!(stacks.iter().all(|stack| stack.nanos == stack.count * profile.period));
        let cores = stacks.iter().filter(|stack| stack.thread.starts_with("core"));
        let whole: i64 = cores.clone().filter(|stack| has(stack, "thread_start")).map(|s| s.count).sum();
        let all: i64 = cores.clone().map(|stack| stack.count).sum();
        // Frame pointers lead to the beginning of the thread, except from code of libc that uses the register
        // otherwise.
        assert!(all > 10 && whole * 10 > all * 7, "{whole} of {all}");
        assert!(cores.clone().any(|stack| has(stack, "tenantry::")), "{stacks:#?}");
        // Threads that sleep use no CPU time.
        assert!(!stacks.iter().any(|stack| stack.thread == "signals"));
    });
}

#[test]
fn profiles_again_and_again_disturb_no_push_and_leave_no_thread_behind() {
    on_both(|driver| {
        let rig = Rig::start(driver);
        let pushes = push_while(rig.server.address, || {
            for _ in 0..3 {
                decode(&rig.get("/debug/pprof/profile?seconds=1"));
            }
        });
        nothing_is_lost(&rig.upstream, pushes);
        assert!(!rig.get("/debug/threads").text().contains(" profile "));
        // The signals of a timer that was deleted went nowhere.
        assert!(!rig.server.log().iter().any(|line| line.contains("SIGPROF")), "{:#?}", rig.server.log());
    });
}

#[test]
fn a_flame_graph_is_well_formed() {
    let rig = Rig::start(Driver::Epoll);
    let mut svg = None;
    push_while(rig.server.address, || svg = Some(rig.get("/debug/pprof/profile?format=svg&seconds=2")));
    let svg = svg.unwrap();
    assert_eq!(svg.status, 200);
    assert!(svg.head.contains("\r\nContent-Type: image/svg+xml\r\n"), "{}", svg.head);
    assert!(svg.head.contains("\r\nContent-Security-Policy: default-src 'none';"), "{}", svg.head);
    let text = svg.text();
    let (mut reader, mut open, mut elements) = (Reader::from_str(&text), 0, 0);
    loop {
        match reader.read_event().unwrap() {
            Event::Start(_) => (open, elements) = (open + 1, elements + 1),
            Event::End(_) => open -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open == 0 && elements > 10, "{open} open of {elements}");
    assert!(text.contains("core") && text.contains("tenantry::"), "{text}");
}

#[test]
fn one_profile_is_taken_at_a_time_and_a_client_that_leaves_ends_its_own() {
    on_both(|driver| {
        let rig = Rig::start(driver);
        let client = rig.long_profile();
        let second = rig.get("/debug/pprof/profile?seconds=1");
        assert_eq!(second.status, 409);
        assert!(second.text().contains("another profile is being taken"), "{}", second.text());
        // A reload changes nothing about it, and other pages are answered.
        rig.server.reload();
        assert_eq!(rig.get("/debug/pprof/profile?seconds=1").status, 409);
        assert_eq!(rig.get("/alive").status, 200);
        drop(client);
        eventually("its turn is over", || rig.get("/debug/pprof/profile?seconds=1").status == 200);
        assert_eq!(rig.server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
    });
}

#[test]
fn the_end_of_the_server_waits_for_no_profile() {
    on_both(|driver| {
        let mut rig = Rig::start(driver);
        let mut client = rig.long_profile();
        let begun = Instant::now();
        rig.server.signal("TERM");
        assert_eq!(rig.server.wait(Duration::from_secs(20)).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn every_page_answers_and_mistakes_are_told() {
    let rig = Rig::start(Driver::Epoll);
    let index = rig.get("/debug/pprof/");
    assert!(index.status == 200 && index.text().contains("/debug/pprof/profile?seconds=30"));
    assert_eq!(rig.get("/debug/pprof").text(), index.text());
    let line = rig.get("/debug/pprof/cmdline").text();
    assert!(line.contains("tenantry\0-config\0") && !line.ends_with('\0'), "{line:?}");
    let allocator = rig.get("/debug/pprof/allocator").text();
    assert!(allocator.contains("resident bytes") && allocator.contains("committed"), "{allocator}");
    assert!(rig.get("/debug/threads").text().contains("core"));
    assert_eq!(rig.get("/metrics").status, 200);
    for go in ["heap", "goroutine", "allocs", "block", "mutex", "trace", "symbol", "x/y"] {
        let page = rig.get(&format!("/debug/pprof/{go}"));
        assert!(page.status == 404 && page.text().contains("not a Go program"), "{}", page.text());
    }
    for wrong in ["seconds=0", "seconds=301", "seconds=1e9", "seconds=%31", "seconds=-1", "format=pdf"] {
        let page = rig.get(&format!("/debug/pprof/profile?{wrong}"));
        assert!(page.status == 400 && page.text().contains("must be"), "{wrong}: {}", page.text());
    }
    for method in ["HEAD", "POST"] {
        let mut client = Client::connect(rig.profiles);
        client.send(format!("{method} /debug/pprof/profile HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(client.response_to(method == "HEAD").status, 405);
    }
    // The port for metrics has no profiles.
    let mut client = Client::connect(rig.server.metrics);
    client.send(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let elsewhere = client.response();
    assert!(elsewhere.status == 404 && elsewhere.text().contains("listen_pprof"), "{}", elsewhere.text());
}

/// Each timer reserves a signal of the user's, and the limit of these is exhausted here.
#[test]
fn where_the_system_refuses_timers_the_answer_says_so_and_the_server_goes_on() {
    on_both(|driver| {
        let rig = Rig::start(driver);
        let server = Pid::from_raw(rig.server.pid().try_into().unwrap());
        let limit = |to| prlimit(server, Resource::Sigpending, to).unwrap();
        // The server has inherited ours.
        let before = limit(Rlimit { current: Some(0), ..getrlimit(Resource::Sigpending) });
        // The second one finds that the turn of the first is over.
        for _ in 0..2 {
            let answer = rig.get("/debug/pprof/profile?seconds=1");
            assert!(answer.head.starts_with("HTTP/1.1 501 Not Implemented\r\n"), "{}", answer.head);
            assert!(
                answer.head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"),
                "{}",
                answer.head
            );
            let text = answer.text();
            assert!(text.contains("timer_create(2)") && text.contains("os error 11"), "{text}");
            assert!(text.contains("a retry does not change"), "{text}");
        }
        assert_eq!(rig.server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
        limit(before);
        decode(&rig.get("/debug/pprof/profile?seconds=1"));
    });
}

/// Without the list of threads there is no timer, either. That is no profile in which nothing has run.
#[test]
fn where_threads_cannot_be_listed_there_is_no_profile() {
    let hidden = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\"", program]);
        command
    };
    if !hidden("true").status().is_ok_and(|status| status.success()) {
        eprintln!("no mount namespace here, so threads can be listed");
        return;
    }
    let upstream = Upstream::start(|_| Reply::ok());
    let (profiles, metrics) = (free_port(), free_port());
    let more = format!("listen_pprof: {profiles}\n");
    let config = configuration(Driver::Epoll, upstream.address, &more, metrics);
    let server = Server::start_by(hidden(env!("CARGO_BIN_EXE_tenantry")), &config, metrics);
    let answer = ask(profiles, "/debug/pprof/profile?seconds=1", "");
    assert_eq!(answer.status, 501, "{} bytes", answer.body.len());
    assert!(answer.text().contains("threads of the process cannot be listed"), "{}", answer.text());
    assert_eq!(server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
}

#[test]
fn profiles_need_the_credentials_of_the_admin_port() {
    let upstream = Upstream::start(|_| Reply::ok());
    let (profiles, directory) = (free_port(), tempfile::tempdir().unwrap());
    let (token, tokens) = (directory.path().join("token"), directory.path().join("tokens.yml"));
    std::fs::write(&token, "the-token-of-an-operator\n").unwrap();
    std::fs::write(&tokens, format!("- name: operator\n  token_file: {}\n", token.display())).unwrap();
    let more = format!("listen_pprof: {profiles}\nauth:\n  admin:\n    tokens_file: {}\n", tokens.display());
    let _server = Server::start(Driver::Epoll, upstream.address, &more);
    let get = |more: &str| ask(profiles, "/debug/pprof/profile?seconds=1", more);
    assert_eq!(get("").status, 401);
    assert_eq!(get("Authorization: Bearer the-token-of-another\r\n").status, 401);
    decode(&get("Authorization: Bearer the-token-of-an-operator\r\n"));
}
