//! An upstream that takes remote write, Loki pushes and exports of OTLP, and counts, tenant by tenant, what arrives.
//!
//! Constraints that shaped it:
//! - What is counted has to be a proof: [`crate::account`] says of what. It is counted before the answer leaves, so
//!   the next [`Snapshot`] after an answer has its samples.
//! - It shares a machine with the server under test. So: one walk over the inflated bytes, in a buffer of the
//!   connection's, and one short lock per request to add the sums up. Connections themselves are
//!   [`testkit::upstream`]'s.
//! - Tests need an upstream that misbehaves on demand: a [`Script`] decides each answer. [`Faults`] are a script from a
//!   file.
//! - Where sums don't tell enough, a sink keeps a [`FullAccount`] of stamped samples. It costs more, so it has to be
//!   asked for.
//!
//! A request is *stored*, and only then counted in a tenant's sums, when its answer is a 2xx, unless its script says
//! otherwise.

pub(crate) mod export;
pub mod faults;
mod script;
mod session;
mod stats;
mod store;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Parser;
use testkit::upstream::Server;

use crate::account::FullAccount;
use crate::tls;
use crate::typed::count;

pub use faults::Faults;
pub use script::{Approach, Arrival, Script};
use session::Service;
pub use stats::{Snapshot, TenantCount};
use store::Store;
pub use testkit::upstream::{Admission, Close, Reply, Storing};

/// How a sink listens and what it does with requests. The default has the defaults of the command line, but a free
/// port.
#[derive(Clone, Parser)]
pub struct SinkConfig {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9009")]
    pub listen: SocketAddr,
    /// Names of the tenant's header, the first that a request has counts
    #[arg(
        long = "tenant-header",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "X-Scope-OrgID,THANOS-TENANT"
    )]
    pub tenant_headers: Vec<String>,
    /// Names of the tenant's label, the first that a series has counts
    ///
    /// A series that has one must have come under the header that the prefix and its value make.
    #[arg(
        long = "tenant-label",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "__tenant__,tenant"
    )]
    pub tenant_labels: Vec<String>,
    /// What the server puts before each tenant
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Connections at a time; further ones wait to be accepted
    #[arg(long, default_value_t = 1024, value_parser = count(65_535))]
    pub connections_max: usize,
    /// Keep account of every sample that `loadgen verify` sends, and show it at /account
    #[arg(long = "account")]
    pub full_account: bool,
    /// Certificate, as PEM with its chain; the sink then speaks TLS only
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authorities, as PEM, one of which must have issued the certificate that each client then has to show
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Decides each answer; without one it is an empty 200.
    #[arg(skip)]
    pub script: Option<Arc<dyn Script>>,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self::parse_from(["sink", "--listen", "127.0.0.1:0"])
    }
}

/// A running sink. Dropping it stops it.
pub struct Sink {
    shared: Arc<Shared>,
    server: Server,
}

/// What the connections of a sink have in common.
struct Shared {
    config: SinkConfig,
    counts: Mutex<Snapshot>,
    store: Store,
}

impl Shared {
    /// A panic elsewhere leaves sums that are still sums.
    fn counts(&self) -> MutexGuard<'_, Snapshot> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Binds, and serves from then on.
    ///
    /// # Errors
    /// When the address cannot be bound, or a file for TLS cannot be read.
    pub fn start(config: SinkConfig) -> io::Result<Self> {
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(tls::server(cert, key, config.client_ca.as_deref())?),
            _ => None,
        };
        let listener = TcpListener::bind(config.listen)?;
        let connections_max = config.connections_max;
        let store = Store::new(config.full_account);
        let shared = Arc::new(Shared { config, counts: Mutex::default(), store });
        let server =
            Server::start_with(listener, connections_max, Box::new(Service(Arc::clone(&shared))), tls)?;
        Ok(Self { shared, server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Scheme and address.
    pub fn origin(&self) -> String {
        let scheme = if self.shared.config.tls_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr())
    }

    /// What a server's `target` has to be.
    pub fn url(&self) -> String {
        format!("{}/api/v1/push", self.origin())
    }

    /// Everything counted so far.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.counts().clone()
    }

    /// The full account so far; None if none is kept, see [`SinkConfig::full_account`]. What a script holds back is
    /// stored first.
    pub fn account(&self) -> Option<FullAccount> {
        self.shared.account()
    }

    /// Stops listening and closes all connections, as an upstream that dies does. What is stored stays stored, and so,
    /// later, is what has arrived and waits for its answer's delay.
    pub fn go_down(&mut self) {
        self.server.go_down();
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When somebody else has taken it meanwhile.
    pub fn come_up(&mut self) -> io::Result<()> {
        self.server.come_up()
    }

    /// Stops accepting, answers what has begun to arrive, and returns the final counts.
    #[must_use = "the counts are what a sink is for; drop it to stop it only"]
    pub fn stop(mut self) -> Snapshot {
        self.server.stop();
        self.shared.let_go(None);
        self.snapshot()
    }
}
