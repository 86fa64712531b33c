//! Opens connections, with TLS where the target wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, Free, Pool, is_same};
use crate::config::tls::UpstreamTls;
use crate::io::stream::Stream;
use crate::limits::CONNECT_MILLIS_MIN;
use crate::model::Failure;
use crate::shared::permits::Permit;
use crate::tls::client::ClientTls;
use crate::tls::session::Session;

impl Pool {
    /// Opens a connection. If that fails, the permit goes to the next request that waits.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], also when `deadline` has passed.
    pub async fn connect(
        &self,
        address: SocketAddr,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Box<Connection>, Failure> {
        loop {
            let tls = self.tls.borrow().clone();
            match self.open_stream(address, tls.as_ref(), deadline).await {
                // The settings have changed meanwhile.
                Ok(_) if !is_same(&tls, &self.tls.borrow()) => {}
                Ok(stream) => {
                    return Ok(Box::new(self.connection(stream, tls, address, permit, Instant::now())));
                }
                Err(error) => {
                    self.give(address, Free::Permit(permit));
                    return Err(Failure::Unreachable { address, reason: error.to_string() });
                }
            }
        }
    }

    /// Connects, and shakes hands if the upstream speaks TLS.
    async fn open_stream(
        &self,
        address: SocketAddr,
        tls: Option<&Arc<UpstreamTls>>,
        deadline: Instant,
    ) -> std::io::Result<Stream> {
        let blocking = self.limits.get().blocking;
        let mut stream = Stream::connect(address, deadline, blocking, &self.deadlines).await?;
        if let Some(tls) = tls {
            let client = self.client_of(address, tls);
            let session = Session::client(Arc::clone(client.config()), tls.name.clone());
            let session = session.map_err(std::io::Error::other)?;
            // A core opens few connections, so the handshake need not wait for its turn.
            if let Err(error) = stream.secure(session, async || Ok(())).await {
                let timed_out =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, "the TLS handshake timed out");
                return Err(if stream.expired() { timed_out } else { error });
            }
        }
        Ok(stream)
    }

    /// The TLS of connections to `address` that are opened with `tls`. While one is opened, that may be replaced.
    pub(super) fn client_of(&self, address: SocketAddr, tls: &Arc<UpstreamTls>) -> ClientTls {
        self.host(address, |host| match &host.tls {
            Some((made_of, client)) if Arc::ptr_eq(made_of, tls) => client.clone(),
            _ => {
                let client = tls.client.for_address();
                host.tls = Some((Arc::clone(tls), client.clone()));
                client
            }
        })
    }

    /// Returns how long opening a connection may take for a request with this `timeout`: its share of the timeout, so
    /// that the request can try the other addresses if one of them drops packets.
    pub fn connect_timeout(&self, timeout: Duration) -> Duration {
        let addresses = u32::try_from(self.addresses()).unwrap_or(u32::MAX).max(1);
        (timeout / addresses).max(Duration::from_millis(CONNECT_MILLIS_MIN)).min(timeout)
    }
}
