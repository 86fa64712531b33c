//! Who may see the pages: the TLS of the admin listeners, and the credentials of their clients.
//!
//! `/alive` needs no credentials: probes have none, and it says nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use super::pages::Page;
use super::{Server, VerdictMailbox};
use crate::auth::{Authorization, Caller, Decision};
use crate::io::deadline::Cut;
use crate::io::stream::Stream;
use crate::limits::{ADMIN_TIMEOUT_MILLIS, HANDSHAKE_STEP_WORK_BYTES};
use crate::tls::session::Session;

impl Server {
    /// Shakes hands, if the listeners speak TLS. The stream has a deadline already.
    ///
    /// # Errors
    /// If the handshake fails. The client has been sent an alert, or a 400 if it speaks plain HTTP.
    pub(super) async fn secure(&self, stream: &mut Stream) -> io::Result<()> {
        let plan = self.pages.plan();
        let Some(tls) = &plan.tls.admin else { return Ok(()) };
        let session = Session::server(Arc::clone(tls.config())).map_err(io::Error::other)?;
        let turn = async || {
            self.tasks.yield_if_busy().await;
            self.tasks.record_work(HANDSHAKE_STEP_WORK_BYTES);
            Ok(())
        };
        turn().await?;
        stream.secure(session, turn).await
    }

    /// The page that a client gets instead of the one that it asks for, if its credentials are not accepted.
    pub(super) async fn refusal(&self, authorization: &Authorization, stream: &Stream) -> Option<Page> {
        let plan = self.pages.plan();
        let Some(authenticator) = plan.admin_auth.authenticator() else {
            return Some(Page::text(503, "credentials can't be checked yet\n"));
        };
        let caller = Caller { core: 0, peer: Some(stream.peer().ip()), now: SystemTime::now() };
        let timeout = Duration::from_millis(ADMIN_TIMEOUT_MILLIS);
        let decision = match authenticator.authenticate(authorization, None, &caller) {
            Decision::Pending(pending) => {
                // The time for the request has mostly passed. The check has as much again, and then there is a 503.
                stream.set_deadline(Instant::now() + 2 * timeout, Cut::Both);
                let verdict = self.verdicts.wait(pending.ticket, timeout).await;
                pending.conclude(verdict)
            }
            decision => decision,
        };
        match decision {
            Decision::Anonymous | Decision::Known(_) => None,
            Decision::Unauthorized(reason) => {
                let page = Page::text(401, format!("unauthorized: {reason}\n"));
                Some(page.with_lines(authenticator.challenge(reason)))
            }
            Decision::Busy | Decision::Pending(_) => {
                Some(Page::text(503, "too many passwords are being checked\n"))
            }
        }
    }

    /// Takes verdicts to the connections that wait for them, until the thread's end of the doorbell is shut down.
    pub(super) async fn receive_verdicts(&self, mailbox: VerdictMailbox, mut bell: UnixStream) {
        let mut buffer = vec![0u8; 64];
        loop {
            mailbox.wake_up();
            while let Some((ticket, verdict)) = mailbox.take().or_else(|| mailbox.fall_asleep()) {
                self.verdicts.deliver(ticket, verdict);
            }
            let (rung, returned) = bell.read(buffer).await;
            buffer = returned;
            if !matches!(rung, Ok(1..)) {
                return;
            }
        }
    }
}
