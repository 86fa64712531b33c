//! The admin port over sockets, with hostile clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Admin, Inbox, Listeners, Pages};
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_TIMEOUT_MILLIS, CLOSE_DISCARD_BYTES_MAX};
use crate::metrics::Metrics;
use crate::model::Destination;
use crate::shared::Shared;
use crate::tenant::{IdRules, TenantId};

mod turns;

fn start_with(tenants: usize) -> (Admin, SocketAddr, Arc<Shared>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared::new(2, 100, 10, 10);
    let metrics = Arc::new(Metrics::new(2, tenants.max(10), true));
    for n in 0..tenants {
        let tenant = TenantId::new(&format!("tenant-{n}"), IdRules::Mimir).unwrap();
        metrics.tenant(0, Destination::Metrics, &tenant).answered(200, 7.0);
    }
    let plan = crate::config::parse("", "listen: 127.0.0.1:1", []).unwrap();
    let inbox = Inbox::new().unwrap();
    plan.admin_auth.start(None, &inbox.deliver()).unwrap();
    let listeners = Listeners { pages: vec![listener], ..Listeners::default() };
    let plan = Arc::new(arc_swap::ArcSwap::from_pointee(plan));
    let pages = Pages::new(metrics, Arc::clone(&shared), "epoll", plan);
    (Admin::start(listeners, Arc::new(pages), inbox).unwrap(), address, shared)
}

