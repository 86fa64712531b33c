//! What TLS runs by: certificates, keys and authorities, read from the files that the settings name.
//!
//! # Constraints
//! * The files are read together with the configuration, on a thread that may block, and every mistake in them is
//!   reported with it. Behind the plan nothing can be missing.
//! * They are read again when they change ([`files`](super::files)), also while the configuration stays as it is:
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

use super::forbidden::explained;
use super::target::Target;
use super::web::InlinePem;
use crate::model::PerDestination;
use crate::tls::client::{ClientSettings, ClientTls};
use crate::tls::files::Disk;
use crate::tls::material::{Mistake, Source};
use crate::tls::server::{ServerSettings, ServerTls};

/// The TLS of a listener.
#[derive(Debug)]
pub struct ListenerTls {
    server: ServerTls,
    /// Whether the certificates of clients are verified.
    verifies_clients: bool,
    fingerprint: u64,
}

impl ListenerTls {
    /// Returns the configuration of a new session.
    pub fn config(&self) -> &Arc<ServerConfig> {
        self.server.config()
    }

    /// Whether the certificates of clients are verified, so that their names can be trusted.
    pub fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    /// Whether clients have to prove the same, and to the same authorities.
    pub fn demands_the_same(&self, other: &Self) -> bool {
        self.server.demands_the_same(&other.server)
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
    pub ingress: Option<Arc<ListenerTls>>,
    /// That of the admin listeners; `None` means plain HTTP.
    pub admin: Option<Arc<ListenerTls>>,
    /// That of each target; `None` means plain HTTP.
    pub upstream: PerDestination<Option<Arc<UpstreamTls>>>,
}

impl Tls {
    /// Takes over what has not changed since `running`, and the keys for resumption.
    #[must_use]
    pub(super) fn after(self, running: &Self) -> Self {
        Self {
            ingress: listener_after(self.ingress, running.ingress.as_ref()),
            admin: listener_after(self.admin, running.admin.as_ref()),
            upstream: upstream_after(&self.upstream, &running.upstream),
        }
    }

    /// Whether clients of a listener are served by other certificates, keys, authorities or settings than by `running`.
    pub(super) fn differs_in(&self, running: &Self) -> bool {
        let fingerprints =
            |tls: &Self| [&tls.ingress, &tls.admin].map(|tls| tls.as_ref().map(|tls| tls.fingerprint));
        fingerprints(self) != fingerprints(running)
    }

    /// Whether the same is so for a target that had TLS before.
    pub(super) fn differs_out(&self, running: &Self) -> bool {
        upstream_differs(&self.upstream, &running.upstream)
    }

    /// Whether the server's certificate at a target is not verified.
    pub fn is_insecure(&self) -> bool {
        self.upstream.iter().flatten().any(|tls| tls.client.is_insecure())
    }
}

/// See [`Tls::after`].
fn listener_after(
    read: Option<Arc<ListenerTls>>,
    running: Option<&Arc<ListenerTls>>,
) -> Option<Arc<ListenerTls>> {
    match (read, running) {
        (Some(read), Some(running)) if read.fingerprint == running.fingerprint => Some(Arc::clone(running)),
        (Some(read), Some(running)) => {
            let server = read.server.clone().resuming(&running.server);
            let ListenerTls { verifies_clients, fingerprint, .. } = *read;
            Some(Arc::new(ListenerTls { server, verifies_clients, fingerprint }))
        }
        (read, _) => read,
    }
}

/// The settings of TLS, by which the files can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// For the listener for pushes; `None` means plain HTTP.
    pub(super) ingress: Option<ServerSettings>,
    /// For the admin listeners; `None` means plain HTTP.
    pub(super) admin: Option<ServerSettings>,
    /// What web configurations have inline, by the names that stand for it in the other settings.
    pub(super) inline: InlinePem,
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
    /// In the web configuration of the admin listeners, and in its files.
    pub admin: Vec<Mistake>,
}

impl TlsMistakes {
    pub(super) fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty() && self.admin.is_empty()
    }

    /// One line for each.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.ingress.iter().chain(&self.egress).chain(&self.admin).map(ToString::to_string)
    }
}

impl TlsSettings {
    /// Adds the TLS of web configurations.
    #[must_use]
    pub(super) fn with_web(
        mut self,
        ingress: Option<(ServerSettings, InlinePem)>,
        admin: Option<(ServerSettings, InlinePem)>,
    ) -> Self {
        for (place, web) in [(&mut self.ingress, ingress), (&mut self.admin, admin)] {
            if let Some((settings, inline)) = web {
                *place = Some(settings);
                self.inline.extend(inline);
            }
        }
        self
    }

