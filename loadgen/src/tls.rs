//! TLS at both ends: what clients trust and show, what a sink presents, and certificates made for a run.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use testkit::pki::{Authority, Wanted};

/// Whom a client trusts, and how it proves who it is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Credentials {
    /// Authorities to trust at an https URL, as PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate, as PEM with its chain
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// User for basic authentication
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// Password for basic authentication
    #[arg(long, value_name = "TEXT", requires = "user")]
    pub password: Option<String>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    pub bearer: Option<String>,
}

impl Credentials {
    /// The Authorization header, if there is one.
    pub fn header(&self) -> Option<(String, String)> {
        let value = match (&self.user, &self.bearer) {
            (Some(user), _) => {
                let password = self.password.as_deref().unwrap_or_default();
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            (None, Some(token)) => format!("Bearer {token}"),
            (None, None) => return None,
        };
        Some(("Authorization".to_owned(), value))
    }

    /// Reads the files; None without authorities.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else. The text names it.
    pub fn load(&self) -> io::Result<Option<Tls>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots(ca)?);
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| wrong(cert, error))?,
            _ => builder.with_no_client_auth(),
        };
        Ok(Some(Tls(Arc::new(config))))
    }
}

/// What a client needs for TLS. Clones resume each other's sessions.
#[derive(Clone)]
pub struct Tls(pub(crate) Arc<ClientConfig>);

impl Tls {
    /// The same, but every handshake is a full one.
    #[must_use]
    pub fn never_resuming(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }
}

impl fmt::Debug for Tls {
    /// No more than that: there may be a key in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// What a server needs for TLS, from files. With `client_ca`, clients have to show a certificate of these authorities.
///
/// # Errors
/// When a file cannot be read, or holds something else. The text names it.
pub fn server(cert: &Path, key: &Path, client_ca: Option<&Path>) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(ca, error))?)
        }
    };
    let config = builder.with_single_cert(certificates(cert)?, private_key(key)?);
    Ok(Arc::new(config.map_err(|error| wrong(cert, error))?))
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err(wrong(path, "there is no certificate in it")),
        all => all.map_err(|error| wrong(path, error)),
    }
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// An authority, a server's certificate for 127.0.0.1 and localhost, and a client's, made for one run. In their
/// directory are `ca.pem`, `server.pem`, `server.pem.key`, `client.pem` and `client.pem.key`.
#[derive(Clone, Debug)]
pub struct Certificates {
    dir: PathBuf,
    /// What a client needs that shows its certificate.
    pub client: Tls,
    /// What a client needs that shows none.
    pub anonymous: Tls,
    /// Whether clients of Tenantry have to show a certificate.
    pub is_mutual: bool,
}

impl Certificates {
    /// Makes them, and puts them into `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(dir: &Path) -> io::Result<Self> {
        let authority = Authority::new("loadgen").map_err(io::Error::other)?;
        fs::write(dir.join("ca.pem"), authority.certificate())?;
        let mut server = Wanted::server(&["localhost"]);
        server.addresses = vec![[127, 0, 0, 1].into()];
        for (name, wanted) in [("server", server), ("client", Wanted::client("loadgen"))] {
            let issued = authority.issue(&wanted).map_err(io::Error::other)?;
            fs::write(dir.join(format!("{name}.pem")), issued.certificate)?;
            fs::write(dir.join(format!("{name}.pem.key")), issued.key)?;
        }
        let file = |name: &str| Some(dir.join(name));
        let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.pem.key"));
        let credentials = Credentials { ca, cert, key, ..Credentials::default() };
        let anonymous = Credentials { cert: None, key: None, ..credentials.clone() };
        let client = credentials.load()?.ok_or(io::ErrorKind::NotFound)?;
        let anonymous = anonymous.load()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { dir: dir.to_owned(), client, anonymous, is_mutual: true })
    }

    /// Where one of its files is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The client's part, as options of `loadgen send`.
    pub fn options(&self) -> Vec<OsString> {
        let files = [("--ca", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.pem.key")];
        files.into_iter().flat_map(|(option, name)| [option.into(), self.path(name).into()]).collect()
    }

    /// Lines of Tenantry's configuration: TLS to senders and to the upstream, which it shows a certificate.
    pub fn settings(&self) -> String {
        let dir = self.dir.display();
        let client_auth = if self.is_mutual { "require" } else { "none" };
        let client_ca = if self.is_mutual { format!("{dir}/ca.pem") } else { "\"\"".to_owned() };
        format!(
            "auth:\n  ingress:\n    tls_config:\n      cert_file: {dir}/server.pem\n      key_file: {dir}/server.pem.key\n      \
             client_ca_file: {client_ca}\n      client_auth: {client_auth}\n  egress:\n    tls_config:\n      \
             ca_bundle_file: {dir}/ca.pem\n      cert_file: {dir}/client.pem\n      key_file: {dir}/client.pem.key\n"
        )
    }
}
