//! Senders that push while a server stops, and what comes of their pushes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::client::push_head;
use super::{Upstream, body, series};

/// Senders that push one series after another, each with its own name, until they are told to stop.
struct Load {
    over: AtomicBool,
    next: AtomicUsize,
}

/// The result of a push to a server that may be shutting down.
pub enum Push {
    Acknowledged(String),
    /// The connection was refused, or broke before an answer came: why, and which connection it was.
    Broken(String),
}

impl Load {
    fn new() -> Self {
        Self { over: AtomicBool::new(false), next: AtomicUsize::new(0) }
    }

    /// Pushes over new connections, or over the same one as long as the server keeps it.
    fn push(&self, address: SocketAddr, keep: bool) -> Vec<Push> {
        let mut pushes = Vec::new();
        let mut kept = None;
        while !self.over.load(Ordering::Relaxed) {
            let name = format!("m{}", self.next.fetch_add(1, Ordering::Relaxed));
            let sent = push_once(address, kept.take(), &name);
            pushes.push(match sent {
                Ok(stream) => {
                    kept = stream.filter(|_| keep);
                    Push::Acknowledged(name)
                }
                Err(error) => Push::Broken(error),
            });
        }
        pushes
    }
}

/// Pushes from six senders while `during` runs. Half of them keep their connections.
pub fn push_while(address: SocketAddr, during: impl FnOnce()) -> Vec<Push> {
    let load = Load::new();
    std::thread::scope(|scope| {
        let sender = |n| {
            let load = &load;
            scope.spawn(move || load.push(address, n % 2 == 0))
        };
        let senders: Vec<_> = (0..6).map(sender).collect();
        let ends = super::Ends(&load.over);
        during();
        drop(ends);
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    })
}

/// Pushes once. Returns the connection if it stays open.
fn push_once(address: SocketAddr, kept: Option<TcpStream>, name: &str) -> Result<Option<TcpStream>, String> {
    let which = if kept.is_some() { "kept" } else { "new" };
    let told = |what: &'static str| move |error: std::io::Error| format!("{which}, {what}: {error}");
    let mut stream = kept.map_or_else(|| TcpStream::connect(address), Ok).map_err(told("connecting"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = body(vec![series("a", name, 1.0), series("b", name, 1.0)]);
    let request = [push_head(request.len(), "").as_bytes(), &request].concat();
    stream.write_all(&request).map_err(told("writing"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1_024];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).map_err(told("reading"))? {
            0 => return Err(format!("{which}: closed without an answer")),
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok((!answer.contains("Connection: close")).then_some(stream))
}

/// The names of the series that the upstream has, for each of the two tenants.
pub fn stored(upstream: &Upstream) -> [BTreeSet<String>; 2] {
    ["a", "b"].map(|tenant| upstream.of(tenant).iter().flat_map(|request| request.names()).collect())
}