    /// Reads the files of a listener. Mistakes are added to `mistakes`.
    fn listener(
        &self,
        settings: Option<&ServerSettings>,
        now: UnixTime,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Arc<ListenerTls>> {
        let settings = settings?;
        let source = Fingerprinting::new(settings, &self.inline);
        match ServerTls::load(settings, &source, now, None) {
            Ok(server) => Some(Arc::new(ListenerTls {
                server,
                verifies_clients: settings.client_auth.verifies(),
                fingerprint: source.finish(),
            })),
            Err(found) => {
                mistakes.extend(found);
                None
            }
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// All mistakes in them.
    pub(super) fn read(&self, targets: &PerDestination<Target>, now: UnixTime) -> Result<Tls, TlsMistakes> {
        let mut mistakes = TlsMistakes::default();
        let ingress = self.listener(self.ingress.as_ref(), now, &mut mistakes.ingress);
        let admin = self.listener(self.admin.as_ref(), now, &mut mistakes.admin);
        let all = PerDestination::new(|to| Some(targets.of(to)));
        let upstream = read_upstream(&self.egress, &all, now).unwrap_or_else(|found| {
            mistakes.egress = found;
            PerDestination::default()
        });
        match mistakes.is_empty() {
            true => Ok(Tls { ingress, admin, upstream }),
            false => Err(mistakes),
        }
    }

    /// The files that are read.
    pub(super) fn files(&self, targets: &PerDestination<Target>) -> Vec<PathBuf> {
        let listeners = self.ingress.iter().chain(&self.admin).flat_map(|listener| {
            let pairs = listener.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
            pairs.chain(&listener.client_ca).cloned().collect::<Vec<_>>()
        });
        let needs_egress = targets.iter().any(|target| target.tls);
        let egress = if needs_egress { client_files(&self.egress) } else { Vec::new() };
        let is_inline = |path: &PathBuf| self.inline.iter().any(|(name, _)| name == path);
        listeners.chain(egress).filter(|path| !is_inline(path)).collect()
    }
}

/// The TLS of one upstream's targets.
pub(super) type OfTargets = PerDestination<Option<Arc<UpstreamTls>>>;

/// Reads the TLS of those of an upstream's targets that are `https://`.
///
/// # Errors
/// All mistakes in settings and files.
pub(super) fn read_upstream(
    settings: &ClientSettings,
    targets: &PerDestination<Option<&Target>>,
    now: UnixTime,
) -> Result<OfTargets, Vec<Mistake>> {
    if !targets.iter().flatten().any(|target| target.tls) {
        return Ok(PerDestination::default());
    }
    let nothing = InlinePem::new();
    let source = Fingerprinting::new(settings, &nothing);
    let client = ClientTls::load(settings, &source, now)?;
    let fingerprint = source.finish();
    let mut mistakes = Vec::new();
    let upstream = PerDestination::new(|destination| {
        let target = targets.of(destination).filter(|target| target.tls)?;
        match client.name_for(&target.host) {
            Ok(name) => Some(Arc::new(UpstreamTls { client: client.clone(), name, fingerprint })),
            Err(reason) => {
                mistakes.push(Mistake::in_setting("server_name", reason));
                None
            }
        }
    });
    if mistakes.is_empty() { Ok(upstream) } else { Err(mistakes) }
}

/// What was `read`, or what is `running` where it is the same.
pub(super) fn upstream_after(read: &OfTargets, running: &OfTargets) -> OfTargets {
    PerDestination::new(|destination| match (read.of(destination), running.of(destination)) {
        (Some(read), Some(running)) if read.fingerprint == running.fingerprint => Some(Arc::clone(running)),
        (read, _) => read.clone(),
    })
}

/// Whether a target that has TLS in both has other certificates, keys, authorities or settings.
pub(super) fn upstream_differs(a: &OfTargets, b: &OfTargets) -> bool {
    let pairs = a.iter().zip(b.iter());
    pairs.filter_map(|(a, b)| a.as_ref().zip(b.as_ref())).any(|(a, b)| a.fingerprint != b.fingerprint)
}

/// The files of a client's settings.
pub(super) fn client_files(settings: &ClientSettings) -> Vec<PathBuf> {
    let pair = settings.certificate.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    pair.chain(&settings.ca).cloned().collect()
}

/// The disk, what is inline, and a hash of all that was read and of the settings.
struct Fingerprinting<'a> {
    inline: &'a InlinePem,
    hasher: RefCell<DefaultHasher>,
}

impl<'a> Fingerprinting<'a> {
    fn new(settings: &impl std::fmt::Debug, inline: &'a InlinePem) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{settings:?}").hash(&mut hasher);
        Self { inline, hasher: RefCell::new(hasher) }
    }

    fn finish(self) -> u64 {
        self.hasher.into_inner().finish()
    }
}

impl Source for Fingerprinting<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = match self.inline.iter().find(|(name, _)| name == path) {
            Some((_, text)) => text.expose().to_vec(),
            None => Disk.read(path).map_err(|error| explained(path, error))?,
        };
        bytes.hash(&mut *self.hasher.borrow_mut());
        Ok(bytes)
    }

    fn system_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let roots = Disk.system_roots()?;
        roots.iter().for_each(|root| root.as_ref().hash(&mut *self.hasher.borrow_mut()));
        Ok(roots)
    }
}
