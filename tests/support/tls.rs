//! Certificates on disk, and what clients of ours run by that speak TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use testkit::pki::{Authority, Issued, Wanted};

use super::client::Client;

/// A folder with certificates, and the authority that issues them.
pub struct Folder {
    directory: tempfile::TempDir,
    pub authority: Authority,
}

impl Folder {
    /// With `ca.pem`, and `server.pem` and `server.key` for `localhost` and 127.0.0.1.
    pub fn new() -> Self {
        let folder =
            Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new("ca").unwrap() };
        folder.put("ca.pem", &folder.authority.certificate());
        folder.put_pair("server", &folder.authority.issue(&localhost()).unwrap());
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn put_pair(&self, name: &str, issued: &Issued) {
        self.put(&format!("{name}.pem"), &issued.certificate);
        self.put(&format!("{name}.key"), &issued.key);
    }

    /// Puts a client's certificate and key.
    pub fn put_client(&self, name: &str) {
        self.put_pair(name, &self.authority.issue(&Wanted::client(name)).unwrap());
    }

    /// The settings of TLS towards senders: those of the certificate, and more.
    pub fn ingress(&self, more: &[(&str, &str)]) -> String {
        let (cert, key) = (self.text("server.pem"), self.text("server.key"));
        let all = [&[("cert_file", cert.as_str()), ("key_file", key.as_str())], more].concat();
        format!("  ingress:\n{}", tls_config(&all))
    }

    /// The settings of TLS towards targets: the authority, and more.
    pub fn egress(&self, more: &[(&str, &str)]) -> String {
        let ca = self.text("ca.pem");
        let all = [&[("ca_bundle_file", ca.as_str())], more].concat();
        format!("  egress:\n{}", tls_config(&all))
    }
}

/// What a server for this machine's own addresses needs.
pub fn localhost() -> Wanted {
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Wanted { addresses, ..Wanted::server(&["localhost"]) }
}

fn tls_config(settings: &[(&str, &str)]) -> String {
    let line = |(key, value): &(&str, &str)| format!("      {key}: {value}\n");
    format!("    tls_config:\n{}", settings.iter().map(line).collect::<String>())
}

fn pem(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

pub fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap()
}

pub fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    pem(path)
}

pub fn roots(path: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem(path));
    roots
}

/// What a sender runs by that trusts `ca.pem`. Connections of one share their sessions.
pub fn client_config(folder: &Folder) -> Arc<ClientConfig> {
    client_config_of(folder, rustls::ALL_VERSIONS)
}

pub fn client_config_of(
    folder: &Folder,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots(&folder.path("ca.pem"))).with_no_client_auth())
}

/// A client's session, which has sent nothing yet.
pub fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// A ClientHello.
pub fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    session(config).write_tls(&mut hello).unwrap();
    hello
}

/// What only a connection over TLS can do.
impl Client {
    /// Connects and shakes hands.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::secure(TcpStream::connect(address).unwrap(), session(config)).unwrap()
    }

    /// Connects over `tcp` and stops for `pause` in the middle of the ClientHello.
    pub fn connect_tls_slowly(tcp: TcpStream, config: &Arc<ClientConfig>, pause: Duration) -> Self {
        use std::io::Write;
        let (mut session, mut hello) = (session(config), Vec::new());
        session.write_tls(&mut hello).unwrap();
        (&tcp).write_all(&hello[..20]).unwrap();
        std::thread::sleep(pause);
        (&tcp).write_all(&hello[20..]).unwrap();
        Self::secure(tcp, session).unwrap()
    }

    /// Connects with little room for what the server sends. Writing fails when it blocks for a second.
    pub fn connect_tls_with_little_room(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&address.into()).unwrap();
        let tcp = TcpStream::from(socket);
        tcp.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        Self::secure(tcp, session(config)).unwrap()
    }

    /// Says that nothing more will be sent.
    pub fn close_notify(&mut self) {
        use std::io::Write;
        let mut tls = self.tls();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
    }

    /// Gives the next key for what we send, and asks the peer for its next one.
    pub fn update_keys(&mut self) -> std::io::Result<()> {
        use std::io::Write;
        let mut tls = self.tls();
        tls.conn.refresh_traffic_keys().unwrap();
        tls.flush()
    }

    /// The certificate that the server has shown.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        self.tls().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub fn is_resumed(&self) -> bool {
        self.tls().conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}
