//! The TLS handshake of an inbound connection.
//!
//! # Constraints
//! - A client that connects and says nothing must cost no more than without TLS. So a session is made when the first
//!   bytes have arrived, not before.
//! - A handshake takes up to a millisecond of CPU time. Each of its steps therefore waits for its turn among all work
//!   of the core, so that a flood of handshakes leaves established connections their share: see
//!   [`turns`](super::turns).
//! - The number of handshakes in progress has a limit: see [`handshakes`](super::handshakes). A handshake counts once
//!   it has had its first turn. Until then it waits for us, is no reason to cut another, and holds as little as a
//!   silent client.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ingest;
use super::close::discard_before_close;
use super::credential::{Standing, peer_certificate};
use super::handshakes::network;
use super::turns::Step;
use crate::auth::PeerCertificate;
use crate::config::tls::ListenerTls;
use crate::io::deadline::{Cut, Cutter, Idle};
use crate::io::stream::Stream;
use crate::limits::{DRAIN_FIRST_REQUEST_MILLIS, HANDSHAKE_STEP_WORK_BYTES};
use crate::tls::session::Session;

impl Ingest {
    /// Shakes hands with a client, if the listener speaks TLS. Returns the client's certificate, if there is one that
    /// was verified. `None` means that the connection cannot be served.
    pub(super) async fn secure(&self, stream: &mut Stream) -> Option<Standing> {
        let plan = self.plan();
        let Some(tls) = &plan.tls.ingress else { return Some(Standing::default()) };
        let wait = match self.is_draining() {
            true => Duration::from_millis(DRAIN_FIRST_REQUEST_MILLIS),
            false => plan.timeout,
        };
        stream.set_deadline(Instant::now() + wait, Cut::Both);
        if stream.idle(Idle::First).await.is_err() || stream.expired() {
            return None;
        }
        match self.shake_hands(stream, tls, plan.timeout).await {
            Ok((resumed, certificate)) => {
                let counters = self.counters();
                if resumed {
                    counters.tls_resumed.add(1)
                } else {
                    counters.tls_full.add(1)
                }
                Some(Standing { tls: Some(Arc::clone(tls)), certificate })
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
        timeout: Duration,
    ) -> io::Result<(bool, Option<Arc<PeerCertificate>>)> {
        let (begun, peer, cutter) = (Instant::now(), network(stream.peer().ip()), stream.cutter());
        // This replaces what draining may have set, which is for the first byte only. If a core has no time for all
        // that arrive, those that it begins with must have time left.
        stream.set_deadline(begun + timeout / 2, Cut::Both);
        self.turn(Step::First, peer, &cutter).await?;
        stream.set_deadline(begun + timeout, Cut::Both);
        let session = Session::server(Arc::clone(tls.config())).map_err(io::Error::other)?;
        let ticket = self.handshakes.begin(peer, cutter.clone());
        let result = stream.secure(session, async || self.turn(Step::Later, peer, &cutter).await).await;
        self.handshakes.end(&ticket);
        result?;
        let session = stream.session();
        let certificate = match session.filter(|_| tls.verifies_clients()) {
            Some(session) => peer_certificate(session).map_err(io::Error::other)?,
            None => None,
        };
        Ok((session.and_then(Session::is_resumed).unwrap_or_default(), certificate))
    }

    /// Waits for the turn of a step of a handshake, which ends if its connection has been cut meanwhile.
    async fn turn(&self, step: Step, peer: IpAddr, cutter: &Cutter) -> io::Result<()> {
        let _turn = self.turns.take(step, peer).await;
        if cutter.is_cut() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.tasks.yield_if_busy().await;
        self.tasks.record_work(HANDSHAKE_STEP_WORK_BYTES);
        Ok(())
    }
}
