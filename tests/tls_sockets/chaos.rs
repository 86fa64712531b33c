//! Connections over TLS that are cut at any byte, to senders and to the upstream, while certificates change. Nothing
//! that was acknowledged is lost, and nothing reaches another tenant.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::peers::start;
use crate::relay::{Relay, relay_config};
use crate::support::tls::{Folder, client_config, localhost, session};
use crate::support::{Client, Ends, Reply, Server, Upstream, body, on_both_at_once, series};

/// A proxy that cuts most connections after some bytes, in either direction.
struct Cutter {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    calm: Arc<AtomicBool>,
}

impl Cutter {
    fn start(to: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, calm) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, is_calm, random) = (Arc::clone(&cuts), Arc::clone(&calm), AtomicU64::new(seed));
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(to) = TcpStream::connect(to) else { continue };
                // Handshakes take some 2,000 bytes, and pushes some hundred.
                let lasts = if is_calm.load(Ordering::SeqCst) { u64::MAX } else { next(&random) % 12_000 };
                let bytes = Arc::new(AtomicU64::new(lasts));
                for (from, to) in [(&from, &to), (&to, &from)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (bytes, counted) = (Arc::clone(&bytes), Arc::clone(&counted));
                    std::thread::spawn(move || relay(&from, &to, &bytes, &counted));
                }
            }
        });
        Self { address, cuts, calm }
    }
}

fn next(random: &AtomicU64) -> u64 {
    let step = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    random.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(step(x))).unwrap() >> 33
}

/// Passes bytes on until `left`, of both directions together, is used up.
fn relay(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicU64, cuts: &AtomicUsize) {
    let mut buffer = vec![0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_sub(read as u64)));
        let allowed = usize::try_from(before.unwrap()).unwrap_or(usize::MAX).min(read);
        if to.write_all(&buffer[..allowed]).is_err() {
            break;
        }
        if allowed < read {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
    }
    for tcp in [from, to] {
        let _ = tcp.shutdown(Shutdown::Both);
    }
}

/// Sends one push. Returns the status, or nothing if the connection fails.
fn push(
    kept: &mut Option<Client>,
    to: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    bytes: &[u8],
) -> Option<u16> {
    if kept.is_none() {
        *kept = Client::secure(TcpStream::connect(to).ok()?, session(config)).ok();
    }
    let client = kept.as_mut()?;
    let head = crate::support::client::push_head(bytes.len(), "");
    let response =
        client.attempt(&[head.as_bytes(), bytes].concat()).ok().and_then(|()| client.try_response());
    if response.is_none() {
        *kept = None;
    }
    response.map(|response| response.status)
}

/// Pushes series of three tenants until `stop`. Returns the names that were acknowledged.
fn send(sender: usize, to: SocketAddr, folder: &Folder, stop: &AtomicBool) -> Vec<String> {
    let (config, mut kept, mut acknowledged) = (client_config(folder), None, Vec::new());
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let names: Vec<_> = (0..3).map(|tenant| format!("t{tenant}_s{sender}_{n}")).collect();
        let bytes = body(names.iter().map(|name| series(&name[..2], name, 1.0)).collect());
        match push(&mut kept, to, &config, &bytes) {
            Some(200) => acknowledged.extend(names),
            Some(status) => assert!((500..600).contains(&status), "{status}"),
            None => {}
        }
    }
    acknowledged
}

/// Has two certificates take turns, with a signal for each.
fn renew(server: &Server, folder: &Folder, rounds: u32) {
    for round in 0..rounds {
        let issued = folder.authority.issue(&localhost()).unwrap();
        folder.put_pair("new", &issued);
        for end in ["pem", "key"] {
            std::fs::rename(folder.path(&format!("new.{end}")), folder.path(&format!("server.{end}")))
                .unwrap();
        }
        server.signal("HUP");
        std::thread::sleep(Duration::from_millis(300 + u64::from(round) * 10));
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_connections_are_cut() {
    on_both_at_once(|driver| {
        let folder = Folder::new();
        let upstream = Upstream::start(|_| Reply::ok());
        let tls = Relay::start(relay_config(&folder, "server"), upstream.address);
        let behind = Cutter::start(tls.address, 1);
        let auth = folder.ingress(&[]) + &folder.egress(&[("server_name", "localhost")]);
        let server = start(driver, "https", behind.address, &auth, "cores: 2\ntimeout: 5s\n");
        let before = Cutter::start(server.address, 2);
        let (stop, to) = (AtomicBool::new(false), before.address);
        let acknowledged: Vec<String> = std::thread::scope(|scope| {
            let ends = Ends(&stop);
            let send = |sender| {
                let (folder, stop) = (&folder, &stop);
                scope.spawn(move || send(sender, to, folder, stop))
            };
            let senders: Vec<_> = (0..3).map(send).collect();
            renew(&server, &folder, 10);
            [&before, &behind].iter().for_each(|cutter| cutter.calm.store(true, Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(500));
            drop(ends);
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        let mut stored: BTreeMap<String, usize> = BTreeMap::new();
        for request in upstream.received() {
            for name in request.names() {
                assert_eq!(&name[..2], request.tenant(), "it reached another tenant");
                *stored.entry(name).or_default() += 1;
            }
        }
        let (cut_before, cut_behind) =
            (before.cuts.load(Ordering::SeqCst), behind.cuts.load(Ordering::SeqCst));
        let count = acknowledged.len();
        eprintln!("{}: {count} acknowledged, {cut_before} and {cut_behind} cuts", driver.name());
        assert!(count > 100 && cut_before > 10 && cut_behind > 10, "{count}, {cut_before}, {cut_behind}");
        let lost: Vec<_> = acknowledged.iter().filter(|name| !stored.contains_key(*name)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(server.metric("tenantry_config_reloads_total", "result=\"done\"") > 0.0);
    });
}
