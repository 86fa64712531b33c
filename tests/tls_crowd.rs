//! More TLS clients than there is room or time for: silent ones, half handshakes, and floods of whole ones. The others
//! must hardly notice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss
)]

mod support;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{ClientConfig, ClientConnection};
use support::tls::{Folder, client_config, hello, session};
use support::{Client, Driver, Ends, Reply, Server, Upstream, eventually, on_both, one};
use tenantry::limits::HANDSHAKES_MAX;

/// Clients that open a connection and say nothing.
const SILENT: u64 = 5_000;

/// The addresses of honest clients and of hostile ones.
const HONEST: [u8; 4] = [127, 0, 0, 1];
const HOSTILE: [u8; 4] = [127, 0, 0, 2];

fn serving(driver: Driver, folder: &Folder, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    let extra = format!("auth:\n{}{extra}", folder.ingress(&[]));
    (Server::start(driver, upstream.address, &extra), upstream)
}

/// Raises the limit of descriptors, which the server inherits. Returns it.
fn descriptors() -> u64 {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    hard.unwrap_or(u64::MAX)
}

fn connect_from(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(tcp)
}

/// An honest sender that is far away: its handshake takes at least `pause`.
struct Slow {
    tcp: TcpStream,
    session: ClientConnection,
}

impl Slow {
    /// Sends the ClientHello, and reads what the server answers.
    fn begin(from: [u8; 4], to: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let (tcp, mut session) = (connect_from(from, to)?, session(config));
        session.write_tls(&mut &tcp)?;
        while session.is_handshaking() {
            if session.read_tls(&mut &tcp)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            session.process_new_packets().map_err(std::io::Error::other)?;
        }
        Ok(Self { tcp, session })
    }

    /// Completes the handshake, and pushes.
    fn finish(mut self) -> std::io::Result<()> {
        self.session.write_tls(&mut &self.tcp)?;
        let mut client = Client::secure(self.tcp, self.session)?;
        client.attempt(&[support::client::push_head(one("a").len(), "").as_bytes(), &one("a")].concat())?;
        let status = client.try_response().map(|response| response.status);
        if status == Some(200) { Ok(()) } else { Err(std::io::Error::other(format!("{status:?}"))) }
    }

    fn whole(
        from: [u8; 4],
        to: SocketAddr,
        config: &Arc<ClientConfig>,
        pause: Duration,
    ) -> std::io::Result<()> {
        let begun = Self::begin(from, to, config)?;
        std::thread::sleep(pause);
        begun.finish()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The usual time of a push of an established sender, and of a new one.
fn latencies(server: &Server, kept: &mut Client, config: &Arc<ClientConfig>) -> [Duration; 2] {
    let timed = |act: &mut dyn FnMut()| {
        let begun = Instant::now();
        act();
        begun.elapsed()
    };
    let established = (0..60).map(|_| timed(&mut || assert_eq!(kept.push(&one("a")).status, 200))).collect();
    let new = || assert_eq!(Client::connect_tls(server.address, config).push(&one("a")).status, 200);
    [median(established), median((0..20).map(|_| timed(&mut { new })).collect())]
}

#[test]
fn silent_clients_cost_others_nothing() {
    let (folder, limit) = (Folder::new(), descriptors());
    let crowd = SILENT.min(limit.saturating_sub(500));
    if crowd < SILENT {
        eprintln!("only {crowd} clients: the hard limit of descriptors is {limit}");
    }
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, "timeout: 60s\n");
        let config = client_config(&folder);
        let mut kept = Client::connect_tls(server.address, &config);
        let before = latencies(&server, &mut kept, &config);
        let accepted = || server.metric("tenantry_connections_accepted_total", "");
        let (resident, already) = (server.status_kib("VmRSS"), accepted());
        let silent: Vec<_> = (0..crowd).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        eventually("all are accepted", || accepted() >= already + crowd as f64);
        let each = server.status_kib("VmRSS").saturating_sub(resident) as f64 / crowd as f64;
        let after = latencies(&server, &mut kept, &config);
        eprintln!("{each:.1} KiB for each; an established sender and a new one: {before:?}, then {after:?}");
        assert!(each < 6.0, "{each} KiB for each silent client");
        for (before, after) in before.into_iter().zip(after) {
            assert!(after < 5 * before + Duration::from_millis(50), "{before:?}, then {after:?}");
        }
        drop(silent);
    });
}

#[test]
fn handshakes_that_stall_make_room_for_others() {
    let folder = Folder::new();
    descriptors();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, "cores: 1\ntimeout: 60s\n");
        let config = client_config(&folder);
        let hello = hello(&config);
        let failed = || server.metric("tenantry_tls_handshakes_total", "result=\"failed\"");
        let early: Vec<Slow> =
            (0..10).map(|_| Slow::begin(HONEST, server.address, &config).unwrap()).collect();
        let stalled: Vec<TcpStream> = (0..HANDSHAKES_MAX + 200)
            .map(|_| {
                let mut tcp = connect_from(HOSTILE, server.address).unwrap();
                tcp.write_all(&hello).unwrap();
                tcp
            })
            .collect();
        eventually("some are cut", || failed() >= 200.0);
        let ours = Slow::begin(HONEST, server.address, &config).unwrap();
        let theirs = Slow::begin(HOSTILE, server.address, &config).unwrap();
        for honest in early.into_iter().chain([ours, theirs]) {
            honest.finish().unwrap();
        }
        assert!(failed() < 300.0, "{} for {} too many", failed(), stalled.len() - HANDSHAKES_MAX);
    });
}

