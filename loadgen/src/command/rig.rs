//! A server and its upstream, and the senders before them: what the demo, chaos and every trial stand on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use loadgen::destination::Destination;
use loadgen::fleet::{Fleet, FleetConfig, Tenants};
use loadgen::port::free_addr;
use loadgen::process::Process;
use loadgen::send::{Outcome, Progress, SendConfig, send};
use loadgen::sink::{Script, Sink, SinkConfig};
use loadgen::tls::Certificates;
use tempfile::TempDir;

use super::args::{DiskArgs, ServerArgs};
use super::disk::Disk;
use super::server::{Server, Setup, Targets};

/// The label that names the tenant; what most people call it.
pub(crate) const TENANT_LABEL: &str = "tenant";

/// What a rig is started with.
#[derive(Default)]
pub(crate) struct RigConfig {
    pub(crate) server: ServerArgs,
    /// Lines of the server's configuration.
    pub(crate) settings: String,
    /// Whether the server has a spool, beside its configuration.
    pub(crate) has_spool: bool,
    /// The disk that it lies on.
    pub(crate) disk: DiskArgs,
    /// Upstreams in its place for some data: scheme and address.
    pub(crate) targets: BTreeMap<Destination, String>,
    /// What the upstream does.
    pub(crate) script: Option<Arc<dyn Script>>,
    /// Whether the upstream keeps account of every sample.
    pub(crate) full_account: bool,
    /// Whether senders that speak TLS need no certificate.
    pub(crate) allows_anonymous: bool,
    /// Whether the server serves profiles.
    pub(crate) profiles: bool,
    /// How long the server may take to end.
    pub(crate) end_patience: Duration,
}

/// A server and its upstream, and where the server's files are.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) sink: Sink,
    _dir: TempDir,
}

impl RigConfig {
    /// Starts the upstream, at an address that it can leave and come back to, and prepares the server.
    pub(crate) fn prepare(self) -> anyhow::Result<(Setup, Sink, TempDir)> {
        let dir = tempfile::Builder::new().prefix("loadgen-").tempdir();
        let dir = dir.context("no place for the server's configuration and log")?;
        let certificates = self.server.tls.then(|| Certificates::issue(dir.path()));
        let mut certificates = certificates.transpose().context("cannot make certificates")?;
        if let Some(certificates) = &mut certificates {
            certificates.is_mutual = !self.allows_anonymous;
        }
        let file = |name| certificates.as_ref().map(|certificates| certificates.path(name));
        let sink = Sink::start(SinkConfig {
            listen: free_addr()?,
            tls_cert: file("server.pem"),
            tls_key: file("server.pem.key"),
            client_ca: file("ca.pem"),
            tenant_labels: vec![TENANT_LABEL.to_owned()],
            full_account: self.full_account,
            script: self.script,
            ..SinkConfig::default()
        })?;
        let mut setup = Setup {
            has_spool: self.has_spool,
            disk: Disk::default(),
            program: self.server.server.clone(),
            listen: free_addr()?,
            targets: Targets::of(sink.origin(), self.targets),
            certificates,
            settings: self.server.settings(&self.settings),
            dir: dir.path().to_owned(),
            profiles: self.profiles,
            end_patience: self.end_patience,
        };
        setup.disk = Disk::new(&self.disk, &setup.spool_dir())?;
        setup.settings += &setup.spool();
        Ok((setup, sink, dir))
    }
}

impl Rig {
    pub(crate) fn start(config: RigConfig) -> anyhow::Result<Self> {
        let (setup, sink, dir) = config.prepare()?;
        Ok(Self { server: Server::start(&setup)?, sink, _dir: dir })
    }

    /// How to send to the server; callers set more.
    pub(crate) fn sending(&self, duration: Duration) -> anyhow::Result<SendConfig> {
        Ok(SendConfig { url: self.server.push_url()?, duration: Some(duration), ..SendConfig::default() })
    }

    /// The server's process.
    pub(crate) fn process(&self) -> anyhow::Result<Process> {
        Ok(Process::new(self.server.pid())?)
    }
}

/// What the fleets of all rigs have in common.
pub(crate) fn fleet_config(tenants: Tenants) -> FleetConfig {
    FleetConfig { tenants, tenant_label: TENANT_LABEL.to_owned(), ..FleetConfig::default() }
}

/// Sends, and hears nothing meanwhile.
pub(crate) fn send_all(fleet: &Fleet, config: &SendConfig) -> anyhow::Result<Outcome> {
    Ok(send(fleet, config, &Progress::default(), |_| {})?)
}
