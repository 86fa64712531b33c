//! A client's session and a server's, and the bytes between them, in memory.
#![allow(dead_code, reason = "not every user needs all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use tenantry::tls::client::{ClientSettings, ClientTls, server_name};
use tenantry::tls::error::SessionError;
use tenantry::tls::material::{CertificateFiles, Mistake, Source};
use tenantry::tls::outgoing::Outgoing;
use tenantry::tls::server::{ServerSettings, ServerTls};
use tenantry::tls::session::{Handshake, Progress, Session};
use testkit::pki::Issued;

/// Files in memory; what begins with `!` is an error instead.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: HashMap<PathBuf, Vec<u8>>,
    pub(crate) roots: String,
}

impl Files {
    pub(crate) fn put(&mut self, path: &str, content: &str) -> PathBuf {
        self.files.insert(path.into(), content.as_bytes().to_vec());
        path.into()
    }

    /// Puts a certificate and its key, with the chain behind the certificate.
    pub(crate) fn put_pair(&mut self, name: &str, issued: &Issued, chain: &str) -> CertificateFiles {
        let certificate = self.put(&format!("{name}.pem"), &format!("{}{chain}", issued.certificate));
        CertificateFiles { certificate, key: self.put(&format!("{name}.key"), &issued.key) }
    }
}

impl Source for Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(content) if content.starts_with(b"!") => Err(io::ErrorKind::PermissionDenied.into()),
            Some(content) => Ok(content.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn system_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let roots: Vec<_> =
            CertificateDer::pem_slice_iter(self.roots.as_bytes()).map(Result::unwrap).collect();
        if roots.is_empty() { Err("none was found".into()) } else { Ok(roots) }
    }
}

pub(crate) fn load_server(files: &Files, settings: &ServerSettings) -> Result<ServerTls, Vec<Mistake>> {
    ServerTls::load(settings, files, UnixTime::now(), None)
}

pub(crate) fn load_client(files: &Files, settings: &ClientSettings) -> Result<ClientTls, Vec<Mistake>> {
    ClientTls::load(settings, files, UnixTime::now())
}

/// One side.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) outgoing: Outgoing,
    /// What came out.
    pub(crate) plaintext: Vec<u8>,
    pub(crate) ended: bool,
}

impl End {
    pub(crate) fn server(tls: &ServerTls) -> Self {
        Self::over(Session::server(Arc::clone(tls.config())).expect("begins"))
    }

    pub(crate) fn client(tls: &ClientTls, name: &str) -> Self {
        let name = tls.name_for(name).unwrap_or_else(|_| server_name("localhost").expect("is a name"));
        Self::over(Session::client(Arc::clone(tls.config()), name).expect("begins"))
    }

    fn over(session: Session) -> Self {
        Self { session, outgoing: Outgoing::default(), plaintext: Vec::new(), ended: false }
    }

    /// What is to be sent.
    pub(crate) fn sent(&mut self) -> Vec<u8> {
        let (buffer, filled) = self.outgoing.take();
        let sent = buffer[..filled].to_vec();
        self.outgoing.restore(buffer);
        sent
    }

    /// Goes on until the session is blocked.
    pub(crate) fn drive(&mut self) -> Result<(), SessionError> {
        if self.session.is_handshaking() && self.session.handshake(&mut self.outgoing)? == Handshake::Blocked
        {
            return Ok(());
        }
        loop {
            let end = self.plaintext.len() + 100_000;
            match self.session.read(&mut self.plaintext, end, &mut self.outgoing)? {
                Progress::Plaintext(_) => {}
                Progress::Blocked => return Ok(()),
                Progress::Ended => {
                    self.ended = true;
                    return Ok(());
                }
            }
        }
    }

    /// Receives these bytes, at most `chunk` at a time.
    pub(crate) fn deliver(&mut self, mut bytes: &[u8], chunk: usize) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let (mut buffer, end) = self.session.lend();
            assert!(end > buffer.len(), "there is room, as it was driven");
            let now = bytes.len().min(chunk).min(end - buffer.len());
            buffer.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            self.session.received(buffer);
            self.drive()?;
        }
        Ok(())
    }

    /// Encrypts all of `slices`, and gives what is to be sent.
    pub(crate) fn encrypt(&mut self, slices: &[&[u8]]) -> Result<Vec<u8>, SessionError> {
        let (mut sent, mut done, all) = (self.sent(), 0, slices.iter().map(|slice| slice.len()).sum());
        while done < all {
            let mut skip = done;
            let left = slices.iter().map(|slice| {
                let from = skip.min(slice.len());
                skip -= from;
                &slice[from..]
            });
            let now = self.session.encrypt(left, usize::MAX, &mut self.outgoing)?;
            assert!(now > 0, "nothing waits to be sent");
            done += now;
            sent.extend(self.sent());
        }
        Ok(sent)
    }
}

/// A client and a server that talk to each other.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) server: End,
}

impl Pair {
    pub(crate) fn new(client: &ClientTls, server: &ServerTls, name: &str) -> Self {
        Self { client: End::client(client, name), server: End::server(server) }
    }

    /// Shakes hands, with at most `chunk` bytes at a time, until neither side has anything to send. Gives the errors of
    /// client and server; the alert of the one reaches the other.
    pub(crate) fn shake_in(&mut self, chunk: usize) -> (Result<(), SessionError>, Result<(), SessionError>) {
        let mut results = (self.client.drive(), Ok(()));
        loop {
            let (up, down) = (self.client.sent(), self.server.sent());
            if up.is_empty() && down.is_empty() {
                return results;
            }
            if results.1.is_ok() {
                results.1 = self.server.deliver(&up, chunk);
            }
            if results.0.is_ok() {
                results.0 = self.client.deliver(&down, chunk);
            }
        }
    }

    pub(crate) fn shake(&mut self) -> (Result<(), SessionError>, Result<(), SessionError>) {
        self.shake_in(usize::MAX)
    }

    /// A pair that has shaken hands.
    pub(crate) fn connected(client: &ClientTls, server: &ServerTls, name: &str) -> Self {
        let mut pair = Self::new(client, server, name);
        assert_eq!(pair.shake(), (Ok(()), Ok(())));
        assert!(!pair.client.session.is_handshaking() && !pair.server.session.is_handshaking());
        pair
    }

    /// Sends `slices` from the client, and gives what came out at the server.
    pub(crate) fn send(&mut self, slices: &[&[u8]], chunk: usize) -> Result<Vec<u8>, SessionError> {
        let sent = self.client.encrypt(slices)?;
        self.server.deliver(&sent, chunk)?;
        Ok(std::mem::take(&mut self.server.plaintext))
    }

    /// Sends `slices` from the server, and gives what came out at the client.
    pub(crate) fn reply(&mut self, slices: &[&[u8]], chunk: usize) -> Result<Vec<u8>, SessionError> {
        let sent = self.server.encrypt(slices)?;
        self.client.deliver(&sent, chunk)?;
        Ok(std::mem::take(&mut self.client.plaintext))
    }
}
