//! A core in this process, between a sender and a scripted upstream.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use testkit::proto::{TimeSeries, WriteRequest};

use super::*;
use crate::config::reload::adopt;
use crate::config::{DriverChoice, parse};
use crate::metrics::ledger::Auditor;
use crate::upstream::resolve::Resolution;

const WAIT: Duration = Duration::from_secs(10);

fn plan(scheme: &str, upstream: SocketAddr, token: &str) -> Plan {
    let text = format!(
        "target: {scheme}://{upstream}/push\ntarget_loki: {scheme}://{upstream}/logs\n\
         auth: {{egress: {{bearer_token: {token}, tls_config: {{insecure_skip_verify: true}}}}}}\n"
    );
    parse("f", &text, []).unwrap()
}

/// Starts the authentication of a plan. No password is asked about.
fn start_auth(plan: &Plan) {
    plan.auth.start(None, &(Arc::new(|_, _, _| {}) as _)).unwrap();
}

/// A single core that runs.
struct Running {
    live: Live,
    address: SocketAddr,
    post: Post<Message>,
    done: Receiver<usize>,
    metrics: Arc<Metrics>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(driver: Driver, plan: Plan, upstream: SocketAddr) -> Self {
        Self::start_with(driver, plan, upstream, None)
    }

    fn start_with(driver: Driver, plan: Plan, upstream: SocketAddr, spool: Option<SpoolStart>) -> Self {
        start_auth(&plan);
        let resolution = Resolution { addresses: vec![upstream], error: None };
        let resolution = Addresses::new(ArcSwap::new(Arc::new(resolution)));
        let (listener, (mailbox, post, bell)) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), Mailbox::new().unwrap());
        let address = listener.local_addr().unwrap();
        let (done_by, done) = crossbeam_channel::bounded(1);
        let known = |_| Ok::<_, io::Error>(Addresses::clone(&resolution));
        let setup = Setup {
            core: 0,
            cpu: None,
            driver,
            posts: [post.clone()].into(),
            addresses: PerUpstream::try_new(plan.upstream_ids(), known).unwrap(),
            shared: Shared::new(1, plan.limits.in_flight_bytes_max, plan.concurrency, 10),
            directory: Directory::new(1, 1, plan.max_conns_per_host, plan.slow_connections_max(), |_, _| {}),
            metrics: Arc::new(Metrics::new(1, plan.limits.tenants_max, true)),
            plan: Live::new(ArcSwap::new(Arc::new(plan))),
            done: done_by,
            ended: crossbeam_channel::bounded(1).0,
            spool,
        };
        let (live, metrics) = (Arc::clone(&setup.plan), Arc::clone(&setup.metrics));
        let listeners = vec![Listener::own(listener)];
        let thread = start(setup, Endpoints { listeners, mailbox, bell }).unwrap();
        Self { live, address, post, done, metrics, thread }
    }

    /// Sends a push over a new connection, which is returned.
    fn push(&self) -> TcpStream {
        self.push_of(&["a"])
    }

    /// The same, with a series of each tenant.
    fn push_of(&self, tenants: &[&str]) -> TcpStream {
        let series =
            |tenant: &&str| TimeSeries::new(&[("__name__", "up"), ("__tenant__", tenant)], &[(1, 1.0)]);
        self.push_all(tenants.iter().map(series).collect())
    }

    /// The same, with these series.
    fn push_all(&self, timeseries: Vec<TimeSeries>) -> TcpStream {
        let body = WriteRequest { timeseries, ..Default::default() }.to_block();
        let head = format!(
            "POST /push HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut sender = TcpStream::connect(self.address).unwrap();
        sender.set_read_timeout(Some(WAIT)).unwrap();
        sender.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        sender
    }

    fn stop(self) {
        for message in [Message::Close, Message::Drain] {
            self.post.post(message);
            self.done.recv_timeout(WAIT).unwrap();
        }
        self.post.post(Message::Stop);
        self.thread.join().unwrap();
    }
}

/// The next connection.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + WAIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(WAIT)).unwrap();
                return stream;
            }
            Err(_) if Instant::now() < until => std::thread::yield_now(),
            Err(error) => panic!("no connection: {error}"),
        }
    }
}

/// What comes with the next read; nothing if the peer has closed the connection.
fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4_096];
    let read = stream.read(&mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn new_terms_are_not_sent_over_an_old_connection_before_the_message_of_the_reload() {
    for choice in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let Ok((driver, _)) = Driver::probe(choice) else { continue };
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = upstream.local_addr().unwrap();
        let core = Running::start(driver, plan("http", at, "first"), at);
        let mut sender = core.push();
        let mut plain = accept(&upstream);
        // A request is sent in one write.
        assert!(read(&mut plain).starts_with(b"POST /push HTTP/1.1\r\n"));
        plain.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(read(&mut sender).starts_with(b"HTTP/1.1 200"));

        // The supervisor stores the plan, and then sends `Reloaded`. Here the push comes in between.
        let renewed = adopt(&core.live.load(), plan("https", at, "canary")).unwrap().plan;
        start_auth(&renewed);
        core.live.store(Arc::new(renewed));
        let mut sender = core.push();
        let sent = read(&mut plain);
        assert!(sent.is_empty(), "{}", String::from_utf8_lossy(&sent));
        let mut secure = accept(&upstream);
        assert_eq!(read(&mut secure).first(), Some(&0x16), "a TLS handshake");
        drop(secure);
        assert!(read(&mut sender).starts_with(b"HTTP/1.1 502"));
        core.stop();
    }
}

/// Answers every request with 200 until the core has stopped. A request comes in one read.
fn always_200(upstream: TcpListener) -> JoinHandle<()> {
    always(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

/// The same with any answer.
fn always(upstream: TcpListener, answer: &'static [u8]) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = upstream.accept() {
            std::thread::spawn(move || {
                let mut bytes = vec![0; 4_096];
                while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                    stream.write_all(answer).unwrap();
                }
            });
        }
    })
}

mod balances;
mod spool;

/// The faults are planted for tenants of these names: see `egress/planted.rs`.
#[test]
fn the_ledger_notices_samples_that_are_lost_doubled_or_sent_for_another_tenant() {
    for choice in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let Ok((driver, _)) = Driver::probe(choice) else { continue };
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = upstream.local_addr().unwrap();
        always_200(upstream);
        let core = Running::start(driver, plan("http", at, "first"), at);
        let unaccounted = |tenants: &[&str]| {
            assert!(read(&mut core.push_of(tenants)).starts_with(b"HTTP/1.1 200"));
            let mut auditor = Auditor::default();
            (0..2).for_each(|_| auditor.audit(&core.metrics));
            let mut off: Vec<_> = auditor.tenants().map(|(_, tenant, n)| (tenant.to_owned(), n)).collect();
            off.sort();
            (auditor.unaccounted(), off)
        };
        assert_eq!(unaccounted(&["a", "b"]), (0, vec![]));
        assert_eq!(unaccounted(&["a", "planted-lost"]), (1, vec![("planted-lost".into(), 1)]));
        let both = vec![("planted-doubled".into(), -1), ("planted-lost".into(), 1)];
        assert_eq!(unaccounted(&["a", "planted-doubled"]), (2, both.clone()));
        // Its series went out with the header of `a`. They came in, and nothing was stored of them.
        let misrouted = [vec![("a".into(), 1)], both].concat();
        assert_eq!(unaccounted(&["planted-misrouted"]), (3, misrouted));
        let ledger = core.metrics.ledger();
        assert_eq!((ledger.received, ledger.in_flight), (7, 0));
        core.stop();
    }
}