fn start() -> (Admin, SocketAddr, Arc<Shared>) {
    start_with(0)
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn connect(address: SocketAddr, n: usize) -> Vec<TcpStream> {
    (0..n).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// The duration of a scrape, which must be complete.
fn scrape(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.100}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    begun.elapsed()
}

/// Scrapes repeatedly, a moment apart. Each takes less than a fifth of a second, except one that the machine may delay.
fn scrapes_are_prompt(address: SocketAddr) {
    let scrapes = (0..5).map(|_| {
        std::thread::park_timeout(Duration::from_millis(50));
        scrape(address)
    });
    let mut times: Vec<_> = scrapes.collect();
    times.sort_unstable();
    assert!(times[3] < Duration::from_millis(200) && times[4] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn the_thread_has_a_lower_priority_than_the_cores() {
    let (admin, address, _) = start();
    assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    // proc_pid_stat(5): the name is in parentheses, and the nice value is the seventeenth field after it.
    let nice = |stat: String| {
        let fields = stat.split_once("(admin) ")?.1.to_owned();
        fields.split(' ').nth(16)?.parse::<i32>().ok()
    };
    let all: Vec<_> = stats.filter_map(nice).collect();
    assert!(all.contains(&crate::limits::ADMIN_NICE), "{all:?}");
    admin.stop();
}

#[test]
fn only_the_documented_pages_exist() {
    let (admin, address, shared) = start();
    assert!(get(address, "/metrics?x=y").contains("\ncortex_tenant_timeseries_batches_received 0\n"));
    assert!(get(address, "/").contains("listen=127.0.0.1:1"));
    assert!(get(address, "/debug/threads").contains("admin"));
    let profile = get(address, "/debug/pprof/profile?seconds=5");
    assert!(profile.starts_with("HTTP/1.1 404") && profile.contains("listen_pprof"));
    assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
    shared.begin_shutdown();
    assert!(get(address, "/alive").starts_with("HTTP/1.1 503"));
    assert!(get(address, "/nothing").starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(ask(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
    admin.stop();
}

#[test]
fn five_hundred_silent_clients_do_not_delay_a_scrape() {
    let (admin, address, _) = start();
    let silent = connect(address, 500);
    scrapes_are_prompt(address);
    drop(silent);
    admin.stop();
}

#[test]
fn five_hundred_slow_senders_do_not_delay_a_scrape() {
    let (admin, address, _) = start();
    let mut slow = connect(address, 500);
    let say = |slow: &mut Vec<TcpStream>, what: &[u8]| slow.iter_mut().for_each(|c| _ = c.write_all(what));
    say(&mut slow, b"GET / HTTP/1.1\r\nHost: x\r\nX: ");
    let dawdling = std::thread::spawn(move || {
        for _ in 0..10 {
            say(&mut slow, b"x");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    scrapes_are_prompt(address);
    dawdling.join().unwrap();
    admin.stop();
}

#[test]
fn five_hundred_clients_that_never_read_do_not_delay_a_scrape() {
    // Pages of half a megabyte, more than the kernel keeps for a client that does not read.
    let (admin, address, _) = start_with(300);
    let mut deaf = Vec::new();
    for _ in 0..500 {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4_096).unwrap();
        client.connect(&address.into()).unwrap();
        (&client).write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        deaf.push(client);
    }
    scrapes_are_prompt(address);
    drop(deaf);
    admin.stop();
}

#[test]
fn many_scrapes_of_large_pages_at_once_are_all_answered_soon() {
    let (admin, address, _) = start_with(10_000);
    let alone = scrape(address);
    let clients: Vec<_> = (0..40).map(|_| std::thread::spawn(move || scrape(address))).collect();
    let begun = Instant::now();
    assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
    let alive = begun.elapsed();
    let slowest = clients.into_iter().map(|client| client.join().unwrap()).max().unwrap();
    eprintln!("alone {alone:?}, the slowest of forty {slowest:?}, /alive meanwhile {alive:?}");
    // One after the other, they would take forty times as long.
    assert!(slowest < alone * 20 + Duration::from_millis(500), "{slowest:?}; alone: {alone:?}");
    assert!(alive < alone * 4 + Duration::from_millis(500), "{alive:?}");
    admin.stop();
}

/// The time until the server cuts the client off.
fn cut_off_after(mut client: TcpStream) -> Duration {
    let begun = Instant::now();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let read = client.read(&mut [0; 100]);
    assert!(!matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock), "{read:?}");
    begun.elapsed()
}

const A_BIT_LATE: Duration = Duration::from_millis(ADMIN_TIMEOUT_MILLIS + 1_500);

#[test]
fn silent_and_slow_senders_are_cut_off_in_time() {
    let (admin, address, _) = start();
    let silent = TcpStream::connect(address).unwrap();
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ").unwrap();
    let reader = slow.try_clone().unwrap();
    std::thread::spawn(move || {
        while slow.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    });
    let begun = Instant::now();
    for client in [silent, reader] {
        cut_off_after(client);
        assert!(begun.elapsed() < A_BIT_LATE, "{:?}", begun.elapsed());
        assert!(begun.elapsed() > Duration::from_millis(ADMIN_TIMEOUT_MILLIS / 2), "{:?}", begun.elapsed());
    }
    admin.stop();
}

#[test]
fn a_slow_reader_is_cut_off() {
    let (admin, address, _) = start_with(2_000);
    let mut client = TcpStream::connect(address).unwrap();
    socket2::SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (begun, mut read) = (Instant::now(), 0);
    // At this pace, reading all of it would take minutes.
    while let Ok(n @ 1..) = client.read(&mut [0; 1_000]) {
        read += n;
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(60), "after {read} bytes");
        if begun.elapsed() > A_BIT_LATE + Duration::from_secs(5) {
            // Only what the kernels have buffered can still be read.
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            read += rest.len();
            break;
        }
    }
    let page = get(address, "/metrics").len();
    assert!(read < page, "{read} of {page}");
    admin.stop();
}

#[test]
fn a_refused_request_with_a_body_still_gets_its_answer() {
    let (admin, address, _) = start();
    // More than the kernel buffers: a client that cannot send all of it may never read the answer.
    let body = "x".repeat(CLOSE_DISCARD_BYTES_MAX - (1 << 20));
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert!(ask(address, &request).contains("for GET and HEAD"));
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {body}\r\n\r\n");
    assert!(ask(address, &long).starts_with("HTTP/1.1 400"));
    admin.stop();
}

#[test]
fn stopping_cuts_clients_off_ends_the_thread_and_frees_the_port() {
    let (admin, address, shared) = start();
    let silent = connect(address, ADMIN_CONNECTIONS_MAX / 2);
    scrape(address);
    let begun = Instant::now();
    admin.stop();
    assert!(begun.elapsed() < Duration::from_millis(ADMIN_TIMEOUT_MILLIS / 2), "{:?}", begun.elapsed());
    assert_eq!(Arc::strong_count(&shared), 1, "the thread has let go of it");
    assert!(TcpStream::connect(address).is_err());
    for client in silent {
        assert!(cut_off_after(client) < Duration::from_secs(1));
    }
    let successor = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    successor.set_reuse_address(true).unwrap();
    successor.bind(&address.into()).unwrap();
    successor.listen(1).unwrap();
}

/// Ten thousand tenants, twenty scrapes at a time in all formats and codings: a probe is still answered in time.
#[test]
fn many_scrapes_of_many_tenants_do_not_delay_a_probe() {
    let (admin, address, _) = start_with(10_000);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let scrapers: Vec<_> = (0..20)
        .map(|n| {
            let over = Arc::clone(&over);
            let accept = ["*/*", "application/openmetrics-text"][n % 2];
            let coding = ["identity", "gzip", "zstd"][n % 3];
            let request = format!(
                "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nAccept-Encoding: {coding}\r\n\r\n"
            );
            std::thread::spawn(move || {
                let mut scrapes = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    let begins = answer.get(..100).unwrap_or(&answer).escape_ascii();
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{scrapes}: {begins}");
                    scrapes += 1;
                }
                scrapes
            })
        })
        .collect();
    let mut probes: Vec<_> = (0..40)
        .map(|_| {
            std::thread::park_timeout(Duration::from_millis(20));
            let begun = Instant::now();
            assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
            begun.elapsed()
        })
        .collect();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let scrapes: u32 = scrapers.into_iter().map(|scraper| scraper.join().unwrap()).sum();
    probes.sort_unstable();
    eprintln!("{scrapes} scrapes; probes took {:?}, {:?} and {:?}", probes[20], probes[36], probes[39]);
    // A kubelet waits for a second.
    assert!(probes[36] < Duration::from_millis(500) && probes[39] < Duration::from_secs(1), "{probes:?}");
    admin.stop();
}
