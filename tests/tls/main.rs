//! TLS without sockets: sessions against each other in memory, and what is wrong with certificates and keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its numbers are small")]

mod bytes;
mod failures;
mod handshake;
mod material;
mod pair;

use pair::{Files, load_client, load_server};
use tenantry::tls::client::{ClientSettings, ClientTls};
use tenantry::tls::names::Choices;
use tenantry::tls::server::{ServerSettings, ServerTls};
use testkit::pki::{Authority, Wanted};

/// An authority, its files, and settings of a server and a client that go together.
struct World {
    authority: Authority,
    files: Files,
    server: ServerSettings,
    client: ClientSettings,
}

impl World {
    /// The server is `localhost`; client certificates are not asked for.
    fn new() -> Self {
        let authority = Authority::new("Test CA").unwrap();
        let mut files = Files::default();
        let ca = files.put("ca.pem", &authority.certificate());
        let issued = authority.issue(&Wanted::server(&["localhost"])).unwrap();
        let certificates = vec![files.put_pair("server", &issued, "")];
        let server = ServerSettings { certificates, ..ServerSettings::default() };
        let client = ClientSettings { ca: Some(ca), ..ClientSettings::default() };
        Self { authority, files, server, client }
    }

    /// The same, with one version only, on the client's side.
    fn with_version(version: &str) -> Self {
        let mut world = Self::new();
        world.client.choices = only(version);
        world
    }

    fn load(&self) -> (ClientTls, ServerTls) {
        (load_client(&self.files, &self.client).unwrap(), load_server(&self.files, &self.server).unwrap())
    }
}

fn only(version: &str) -> Choices {
    Choices { min_version: Some(version.into()), max_version: Some(version.into()), ..Choices::default() }
}

const VERSIONS: [(&str, &str); 2] = [("TLS12", "TLS 1.2"), ("TLS13", "TLS 1.3")];
