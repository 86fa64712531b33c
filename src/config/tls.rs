//! What TLS runs by: certificates, keys and authorities, read from the files that the settings name.
//!
//! # Constraints
//! * The files are read together with the configuration, on a thread that may block, and every mistake in them is
//!   reported with it. Behind the plan nothing can be missing.
//! * They are read again when they change ([`TlsSettings::read_again`]), also while the configuration stays as it is:
//!   certificates are renewed more often than configurations.
//! * Connections outlive a reload. So what has not changed keeps its identity, by which pools tell whether a connection
//!   may still be used, and what has changed keeps the keys by which clients resume their sessions.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::target::Target;
use crate::model::{Destination, PerDestination};
use crate::tls::client::{ClientSettings, ClientTls};
use crate::tls::files::Disk;
use crate::tls::material::{Mistake, Source};
use crate::tls::server::{ServerSettings, ServerTls};

/// The TLS of the listener for pushes.
#[derive(Debug)]
pub struct IngressTls {
    server: ServerTls,
    fingerprint: u64,
}

impl IngressTls {
    /// Returns the configuration of a new session.
    pub fn config(&self) -> &Arc<ServerConfig> {
        self.server.config()
    }

    /// The last second in which all its certificates are valid, since 1970.
    pub fn not_after(&self) -> i64 {
        self.server.not_after()
    }
}

/// The TLS of connections to a target.
#[derive(Debug)]
pub struct UpstreamTls {
    /// The authorities to trust, and our own certificate.
    pub client: ClientTls,
    /// The name that the target's certificate has to be for.
    pub name: ServerName<'static>,
    fingerprint: u64,
}

/// All TLS of a plan.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// That of the listener for pushes; `None` means plain HTTP.
    pub ingress: Option<Arc<IngressTls>>,
    /// That of each target; `None` means plain HTTP.
    pub upstream: PerDestination<Option<Arc<UpstreamTls>>>,
}

impl Tls {
    /// Takes over what has not changed since `running`, and the keys for resumption.
    #[must_use]
    pub(super) fn after(self, running: &Self) -> Self {
        let ingress = match (self.ingress, &running.ingress) {
            (Some(read), Some(running)) if read.fingerprint == running.fingerprint => {
                Some(Arc::clone(running))
            }
            (Some(read), Some(running)) => {
                let server = read.server.clone().resuming(&running.server);
                Some(Arc::new(IngressTls { server, fingerprint: read.fingerprint }))
            }
            (read, _) => read,
        };
        let upstream = PerDestination::new(|destination| {
            match (self.upstream.of(destination), running.upstream.of(destination)) {
                (Some(read), Some(running)) if read.fingerprint == running.fingerprint => {
                    Some(Arc::clone(running))
                }
                (read, _) => read.clone(),
            }
        });
        Self { ingress, upstream }
    }

    /// Whether senders are served by other certificates, keys, authorities or settings than by `running`.
    pub(super) fn differs_in(&self, running: &Self) -> bool {
        let fingerprint = |tls: &Self| tls.ingress.as_ref().map(|tls| tls.fingerprint);
        fingerprint(self) != fingerprint(running)
    }

    /// Whether the same is so for a target that had TLS before.
    pub(super) fn differs_out(&self, running: &Self) -> bool {
        let pairs = self.upstream.iter().zip(running.upstream.iter());
        pairs.filter_map(|(a, b)| a.as_ref().zip(b.as_ref())).any(|(a, b)| a.fingerprint != b.fingerprint)
    }

    /// Whether the server's certificate at a target is not verified.
    pub fn is_insecure(&self) -> bool {
        self.upstream.iter().flatten().any(|tls| tls.client.is_insecure())
    }
}

/// The settings of TLS, by which the files can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `None` means plain HTTP.
    pub(super) ingress: Option<ServerSettings>,
    /// For targets with `https://`.
    pub(super) egress: ClientSettings,
}

