//! An upstream that records requests and answers as its script says.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::http::{Framing, Headers, HttpError};
pub use testkit::upstream::{Close, Reply};
use testkit::upstream::{Request, Server, Service, Session};

use super::remote_write::{WriteRequest, inflate, names};

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// The number of its connection, from 0.
    pub connection: u64,
    /// Its number on this connection, from 0.
    pub nth: u64,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
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

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// The upstream, until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    /// Faults that no request of the server may have.
    faults: Mutex<Vec<String>>,
    open: Mutex<Vec<TcpStream>>,
    open_most: AtomicUsize,
}

impl Upstream {
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub fn start_on(
        listener: TcpListener,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            received: Mutex::default(),
            faults: Mutex::default(),
            open: Mutex::default(),
            open_most: AtomicUsize::new(0),
        });
        let service = Box::new(Serving(Arc::clone(&shared)));
        let server = Server::start(listener, usize::MAX, service).unwrap();
        Self { address: server.addr(), server, shared }
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
        usize::try_from(self.server.connections()).unwrap()
    }

    /// The most connections that were open at one time.
    pub fn open_most(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // No client waits for the remaining answers.
        self.server.go_down();
        if !std::thread::panicking() {
            assert_eq!(*self.shared.faults.lock().unwrap(), [""; 0]);
        }
    }
}

struct Serving(Arc<Shared>);

impl Service for Serving {
    fn connect(&self, connection: u64, stream: &TcpStream) -> Box<dyn Session> {
        let mut open = self.0.open.lock().unwrap();
        open.retain(|earlier| !is_closed(earlier));
        open.push(stream.try_clone().unwrap());
        self.0.open_most.fetch_max(open.len(), Ordering::SeqCst);
        Box::new(Serves { shared: Arc::clone(&self.0), connection })
    }
}

struct Serves {
    shared: Arc<Shared>,
    connection: u64,
}

impl Session for Serves {
    fn answer(&mut self, request: &Request<'_>) -> Reply {
        let head = request.head;
        if request.bytes_behind > 0 || !matches!(head.framing, Framing::Length(_)) {
            let fault = format!("{} bytes behind the body of {head:?}", request.bytes_behind);
            self.shared.faults.lock().unwrap().push(fault);
        }
        let received = Received {
            path: head.path.clone(),
            headers: head.headers.clone(),
            body: request.body.to_vec(),
            connection: self.connection,
            nth: request.nth,
        };
        let reply = (self.shared.script)(&received);
        self.shared.received.lock().unwrap().push(received);
        reply
    }

    fn broken(&mut self, error: &HttpError) {
        self.shared.faults.lock().unwrap().push(error.to_string());
    }
}

/// Whether the peer has closed. The kernel knows this earlier than the thread that serves the connection.
fn is_closed(stream: &TcpStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    !matches!(rustix::net::recv(stream, &mut [0u8; 1], flags), Ok((1.., _)) | Err(rustix::io::Errno::AGAIN))
}
