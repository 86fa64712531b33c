//! The TLS handshake of an inbound connection.
//!
//! # Constraints
//! - A client that connects and says nothing must cost no more than without TLS. So a session is made when the first
//!   bytes have arrived, not before.
//! - A handshake takes up to a millisecond of CPU time. Each of its steps therefore waits for its turn among all work of
//!   the core, so that a flood of handshakes leaves established connections their share.
//! - The number of handshakes in progress has a limit: see [`handshakes`](super::handshakes).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ingest;
use super::close::discard_before_close;
use super::credential::peer_certificate;
use crate::auth::PeerCertificate;
use crate::config::tls::ListenerTls;
use crate::io::deadline::{Cut, Idle};
use crate::io::stream::Stream;
use crate::limits::{DRAIN_FIRST_REQUEST_MILLIS, HANDSHAKE_STEP_WORK_BYTES};
use crate::tls::session::Session;

impl Ingest {
    /// Shakes hands with a client, if the listener speaks TLS. Returns the client's certificate, if there is one that was
    /// verified. `None` means that the connection cannot be served.
    pub(super) async fn secure(&self, stream: &mut Stream) -> Option<Option<Arc<PeerCertificate>>> {
        let plan = self.plan();
        let Some(tls) = &plan.tls.ingress else { return Some(None) };
        let wait = match self.is_draining() {
            true => Duration::from_millis(DRAIN_FIRST_REQUEST_MILLIS),
            false => plan.timeout,
        };
        stream.set_deadline(Instant::now() + wait, Cut::Both);
        if stream.idle(Idle::First).await.is_err() || stream.expired() {
            return None;
        }
        // Draining may have set an earlier one, which is for the first byte only.
        stream.set_deadline(Instant::now() + plan.timeout, Cut::Both);
        let number = self.handshakes.begin(stream.cutter());
        let result = self.shake_hands(stream, tls).await;
        self.handshakes.end(number);
        match result {
            Ok((resumed, certificate)) => {
                let counters = self.counters();
                if resumed {
                    counters.tls_resumed.add(1)
                } else {
                    counters.tls_full.add(1)
                }
                Some(certificate)
            }
            Err(error) => {
                self.counters().tls_failed.add(1);
                tracing::debug!(client = %stream.peer(), %error, "a TLS handshake failed");
                // The client has been sent an alert, or a 400 if it speaks plain HTTP.
                stream.drop_session();
                discard_before_close(stream, &self.buffers).await;
                None
            }
        }
    }

    /// Returns whether an earlier session was resumed, and the client's certificate.
    async fn shake_hands(
        &self,
        stream: &mut Stream,
        tls: &ListenerTls,
    ) -> io::Result<(bool, Option<Arc<PeerCertificate>>)> {
        let session = Session::server(Arc::clone(tls.config())).map_err(io::Error::other)?;
        let turn = async || {
            self.tasks.yield_if_busy().await;
            self.tasks.record_work(HANDSHAKE_STEP_WORK_BYTES);
        };
        stream.secure(session, turn).await?;
        let session = stream.session();
        let certificate = match session.filter(|_| tls.verifies_clients()) {
            Some(session) => peer_certificate(session).map_err(io::Error::other)?,
            None => None,
        };
        Ok((session.and_then(Session::is_resumed).unwrap_or_default(), certificate))
    }
}
