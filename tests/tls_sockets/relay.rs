//! An upstream's TLS: a relay in front of the plain scripted upstream.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::support::tls::{Folder, chain, key, roots};

/// What the relay runs by: the certificate `NAME.pem` with `NAME.key`.
pub(crate) fn relay_config(folder: &Folder, name: &str) -> ServerConfig {
    relay_config_for(folder, name, false)
}

/// As [`relay_config`], and clients must have a certificate of the folder's authority.
pub(crate) fn relay_config_mutual(folder: &Folder, name: &str) -> ServerConfig {
    relay_config_for(folder, name, true)
}

fn relay_config_for(folder: &Folder, name: &str, mutual: bool) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = if mutual {
        let roots = Arc::new(roots(&folder.path("ca.pem")));
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().unwrap()
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let (chain, key) =
        (chain(&folder.path(&format!("{name}.pem"))), key(&folder.path(&format!("{name}.key"))));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The relay, until the test ends.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<ServerConfig>,
    to: SocketAddr,
    connections: AtomicUsize,
    resumed: AtomicUsize,
    /// A connection began with something else than TLS.
    plain: AtomicBool,
    /// Names that clients have asked for.
    names: Mutex<Vec<Option<String>>>,
    open: Mutex<Vec<TcpStream>>,
    /// Ends a connection without a `close_notify`, and one whose handshake fails at once.
    rude: AtomicBool,
    /// Asks for new keys at every eighth read.
    update_keys: AtomicBool,
    /// Connections that ended without a `close_notify` of the client.
    truncated: AtomicUsize,
    ended: AtomicUsize,
}

impl Relay {
    pub(crate) fn start(config: ServerConfig, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            to,
            connections: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            plain: AtomicBool::new(false),
            names: Mutex::default(),
            open: Mutex::default(),
            rude: AtomicBool::new(false),
            update_keys: AtomicBool::new(false),
            truncated: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        });
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&all);
                // A connection that fails is one that the test looks at from the other side.
                std::thread::spawn(move || _ = serve(&shared, tcp));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Connections that the client has not ended.
    pub(crate) fn open(&self) -> usize {
        self.connections() - self.shared.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn truncated(&self) -> usize {
        self.shared.truncated.load(Ordering::SeqCst)
    }

    /// Whether anything but TLS has come.
    pub(crate) fn heard_plain_bytes(&self) -> bool {
        self.shared.plain.load(Ordering::SeqCst)
    }

    pub(crate) fn names(&self) -> Vec<Option<String>> {
        self.shared.names.lock().unwrap().clone()
    }

    pub(crate) fn end_rudely(&self) {
        self.shared.rude.store(true, Ordering::SeqCst);
    }

    pub(crate) fn update_keys(&self) {
        self.shared.update_keys.store(true, Ordering::SeqCst);
    }

    /// Closes all connections, as an upstream does with idle ones.
    pub(crate) fn close_all(&self) {
        for tcp in self.shared.open.lock().unwrap().drain(..) {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// Writes what the session has to send.
fn flush(session: &mut ServerConnection, tcp: &mut &TcpStream) -> std::io::Result<()> {
    while session.wants_write() {
        session.write_tls(tcp)?;
    }
    Ok(())
}

fn serve(shared: &Arc<Shared>, tcp: TcpStream) -> std::io::Result<()> {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    tcp.set_nodelay(true)?;
    let mut first = [0; 1];
    if tcp.peek(&mut first)? == 1 && first[0] != 22 {
        shared.plain.store(true, Ordering::SeqCst);
    }
    let mut session = ServerConnection::new(Arc::clone(&shared.config)).map_err(std::io::Error::other)?;
    session.set_buffer_limit(None);
    while session.is_handshaking() {
        let result = session.complete_io(&mut &tcp);
        if let Err(e) = result {
            if shared.rude.load(Ordering::SeqCst) {
                return Err(e);
            }
            // The alert has been written. Closing with unread data would reset the connection before it is read.
            let _ = tcp.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut &tcp, &mut std::io::sink());
            return Err(e);
        }
    }
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        shared.resumed.fetch_add(1, Ordering::SeqCst);
    }
    shared.open.lock().unwrap().push(tcp.try_clone()?);
    shared.names.lock().unwrap().push(session.server_name().map(str::to_owned));
    relay(shared, session, &tcp)
}

fn relay(shared: &Arc<Shared>, session: ServerConnection, tcp: &TcpStream) -> std::io::Result<()> {
    let upstream = TcpStream::connect(shared.to)?;
    upstream.set_nodelay(true)?;
    let session = Mutex::new(session);
    std::thread::scope(|scope| {
        let down = scope.spawn(|| relay_down(shared, &session, tcp, &upstream));
        let up = relay_up(shared, &session, tcp, &upstream);
        let _ = upstream.shutdown(Shutdown::Write);
        up.and(down.join().unwrap())
    })
}

fn relay_up(
    shared: &Shared,
    session: &Mutex<ServerConnection>,
    tcp: &TcpStream,
    upstream: &TcpStream,
) -> std::io::Result<()> {
    let (mut buffer, mut plaintext) = (vec![0; 65_536], Vec::new());
    let (mut from, mut to) = (tcp, upstream);
    // The first data may have come with the end of the handshake.
    let _ = session.lock().unwrap().reader().read_to_end(&mut plaintext);
    to.write_all(&plaintext)?;
    let (mut reads, mut is_closed) = (0, false);
    loop {
        let read = from.read(&mut buffer).unwrap_or_default();
        if read == 0 {
            shared.truncated.fetch_add(usize::from(!is_closed), Ordering::SeqCst);
            shared.ended.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        let mut left = &buffer[..read];
        let mut session = session.lock().unwrap();
        plaintext.clear();
        while !left.is_empty() {
            session.read_tls(&mut left)?;
            let state = session.process_new_packets().map_err(std::io::Error::other)?;
            is_closed |= state.peer_has_closed();
            let _ = session.reader().read_to_end(&mut plaintext);
        }
        reads += 1;
        // More than 32 requests without data between them would be refused.
        if shared.update_keys.load(Ordering::SeqCst) && reads % 8 == 1 {
            session.refresh_traffic_keys().map_err(std::io::Error::other)?;
        }
        flush(&mut session, &mut from)?;
        drop(session);
        to.write_all(&plaintext)?;
    }
}

fn relay_down(
    shared: &Shared,
    session: &Mutex<ServerConnection>,
    tcp: &TcpStream,
    upstream: &TcpStream,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let (mut from, mut to) = (upstream, tcp);
    loop {
        let read = from.read(&mut buffer)?;
        let mut session = session.lock().unwrap();
        if read == 0 {
            if !shared.rude.load(Ordering::SeqCst) {
                session.send_close_notify();
                flush(&mut session, &mut to)?;
            }
            return tcp.shutdown(Shutdown::Both);
        }
        session.writer().write_all(&buffer[..read])?;
        flush(&mut session, &mut to)?;
    }
}
