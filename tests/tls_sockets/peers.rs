//! Certificates on disk, and the senders that speak TLS.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::http::{Framing, MessageReader};
use testkit::pki::{Authority, Issued, Wanted};

use crate::support::client::{Response, push_head};
use crate::support::server::{configuration, free_port};
use crate::support::{Driver, Server};

/// A folder with certificates, and the authority that issues them.
pub(crate) struct Folder {
    directory: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Folder {
    /// With `ca.pem`, and `server.pem` and `server.key` for `localhost` and 127.0.0.1.
    pub(crate) fn new() -> Self {
        let folder =
            Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new("ca").unwrap() };
        folder.put("ca.pem", &folder.authority.certificate());
        folder.put_pair("server", &folder.authority.issue(&localhost()).unwrap());
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn put_pair(&self, name: &str, issued: &Issued) {
        self.put(&format!("{name}.pem"), &issued.certificate);
        self.put(&format!("{name}.key"), &issued.key);
    }

    /// Puts a client's certificate and key.
    pub(crate) fn put_client(&self, name: &str) {
        self.put_pair(name, &self.authority.issue(&Wanted::client(name)).unwrap());
    }

    /// The settings of TLS towards senders: those of the certificate, and more.
    pub(crate) fn ingress(&self, more: &[(&str, &str)]) -> String {
        let (cert, key) = (self.text("server.pem"), self.text("server.key"));
        let all = [&[("cert_file", cert.as_str()), ("key_file", key.as_str())], more].concat();
        format!("  ingress:\n{}", tls_config(&all))
    }

    /// The settings of TLS towards targets: the authority, and more.
    pub(crate) fn egress(&self, more: &[(&str, &str)]) -> String {
        let ca = self.text("ca.pem");
        let all = [&[("ca_bundle_file", ca.as_str())], more].concat();
        format!("  egress:\n{}", tls_config(&all))
    }
}

/// What a server for this machine's own addresses needs.
pub(crate) fn localhost() -> Wanted {
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Wanted { addresses, ..Wanted::server(&["localhost"]) }
}

fn tls_config(settings: &[(&str, &str)]) -> String {
    let line = |(key, value): &(&str, &str)| format!("      {key}: {value}\n");
    format!("    tls_config:\n{}", settings.iter().map(line).collect::<String>())
}

/// Starts a server. `scheme` is that of the target, `auth` what is below that key, `extra` more YAML.
pub(crate) fn start(
    driver: Driver,
    scheme: &str,
    target: impl std::fmt::Display,
    auth: &str,
    extra: &str,
) -> Server {
    let metrics = free_port();
    let config = configuration(driver, target, &format!("auth:\n{auth}{extra}"), metrics);
    Server::start_with(&config.replace("target: http://", &format!("target: {scheme}://")), metrics, &[])
}

/// Runs a test on each driver at the same time, as it mostly waits.
pub(crate) fn on_both_at_once(test: impl Fn(Driver) + Sync) {
    std::thread::scope(|scope| {
        for driver in Driver::all() {
            let test = &test;
            scope.spawn(move || test(driver));
        }
    });
}

fn pem(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

pub(crate) fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap()
}

pub(crate) fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    pem(path)
}

pub(crate) fn roots(path: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem(path));
    roots
}

/// What a sender runs by that trusts `ca.pem`. Connections of one share their sessions.
pub(crate) fn client_config(folder: &Folder) -> Arc<ClientConfig> {
    client_config_of(folder, rustls::ALL_VERSIONS)
}

pub(crate) fn client_config_of(
    folder: &Folder,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots(&folder.path("ca.pem"))).with_no_client_auth())
}

