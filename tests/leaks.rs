//! A stopped server leaves nothing behind: no descriptor, no ring, no thread, and no peer that waits.
//!
//! The server runs within this process several times, so that leaks can be counted. The file has one test, as nothing
//! else may open descriptors or start threads meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::client::push_head;
use support::server::free_port;
use support::{Client, Driver, Reply, Upstream, body, eventually, series};
use tenantry::signal::Command;
use tenantry::supervisor;

/// What this process has open, by kind: `socket`, `anon_inode:[io_uring]`, `anon_inode:[eventpoll]` and so on.
fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok) {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split_once(":[").map_or(&*target, |(kind, _)| {
            // The names of sockets and pipes end in a number. Those of anonymous inodes do not.
            if kind == "anon_inode" { &target } else { kind }
        });
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }
    kinds
}

/// The threads of the test and of its harness. Any other belongs to the scripted upstream or the server.
const OWN_THREADS: usize = 2;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Runs a server and stops it with idle connections, requests in flight and upstream connections.
fn live_and_stop(driver: Driver) {
    let upstream = Upstream::start(|request| match request.tenant() {
        "slow" => Reply::ok().after(Duration::from_millis(300)),
        _ => Reply::ok(),
    });
    let (listen, metrics) = (free_port(), free_port());
    let config = format!(
        "listen: {listen}\nlisten_metrics_address: {metrics}\ntarget: http://{}/push\ntarget_loki: localhost:1\n\
         tenant: {{label: tenant}}\ncores: 3\ntimeout: 5s\ndriver: {}\n",
        upstream.address,
        driver.name(),
    );
    let plan = || tenantry::config::parse("f", &config, []).unwrap();
    let (wish, wishes) = crossbeam_channel::bounded(2);
    let plan_now = plan();
    let reread = plan();
    let server = std::thread::spawn(move || {
        supervisor::run_until(plan_now, "", move || Ok(reread.clone()), &wishes).unwrap()
    });
    eventually("it listens", || std::net::TcpStream::connect(listen).is_ok());

    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(listen)).collect();
    for (n, client) in idle.iter_mut().enumerate().take(10) {
        let request = body(vec![series(&format!("t{n}"), "up", 1.0), series("other", "up", 1.0)]);
        assert_eq!(client.push(&request).status, 200);
    }
    wish.send(Command::Reload).unwrap();
    let mut in_flight: Vec<Client> = (0..6).map(|n| slow(listen, n)).collect();
    eventually("they are under way", || !upstream.of("slow").is_empty());
    let mut half = Client::connect(listen);
    half.send(b"POST /push HTTP/1.1\r\nHost: x\r\n");

    wish.send(Command::Shutdown).unwrap();
    for client in &mut in_flight {
        assert_eq!(client.response().status, 200, "requests in flight are finished");
    }
    assert!(idle.iter_mut().all(Client::is_closed), "idle connections are closed");
    half.send(b"Content-Length: 0\r\n\r\n");
    assert_eq!(half.response().status, 400, "a request that was being read is answered, and has no series");
    assert!(half.is_closed());
    server.join().unwrap();
    assert!(std::net::TcpStream::connect(listen).is_err(), "the port is closed");
}

/// A request for which the upstream takes long.
fn slow(listen: SocketAddr, n: usize) -> Client {
    let request = body(vec![series("slow", &format!("m{n}"), 1.0), series(&format!("t{n}"), "up", 1.0)]);
    let mut client = Client::connect(listen);
    client.send(&[push_head(request.len(), "").as_bytes(), &request].concat());
    client
}

#[test]
fn a_server_that_was_stopped_leaves_nothing_behind() {
    for driver in Driver::all() {
        // The first run opens what a process opens only once.
        live_and_stop(driver);
        eventually("all threads are gone", || threads() <= OWN_THREADS);
        let before = descriptors();
        for _ in 0..3 {
            live_and_stop(driver);
        }
        eventually("all threads are gone", || threads() <= OWN_THREADS);
        let until = Instant::now() + Duration::from_secs(10);
        while descriptors() != before && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(descriptors(), before, "all is closed");
    }
}
