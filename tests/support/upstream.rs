//! An upstream that records what it gets and answers as its script says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::remote_write::{WriteRequest, inflate, names};

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// Its number on this connection, from 0.
    pub nth: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn tenant(&self) -> &str {
        self.header("x-scope-orgid").or(self.header("thanos-tenant")).expect("a tenant header")
    }

    pub fn request(&self) -> WriteRequest {
        inflate(&self.body)
    }

    pub fn names(&self) -> Vec<String> {
        names(&self.request())
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, and keep the connection.
    Raw(Vec<u8>),
    /// These bytes, and close.
    RawThenClose(Vec<u8>),
    /// Close without a byte of answer.
    Close,
    /// Nothing, until the peer gives up.
    Stall,
    /// First wait, then do that.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub fn status(status: u16, body: &str) -> Self {
        Self::with(status, "", body)
    }

    /// A response with more header lines, each with its CRLF.
    pub fn with(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Raw(
            format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes(),
        )
    }

    pub fn ok() -> Self {
        Self::status(200, "")
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// The upstream, until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open_most: AtomicUsize,
    stopped: AtomicBool,
}

impl Upstream {
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub fn start_on(
        listener: TcpListener,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            open_most: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                open.retain(|earlier| !is_closed(earlier));
                open.push(stream.try_clone().unwrap());
                accepting.open_most.fetch_max(open.len(), Ordering::SeqCst);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// What was received for one tenant.
    pub fn of(&self, tenant: &str) -> Vec<Received> {
        self.received().into_iter().filter(|r| r.tenant() == tenant).collect()
    }

    /// Connections that were ever opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The most connections that were open at one time.
    pub fn open_most(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }
}

/// Whether the peer has closed: what the kernel knows at once, and the thread that serves it a little later.
fn is_closed(stream: &TcpStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    !matches!(rustix::net::recv(stream, &mut [0u8; 1], flags), Ok((1.., _)) | Err(rustix::io::Errno::AGAIN))
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let mut nth = 0;
        while let Some(mut received) = read_request(&mut stream) {
            (received.connection, received.nth) = (connection, nth);
            nth += 1;
            let reply = (self.script)(&received);
            self.received.lock().unwrap().push(received);
            if !act(&mut stream, reply) {
                break;
            }
        }
        // Dropping would not close it: the thread that accepts holds it too.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn act(stream: &mut TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Raw(bytes) => stream.write_all(&bytes).is_ok(),
        Reply::RawThenClose(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Reply::Close => false,
        Reply::Stall => {
            let _ = stream.read(&mut [0]);
            false
        }
        Reply::After(delay, then) => {
            std::thread::sleep(delay);
            act(stream, *then)
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 65_536];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<_> =
        lines.map(|l| l.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut received = Received { path, headers, body: Vec::new(), connection: 0, nth: 0 };
    let length: usize = received.header("content-length").expect("a length").parse().unwrap();
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => body.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
    assert_eq!(body.len(), length, "bytes behind the body");
    received.body = body;
    Some(received)
}