/// A sender's connection.
pub(crate) struct TlsClient {
    stream: Shared,
    reader: MessageReader<Shared>,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<StreamOwned<ClientConnection, TcpStream>>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl TlsClient {
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, config)
    }

    /// Connects over `tcp` and stops for `pause` in the middle of the ClientHello.
    pub(crate) fn connect_slowly(mut tcp: TcpStream, config: &Arc<ClientConfig>, pause: Duration) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        tcp.write_all(&hello[..20]).unwrap();
        std::thread::sleep(pause);
        tcp.write_all(&hello[20..]).unwrap();
        let stream = Shared(Rc::new(RefCell::new(StreamOwned::new(session, tcp))));
        Self { reader: MessageReader::new(stream.clone()), stream }
    }

    /// Connects with little room for what the server sends. Writing fails when it blocks for a second.
    pub(crate) fn connect_with_little_room(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&address.into()).unwrap();
        let tcp = TcpStream::from(socket);
        tcp.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, config)
    }

    fn over(tcp: TcpStream, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = Shared(Rc::new(RefCell::new(StreamOwned::new(session, tcp))));
        Self { reader: MessageReader::new(stream.clone()), stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stream = self.stream.0.borrow_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Sends these bytes as they are, in the place of a record.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.0.borrow_mut().sock.write_all(bytes).unwrap();
    }

    pub(crate) fn response(&mut self) -> Response {
        let head = self.reader.response_head().unwrap();
        let mut body = Vec::new();
        self.reader.body(head.framing, &mut body).unwrap();
        assert_ne!(head.framing, Framing::Chunked, "the server sends no chunks");
        Response { status: head.status, headers: head.headers, body, framing: head.framing }
    }

    pub(crate) fn push(&mut self, body: &[u8]) -> Response {
        self.send(&[push_head(body.len(), "").as_bytes(), body].concat());
        self.response()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn close_notify(&mut self) {
        let mut stream = self.stream.0.borrow_mut();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }

    /// Gives the next key for what we send, and asks the peer for its next one.
    pub(crate) fn update_keys(&mut self) -> std::io::Result<()> {
        let mut stream = self.stream.0.borrow_mut();
        stream.conn.refresh_traffic_keys().unwrap();
        stream.flush()
    }

    /// Whether the connection ends, however it does, with nothing more to read.
    pub(crate) fn ends(&mut self) -> bool {
        let result = self.stream.read(&mut [0; 1]);
        !matches!(&result, Ok(1..))
            && !matches!(&result, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The certificate that the server has shown.
    pub(crate) fn server_certificate(&self) -> CertificateDer<'static> {
        self.stream.0.borrow().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.0.borrow().conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

/// Runs a program to its end with this input. It must be installed under CI; `None` where it is not.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        assert!(std::env::var("CI").is_err(), "under CI, {program} must be installed");
        eprintln!("SKIPPED: there is no `{program}` here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    // A program that is refused ends before it has read all.
    let _ = stdin.write_all(input);
    drop(stdin);
    Some(child.wait_with_output().unwrap())
}

/// What `openssl s_client` says of a connection over which it asks for `/alive`. It trusts `ca.pem`.
pub(crate) fn openssl(folder: &Folder, address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let (address, ca) = (address.to_string(), folder.text("ca.pem"));
    let fixed = ["s_client", "-connect", &address, "-CAfile", &ca, "-ign_eof"];
    let request = b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let output = run("openssl", &[&fixed, arguments].concat(), request)?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The status that curl gets for `/alive`, or else what it says went wrong. It trusts `ca.pem`.
pub(crate) fn curl(folder: &Folder, address: SocketAddr, arguments: &[&str]) -> Option<Result<u16, String>> {
    let (ca, url) = (folder.text("ca.pem"), format!("https://localhost:{}/alive", address.port()));
    let fixed =
        ["-sS", "-m", "20", "--noproxy", "*", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}"];
    let output = run("curl", &[&fixed, arguments, &[&url]].concat(), b"")?;
    if output.status.success() {
        Some(Ok(String::from_utf8_lossy(&output.stdout).parse().unwrap()))
    } else {
        Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
