//! What TLS costs, without sockets: a request of 100 KB from one session to another, and handshakes.
//! `cargo bench --bench tls`.
//!
//! `bytes` holds our sessions against bare rustls, by its buffered API as its own examples use it, with the same
//! copies that stand for the kernel's. `handshakes` shows both sides together. Times are the thread's CPU time, as
//! that is what a core has to give.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a bench, not an interface")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "CPU time is positive")]

#[path = "../tests/tls/pair.rs"]
mod pair;

use std::io::{IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pair::{Files, Pair, load_client, load_server};
use rustls::{ClientConnection, ServerConnection};
use tenantry::tls::client::{ClientSettings, ClientTls};
use tenantry::tls::names::Choices;
use tenantry::tls::server::{ServerSettings, ServerTls};
use tenantry::tls::session::{Progress, Session};
use testkit::pki::{Authority, Wanted};

const HEAD_BYTES: usize = 300;
const BODY_BYTES: usize = 100_000;

fn configs(version: &str) -> (ClientTls, ServerTls) {
    let authority = Authority::new("Bench CA").unwrap();
    let mut files = Files::default();
    let issued = authority.issue(&Wanted::server(&["localhost"])).unwrap();
    let certificates = vec![files.put_pair("server", &issued, "")];
    let choices = Choices { max_version: Some(version.into()), ..Choices::default() };
    let ca = Some(files.put("ca.pem", &authority.certificate()));
    let client = load_client(&files, &ClientSettings { ca, choices, ..ClientSettings::default() }).unwrap();
    (client, load_server(&files, &ServerSettings { certificates, ..ServerSettings::default() }).unwrap())
}

/// A request from our client to our server: in slices, as the upstream's client has them.
fn ours(pair: &mut Pair, slices: &[&[u8]], got: &mut Vec<u8>) {
    got.clear();
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    let sent =
        pair.client.session.encrypt(slices.iter().copied(), usize::MAX, &mut pair.client.outgoing).unwrap();
    assert_eq!(sent, all, "it is one step");
    let (buffer, filled) = pair.client.outgoing.take();
    receive(&mut pair.server.session, &buffer[..filled], got, &mut pair.server.outgoing);
    pair.client.outgoing.restore(buffer);
    assert_eq!(got.len(), all);
}

fn receive(
    session: &mut Session,
    mut wire: &[u8],
    got: &mut Vec<u8>,
    outgoing: &mut tenantry::tls::outgoing::Outgoing,
) {
    while !wire.is_empty() {
        let (mut buffer, end) = session.lend();
        let (now, later) = wire.split_at(wire.len().min(end - buffer.len()));
        buffer.extend_from_slice(now);
        wire = later;
        session.received(buffer);
        while let Progress::Plaintext(_) = session.read(got, 1 << 20, outgoing).unwrap() {}
    }
}

struct Bare {
    client: ClientConnection,
    server: ServerConnection,
    wire: Vec<u8>,
}

impl Bare {
    fn connected(client: &ClientTls, server: &ServerTls) -> Self {
        let name = client.name_for("localhost").unwrap();
        let client = ClientConnection::new(Arc::clone(client.config()), name).unwrap();
        let server = ServerConnection::new(Arc::clone(server.config())).unwrap();
        let mut bare = Self { client, server, wire: Vec::new() };
        bare.client.set_buffer_limit(None);
        while bare.client.is_handshaking() || bare.server.is_handshaking() || bare.server.wants_write() {
            bare.up(&mut []);
            bare.wire.clear();
            while bare.server.wants_write() {
                bare.server.write_tls(&mut bare.wire).unwrap();
            }
            let mut wire = &bare.wire[..];
            while !wire.is_empty() {
                bare.client.read_tls(&mut wire).unwrap();
                bare.client.process_new_packets().unwrap();
            }
        }
        bare
    }

    fn up(&mut self, got: &mut [u8]) -> usize {
        self.wire.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.wire).unwrap();
        }
        let (mut wire, mut filled) = (&self.wire[..], 0);
        while !wire.is_empty() {
            self.server.read_tls(&mut wire).unwrap();
            let state = self.server.process_new_packets().unwrap();
            if state.plaintext_bytes_to_read() > 0 {
                filled += self.server.reader().read(&mut got[filled..]).unwrap();
            }
        }
        filled
    }

    fn send(&mut self, slices: &[&[u8]], got: &mut [u8]) -> usize {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let sent = self.client.writer().write_vectored(&slices).unwrap();
        assert_eq!(self.up(got), sent);
        sent
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of so many runs.
fn times(runs: u64, mut run: impl FnMut()) -> Duration {
    let begin = cpu_time();
    (0..runs).for_each(|_| run());
    cpu_time() - begin
}

fn bytes(c: &mut Criterion) {
    let mut group = c.benchmark_group("bytes");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(50);
    group.throughput(Throughput::Bytes((HEAD_BYTES + BODY_BYTES) as u64));
    let (head, body) = (vec![b'h'; HEAD_BYTES], vec![b'b'; BODY_BYTES]);
    let in_pieces: Vec<&[u8]> = std::iter::once(&head[..]).chain(body.chunks(3_000)).collect();
    for version in ["TLS12", "TLS13"] {
        let (client, server) = configs(version);
        for (name, slices) in
            [("head and body", vec![&head[..], &body[..]]), ("34 slices", in_pieces.clone())]
        {
            let mut pair = Pair::connected(&client, &server, "localhost");
            let mut got = Vec::with_capacity(1 << 20);
            let id = BenchmarkId::new(format!("ours, {name}"), version);
            group.bench_function(id, |b| {
                b.iter_custom(|runs| times(runs, || ours(&mut pair, &slices, &mut got)));
            });
            let mut bare = Bare::connected(&client, &server);
            let mut got = vec![0; 1 << 20];
            let id = BenchmarkId::new(format!("bare, {name}"), version);
            group.bench_function(id, |b| {
                b.iter_custom(|runs| times(runs, || assert!(bare.send(&slices, &mut got) > BODY_BYTES)));
            });
        }
    }
    group.finish();
}

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshakes");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(50);
    for version in ["TLS12", "TLS13"] {
        let (client, server) = configs(version);
        Pair::connected(&client, &server, "localhost");
        group.bench_function(BenchmarkId::new("resumed", version), |b| {
            b.iter_custom(|runs| times(runs, || drop(Pair::connected(&client, &server, "localhost"))));
        });
        group.bench_function(BenchmarkId::new("full", version), |b| {
            b.iter_custom(|runs| {
                times(runs, || drop(Pair::connected(&client.for_address(), &server, "localhost")))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bytes, handshakes);
criterion_main!(benches);