/// The mistakes of each side.
#[derive(Debug, Default)]
pub struct TlsMistakes {
    /// In the settings below `auth.ingress.tls_config`, and in their files.
    pub ingress: Vec<Mistake>,
    /// In those below `auth.egress.tls_config`.
    pub egress: Vec<Mistake>,
}

impl TlsSettings {
    /// Reads the files.
    ///
    /// # Errors
    /// All mistakes in them.
    pub(super) fn read(&self, targets: &PerDestination<Target>, now: UnixTime) -> Result<Tls, TlsMistakes> {
        let mut mistakes = TlsMistakes::default();
        let ingress = self.ingress.as_ref().and_then(|settings| {
            let source = Fingerprinting::new(settings);
            match ServerTls::load(settings, &source, now, None) {
                Ok(server) => Some(Arc::new(IngressTls { server, fingerprint: source.finish() })),
                Err(found) => {
                    mistakes.ingress = found;
                    None
                }
            }
        });
        let upstream = self.read_egress(targets, now).unwrap_or_else(|found| {
            mistakes.egress = found;
            PerDestination::default()
        });
        match mistakes.ingress.is_empty() && mistakes.egress.is_empty() {
            true => Ok(Tls { ingress, upstream }),
            false => Err(mistakes),
        }
    }

    fn read_egress(
        &self,
        targets: &PerDestination<Target>,
        now: UnixTime,
    ) -> Result<PerDestination<Option<Arc<UpstreamTls>>>, Vec<Mistake>> {
        if !targets.iter().any(|target| target.tls) {
            return Ok(PerDestination::default());
        }
        let source = Fingerprinting::new(&self.egress);
        let client = ClientTls::load(&self.egress, &source, now)?;
        let fingerprint = source.finish();
        let mut mistakes = Vec::new();
        let upstream = PerDestination::new(|destination: Destination| {
            let target = targets.of(destination);
            let name = target.tls.then(|| client.name_for(&target.host))?;
            match name {
                Ok(name) => Some(Arc::new(UpstreamTls { client: client.clone(), name, fingerprint })),
                Err(reason) => {
                    mistakes.push(Mistake::in_setting("server_name", reason));
                    None
                }
            }
        });
        if mistakes.is_empty() { Ok(upstream) } else { Err(mistakes) }
    }

    /// Reads the files again, for a plan that runs with `running`. `None` if nothing has changed.
    ///
    /// # Errors
    /// All mistakes in them, one per line.
    pub(super) fn read_again(
        &self,
        targets: &PerDestination<Target>,
        running: &Tls,
    ) -> Result<Option<Tls>, Vec<String>> {
        let read = self.read(targets, UnixTime::now()).map_err(|mistakes| {
            mistakes.ingress.iter().chain(&mistakes.egress).map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let read = read.after(running);
        Ok((read.differs_in(running) || read.differs_out(running)).then_some(read))
    }

    /// The files that are read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let ingress = self.ingress.iter().flat_map(|ingress| {
            let pairs = ingress.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
            pairs.chain(&ingress.client_ca).cloned().collect::<Vec<_>>()
        });
        let pair = self.egress.certificate.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        ingress.chain(pair.chain(&self.egress.ca).cloned()).collect()
    }
}

/// The disk, and a hash of all that was read from it and of the settings.
struct Fingerprinting(RefCell<DefaultHasher>);

impl Fingerprinting {
    fn new(settings: &impl std::fmt::Debug) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{settings:?}").hash(&mut hasher);
        Self(RefCell::new(hasher))
    }

    fn finish(self) -> u64 {
        self.0.into_inner().finish()
    }
}

impl Source for Fingerprinting {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = Disk.read(path)?;
        bytes.hash(&mut *self.0.borrow_mut());
        Ok(bytes)
    }

    fn system_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let roots = Disk.system_roots()?;
        roots.iter().for_each(|root| root.as_ref().hash(&mut *self.0.borrow_mut()));
        Ok(roots)
    }
}
