//! Records the bodies of pushes as they come, for `tenantry explain` and `tenantry plan`.
//!
//! Constraints that shaped it:
//! - What is recorded is what came: bodies keep their bytes and compression.
//! - Secrets are not recorded: of a head only the path without its query, the format and the tenant's header are kept.
//!   Bodies hold labels and values, so files are for their owner only.
//! - It may stand between a sender and its target. Then it answers what the target answers, also when recording fails
//!   or has reached its bounds.
//!
//! [`Recorder`] writes the files; loadgen/README.md describes them.

mod recorder;
mod session;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use testkit::upstream::Server;

use crate::client::Url;
use crate::tls::Credentials;
use crate::typed::{count, duration};

pub use recorder::{Recorded, Recorder};
use session::Service;

/// What is recorded, and where it goes from there.
#[derive(Clone, Debug, Parser)]
pub struct CaptureConfig {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9010")]
    pub listen: SocketAddr,
    /// Where to keep what is recorded; a directory without recorded requests, which is made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Send each request on to this target, and answer what it answers; without it, each is answered with 204
    ///
    /// A URL without a path sends each request to its own path.
    #[arg(long, value_name = "URL")]
    pub forward: Option<Url>,
    /// Record so many requests, and then no more
    #[arg(long, default_value = "1000", value_parser = count(1_000_000))]
    pub bodies: usize,
    /// Record so many bytes of bodies, and then no more
    #[arg(long, value_name = "BYTES", default_value = "1073741824", value_parser = count(1 << 40))]
    pub bytes_max: usize,
    /// Names of the tenant's header, the first that a request has counts
    #[arg(
        long = "tenant-header",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "X-Scope-OrgID,THANOS-TENANT"
    )]
    pub tenant_headers: Vec<String>,
    /// How long to wait for the target's answer
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub timeout: Duration,
    /// Connections at a time; further ones wait to be accepted
    #[arg(long, default_value_t = 1024, value_parser = count(65_535))]
    pub connections_max: usize,
    /// Authorities to trust at an https target, as PEM
    #[arg(long, value_name = "FILE", requires = "forward")]
    pub ca: Option<PathBuf>,
}

impl CaptureConfig {
    /// Reads the file of authorities.
    ///
    /// # Errors
    /// When it cannot be read, or an https URL comes without it.
    pub fn ready(mut self) -> io::Result<Self> {
        let credentials = Credentials { ca: self.ca.clone(), ..Credentials::default() };
        let tls = credentials.load()?;
        self.forward = self.forward.map(|url| url.with_tls(tls));
        match &self.forward {
            Some(url) if url.lacks_tls() => Err(io::Error::other("an https URL needs --ca")),
            _ => Ok(self),
        }
    }
}

/// What was sent on.
#[derive(Default, Debug)]
pub(crate) struct Forwarded {
    /// Requests that the target answered.
    answered: AtomicU64,
    /// Requests that it did not answer.
    failed: AtomicU64,
}

/// A running capture. Dropping it stops it.
pub struct Capture {
    recorder: Arc<Recorder>,
    forwarded: Arc<Forwarded>,
    server: Server,
}

impl Capture {
    /// Binds, and records from then on.
    ///
    /// # Errors
    /// When the address cannot be bound, or the directory cannot be used.
    pub fn start(config: CaptureConfig) -> io::Result<Self> {
        let recorder = Arc::new(Recorder::new(&config)?);
        let forwarded = Arc::new(Forwarded::default());
        let listener = TcpListener::bind(config.listen)?;
        let connections_max = config.connections_max;
        let service = Service { config, recorder: Arc::clone(&recorder), forwarded: Arc::clone(&forwarded) };
        let server = Server::start(listener, connections_max, Box::new(service))?;
        Ok(Self { recorder, forwarded, server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What has been recorded so far.
    pub fn recorded(&self) -> Recorded {
        self.recorder.recorded()
    }

    /// Requests that were sent on: answered by the target, and not.
    pub fn forwarded(&self) -> (u64, u64) {
        let Forwarded { answered, failed } = &*self.forwarded;
        (answered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Stops listening, and answers what has begun to arrive.
    pub fn stop(&mut self) {
        self.server.stop();
    }
}