/// Opens connections from `from` until `stop`, and sends these bytes over each. Holds the last thousands of them.
fn flood(from: [u8; 4], to: SocketAddr, bytes: &[u8], stop: &AtomicBool) -> usize {
    let (mut held, mut opened) = (VecDeque::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut tcp) = connect_from(from, to) else { continue };
        let _ = tcp.write_all(bytes);
        held.push_back(tcp);
        opened += 1;
        if held.len() > 3_000 {
            held.pop_front();
        }
    }
    opened
}

/// Floods a server with half handshakes. Meanwhile honest senders from `from` try to push, over new connections and
/// over one that was there before. Returns how many of ten did.
fn during_half_handshakes(driver: Driver, folder: &Folder, bytes: &[u8], from: [u8; 4]) -> usize {
    let (server, _upstream) = serving(driver, folder, "cores: 1\n");
    let config = client_config(folder);
    let mut kept = Client::connect_tls(server.address, &config);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&stop);
        let hostile = scope.spawn(|| flood(HOSTILE, server.address, bytes, &stop));
        let failed = || server.metric("tenantry_tls_handshakes_total", "result=\"failed\"");
        eventually("the limit is reached", || failed() > 100.0);
        let begun = Instant::now();
        let mut served = 0;
        for _ in 0..10 {
            assert_eq!(kept.push(&one("kept")).status, 200);
            match Slow::whole(from, server.address, &config, Duration::from_millis(50)) {
                Ok(()) => served += 1,
                Err(e) => eprintln!("{e}"),
            }
            if begun.elapsed() > Duration::from_secs(30) {
                break;
            }
        }
        let took = begun.elapsed();
        drop(ends);
        eprintln!("{served} served in {took:?}; {} connections in all", hostile.join().unwrap());
        served
    })
}

#[test]
fn a_flood_of_half_handshakes_keeps_no_other_address_out() {
    let folder = Folder::new();
    descriptors();
    let hello = hello(&client_config(&folder));
    on_both(|driver| {
        for bytes in [&hello[..1], &hello] {
            // The kernel's backlog knows no addresses. If it overflows, a client has to try again.
            let served = during_half_handshakes(driver, &folder, bytes, HONEST);
            assert!(served >= 5, "{served} of 10");
        }
    });
}

#[test]
fn a_flood_of_half_handshakes_leaves_senders_of_its_own_address_a_chance() {
    let folder = Folder::new();
    descriptors();
    let hello = hello(&client_config(&folder));
    on_both(|driver| {
        assert!(during_half_handshakes(driver, &folder, &hello[..1], HOSTILE) > 0);
    });
}

/// Shakes hands anew, at most 150 times a second, until `stop`.
fn shake_hands(to: SocketAddr, config: &Arc<ClientConfig>, stop: &AtomicBool, done: &AtomicUsize) {
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let mut config = ClientConfig::clone(config);
        config.resumption = rustls::client::Resumption::disabled();
        let mut session = session(&Arc::new(config));
        let Ok(tcp) = TcpStream::connect(to) else { continue };
        while session.is_handshaking() && session.complete_io(&mut &tcp).is_ok() {}
        done.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(6_600).saturating_sub(begun.elapsed()));
    }
}

/// How many pushes two established senders get done in a second and a half.
fn throughput(kept: &mut [Client]) -> usize {
    let until = Instant::now() + Duration::from_millis(1_500);
    let push = |client: &mut Client| {
        let mut pushed = 0;
        while Instant::now() < until {
            assert_eq!(client.push(&one("kept")).status, 200);
            pushed += 1;
        }
        pushed
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = kept.iter_mut().map(|client| scope.spawn(move || push(client))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    })
}

#[test]
fn a_flood_of_handshakes_leaves_established_connections_their_share() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, "");
        let config = client_config(&folder);
        let mut kept = [(); 2].map(|()| Client::connect_tls(server.address, &config));
        // Other processes share the machine, so the best of three counts.
        let found = (0..3).any(|_| {
            let alone = throughput(&mut kept);
            let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
            let beside = std::thread::scope(|scope| {
                let _ends = Ends(&stop);
                (0..3).for_each(|_| drop(scope.spawn(|| shake_hands(server.address, &config, &stop, &done))));
                throughput(&mut kept)
            });
            let handshakes = done.load(Ordering::SeqCst);
            eprintln!("{alone} pushes alone, {beside} beside {handshakes} handshakes");
            assert!(handshakes > 50, "{handshakes}");
            3 * beside >= alone
        });
        assert!(found, "the share of established connections is too small");
        assert_eq!(server.metric("tenantry_tls_handshakes_total", "result=\"failed\""), 0.0);
    });
}
