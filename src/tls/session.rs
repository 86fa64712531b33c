//! One connection's TLS, server or client: bytes in, plaintext out; plaintext in, bytes out.
//!
//! Design constraints:
//!
//! * No socket, no runtime. What has to be sent is appended to an [`Outgoing`], on errors too: then it holds the alert.
//! * Each call does a bounded amount of work, and all that a session holds is bounded ([`limits`](crate::limits)): in
//!   `incoming` a read and what is left of the one before; in `rest` one record's plaintext for which the caller's
//!   buffer had no room, or what came with the end of a handshake and had to make way for a reply.
//! * A connection has ended properly only if a `close_notify` came. Without it, an attacker may have cut the data
//!   short (RFC 8446 section 6.1).
//!
//! A stream drives it like this. To shake hands:
//!
//! ```text
//! loop {
//!     let state = session.handshake(&mut outgoing);
//!     write all of outgoing                                  // on an error too: it is the alert
//!     if state? is Done { break }
//!     let (buffer, end) = session.lend();
//!     read into buffer, up to end; nothing came: session.ended()?
//!     session.received(buffer);
//! }
//! ```
//!
//! To read: call [`read`](Session::read) until it is no longer [`Blocked`](Progress::Blocked), with a read from the
//! socket in between as above. To write: [`encrypt`](Session::encrypt) a step, write all of outgoing, take the step off
//! the slices, until none is left. To end: [`close`](Session::close), write all of outgoing, shut the socket down.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig};

use super::error::SessionError;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::sealing::{Seal, Sealing};
use crate::limits::{
    TLS_HANDSHAKE_BYTES_MAX, TLS_HANDSHAKE_READ_BYTES, TLS_READ_BYTES, TLS_RECORD_BYTES,
    TLS_RECORD_WIRE_BYTES_MAX, TLS_STEP_BYTES_MAX,
};

/// What a client gets that speaks plain HTTP to a TLS port. Go's servers and nginx answer in the same way.
pub const PLAIN_HTTP_REPLY: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 45\r\nConnection: close\r\n\r\nbad request: this port speaks TLS, use https\n";

/// One connection's TLS.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    incoming: Incoming,
    rest: Rest,
    /// Bytes used up while the handshake lasts.
    handshake_bytes: usize,
    /// The first byte has been looked at.
    is_tls: bool,
    /// rustls has used up all that it can of what came.
    drained: bool,
    peer_closed: bool,
    /// We have sent our `close_notify`.
    closed: bool,
    failed: Option<SessionError>,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl fmt::Debug for Connection {
    /// No more than the side: there are keys in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// How a handshake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It is complete.
    Done,
    /// The peer has to send more.
    Blocked,
}

/// How reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes were appended, at least one.
    Plaintext(usize),
    /// The peer has to send more.
    Blocked,
    /// The peer has closed the session properly: nothing will come.
    Ended,
}

/// Plaintext of one record that waits for room.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    from: usize,
}

/// Where plaintext goes.
struct Sink<'a> {
    into: &'a mut Vec<u8>,
    end: usize,
    rest: &'a mut Rest,
}

/// What one turn of the state machine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A record of plaintext came.
    Plaintext,
    /// There may be more to do.
    Again,
    /// All that came has been used up, as far as it can be.
    Idle,
    /// As `Idle`, and traffic may be written: what was to be sealed is.
    Writable,
}

impl Turn {
    fn is_idle(self) -> bool {
        matches!(self, Self::Idle | Self::Writable)
    }
}

impl Session {
    /// The server's side of a connection that was accepted.
    ///
    /// # Errors
    /// [`SessionError::Internal`] when no random bytes are to be had.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, SessionError> {
        Ok(Self::over(Connection::Server(UnbufferedServerConnection::new(config)?)))
    }

    /// The client's side of a connection to a server, whose certificate has to be for `name`.
    ///
    /// # Errors
    /// [`SessionError::Internal`] when no random bytes are to be had.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, SessionError> {
        Ok(Self::over(Connection::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    fn over(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Incoming::default(),
            rest: Rest::default(),
            handshake_bytes: 0,
            is_tls: false,
            drained: false,
            peer_closed: false,
            closed: false,
            failed: None,
        }
    }

    /// Lends the buffer for a read from the socket, and says how many bytes it may hold then. There is always room
    /// for a byte, as long as the session was driven until it was blocked. It has to come back by
    /// [`received`](Self::received), whatever became of the read.
    pub fn lend(&mut self) -> (Vec<u8>, usize) {
        let room = if self.is_handshaking() { TLS_HANDSHAKE_READ_BYTES } else { TLS_READ_BYTES };
        self.incoming.lend(room)
    }

    /// Takes the lent buffer back, with what the read appended.
    pub fn received(&mut self, buffer: Vec<u8>) {
        self.incoming.put_back(buffer);
        self.drained = false;
    }

    /// Takes memory for the next read from a pool. Gives it back when the session has some.
    pub fn offer(&mut self, buffer: Vec<u8>) -> Option<Vec<u8>> {
        self.incoming.offer(buffer)
    }

    /// Gives up the memory for reads if nothing is left in it, so that an idle connection holds none.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.incoming.reclaim()
    }

    /// Goes on with the handshake. Once it is [`Done`](Handshake::Done), it stays so.
    ///
    /// A TLS 1.3 client is done before the server has looked at its certificate: what the server thinks of that comes
    /// with the first [`read`](Self::read).
    ///
    /// # Errors
    /// See [`SessionError`]. The same error comes from each call after that.
    pub fn handshake(&mut self, outgoing: &mut Outgoing) -> Result<Handshake, SessionError> {
        while self.is_handshaking() {
            if self.turn(&mut Vec::new(), 0, outgoing)?.is_idle() && self.is_handshaking() {
                return Ok(Handshake::Blocked);
            }
        }
        // Tickets of a server, the last message of a client.
        while self.has_to_send() {
            if self.turn(&mut Vec::new(), 0, outgoing)? != Turn::Again {
                break;
            }
        }
        Ok(Handshake::Done)
    }

    /// Appends plaintext to `into` until that holds `end` bytes, for which it must have less now, or all that came has
    /// been used, or [`TLS_STEP_BYTES_MAX`] bytes were added: then another call goes on.
    ///
    /// It goes on with the handshake if that is not complete.
    ///
    /// # Errors
    /// See [`SessionError`]. Plaintext that came before an error is given first, and the error by the next call; and by
    /// each call after that.
    pub fn read(
        &mut self,
        into: &mut Vec<u8>,
        end: usize,
        outgoing: &mut Outgoing,
    ) -> Result<Progress, SessionError> {
        let before = into.len();
        let end = end.min(before + TLS_STEP_BYTES_MAX).max(before);
        self.rest.move_to(into, end);
        while into.len() < end {
            match self.turn(into, end, outgoing) {
                Ok(turn) if turn.is_idle() => break,
                Ok(_) => {}
                Err(_) if into.len() > before => break,
                Err(e) => return Err(e),
            }
        }
        match into.len() - before {
            0 if self.peer_closed => Ok(Progress::Ended),
            0 => Ok(Progress::Blocked),
            n => Ok(Progress::Plaintext(n)),
        }
    }

    /// The socket's end was read. Gives an error unless it comes behind a `close_notify`.
    ///
    /// # Errors
    /// [`SessionError::EndedInHandshake`] or [`SessionError::Truncated`]; or the error that the session had before.
    pub fn ended(&mut self) -> Result<(), SessionError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.peer_closed {
            return Ok(());
        }
        let error =
            if self.is_handshaking() { SessionError::EndedInHandshake } else { SessionError::Truncated };
        self.failed = Some(error.clone());
        Err(error)
    }

    /// Encrypts the beginning of `slices` into `outgoing` and says how many bytes that are: at most `bytes_max` rounded
    /// down to full records, but one record at least; at most [`TLS_STEP_BYTES_MAX`], less what waits in `outgoing`; 0
    /// if that has to be sent first. Records are full, but for the last of the slices.
    ///
    /// What a record takes from one slice is encrypted from where it is; a record that spans slices is put together
    /// first.
    ///
    /// # Errors
    /// [`SessionError::Internal`] before the handshake is complete, and when a TLS 1.2 session's keys are used up after
    /// 2^24 records: a new connection helps. [`SessionError::Closed`] after [`close`](Self::close). The error that the
    /// session had before.
    pub fn encrypt<'p>(
        &mut self,
        slices: impl IntoIterator<Item = &'p [u8]>,
        bytes_max: usize,
        outgoing: &mut Outgoing,
    ) -> Result<usize, SessionError> {
        self.check_writable()?;
        if outgoing.len() >= TLS_STEP_BYTES_MAX {
            return Ok(0);
        }
        let room = bytes_max.min(TLS_STEP_BYTES_MAX - outgoing.len());
        let bytes = (room / TLS_RECORD_BYTES * TLS_RECORD_BYTES).max(TLS_RECORD_BYTES);
        let mut slices = slices.into_iter();
        let mut sealing = Sealing::Plaintext { slices: &mut slices, bytes, taken: 0 };
        self.seal(&mut sealing, outgoing)?;
        match sealing {
            Sealing::Plaintext { taken, .. } => Ok(taken),
            Sealing::CloseNotify => Ok(0),
        }
    }

    /// Tells the peer that nothing more will be written: appends a `close_notify`, unless that was done before, the
    /// handshake is not complete, or the session has failed. Reading can go on.
    pub fn close(&mut self, outgoing: &mut Outgoing) {
        if self.check_writable().is_ok() {
            // This fails only if there is nothing left to tell the peer.
            let _ = self.seal(&mut Sealing::CloseNotify, outgoing);
            self.closed = true;
        }
    }

    fn check_writable(&self) -> Result<(), SessionError> {
        match &self.failed {
            // Only reading has ended, perhaps at its deadline. The peer still gets an answer.
            None | Some(SessionError::Truncated) => {}
            Some(error) => return Err(error.clone()),
        }
        if self.closed {
            Err(SessionError::Closed)
        } else if self.is_handshaking() {
            Err(rustls::Error::HandshakeNotComplete.into())
        } else {
            Ok(())
        }
    }

    /// Whether this is the server's side, so that the peer begins the handshake.
    pub fn is_server(&self) -> bool {
        matches!(self.connection, Connection::Server(_))
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Whether a [`read`](Self::read) may give something without a read from the socket: before waiting for the socket,
    /// or taking a connection for idle, this has to be false.
    pub fn has_pending(&self) -> bool {
        !self.rest.is_empty() || self.peer_closed || (!self.drained && self.incoming.left() > 0)
    }

    /// Whether the handshake was a resumption, so that no certificate was sent; `None` before that is known.
    pub fn is_resumed(&self) -> Option<bool> {
        self.common().handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// The version, as logs and metrics name it; `None` before it is agreed.
    pub fn version(&self) -> Option<&'static str> {
        self.common().protocol_version().map(|version| match version {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "unknown",
        })
    }

    /// The cipher suite by its IANA name; `None` before it is agreed.
    pub fn cipher_suite(&self) -> Option<String> {
        let suite = self.common().negotiated_cipher_suite()?.suite();
        suite.as_str().map(|name| name.replacen("TLS13_", "TLS_", 1))
    }

    /// The application protocol that was agreed on, if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The peer's own certificate, if it has shown one, in this handshake or the one that was resumed. It has been
    /// verified, unless a client was configured not to.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.common().peer_certificates()?.first()
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(server) => server,
            Connection::Client(client) => client,
        }
    }

    fn has_to_send(&self) -> bool {
        self.common().wants_write()
    }

    /// One turn of rustls' state machine over all that came.
    fn turn(
        &mut self,
        into: &mut Vec<u8>,
        end: usize,
        outgoing: &mut Outgoing,
    ) -> Result<Turn, SessionError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Err(e) = self.check_first_byte(outgoing) {
            return Err(self.fail(e, outgoing));
        }
        let handshaking = self.is_handshaking();
        let view = self.incoming.view();
        let bytes = view.len();
        let mut sink = Sink { into, end, rest: &mut self.rest };
        let (discard, turn) = match &mut self.connection {
            Connection::Server(server) => {
                advance(server.process_tls_records(view), &mut sink, None, outgoing, &mut self.peer_closed)
            }
            Connection::Client(client) => {
                advance(client.process_tls_records(view), &mut sink, None, outgoing, &mut self.peer_closed)
            }
        };
        // Data comes only where rustls holds no message in pieces, so that it keeps no offsets then.
        let seen = if turn == Ok(Turn::Plaintext) { 0 } else { bytes - discard };
        self.drained = turn.as_ref().is_ok_and(|turn| turn.is_idle());
        // Behind a close_notify nothing counts (RFC 8446 section 6.1).
        self.incoming.consume(if self.peer_closed { bytes } else { discard }, seen);
        if handshaking {
            self.handshake_bytes += discard;
        }
        match turn {
            Ok(turn) if self.is_too_long(turn) => Err(self.fail(SessionError::HandshakeTooLong, outgoing)),
            Ok(turn) => Ok(turn),
            Err(e) => Err(self.fail(e, outgoing)),
        }
    }

    /// A TLS connection begins with a handshake record, whose first byte is 22 (RFC 8446 section 5.1), or with an
    /// alert. HTTP begins with a method, or with a version: a capital letter.
    fn check_first_byte(&mut self, outgoing: &mut Outgoing) -> Result<(), SessionError> {
        let Some(first) = self.incoming.first().filter(|_| !self.is_tls) else { return Ok(()) };
        if first.is_ascii_uppercase() {
            if self.is_server() {
                outgoing.extend(PLAIN_HTTP_REPLY);
            }
            return Err(SessionError::PlainHttp);
        }
        self.is_tls = true;
        Ok(())
    }

    /// Only a message in many pieces is not used up: data is, record by record.
    fn is_too_long(&self, turn: Turn) -> bool {
        let left = self.incoming.left();
        turn.is_idle()
            && if self.is_handshaking() {
                self.handshake_bytes + left > TLS_HANDSHAKE_BYTES_MAX
            } else {
                left > TLS_HANDSHAKE_BYTES_MAX + TLS_RECORD_WIRE_BYTES_MAX
            }
    }

    /// Remembers the error, and appends the alert that rustls may have for it.
    fn fail(&mut self, error: SessionError, outgoing: &mut Outgoing) -> SessionError {
        self.failed = Some(error.clone());
        let (mut into, mut ended) = (Vec::new(), false);
        // While something is to be sent, rustls looks at nothing that came.
        while self.has_to_send() {
            let view = self.incoming.view();
            let mut sink = Sink { into: &mut into, end: 0, rest: &mut self.rest };
            let (_, turn) = match &mut self.connection {
                Connection::Server(server) => {
                    advance(server.process_tls_records(view), &mut sink, None, outgoing, &mut ended)
                }
                Connection::Client(client) => {
                    advance(client.process_tls_records(view), &mut sink, None, outgoing, &mut ended)
                }
            };
            if turn != Ok(Turn::Again) {
                break;
            }
        }
        error
    }

    /// Has rustls seal something. It shows the state that allows this only when nothing else is to be done, so it is
    /// shown no more of what came than it has to be.
    fn seal(&mut self, sealing: &mut Sealing<'_, '_>, outgoing: &mut Outgoing) -> Result<(), SessionError> {
        let mut into = Vec::new();
        loop {
            let view = self.incoming.seen_view();
            let bytes = view.len();
            let mut sink = Sink { into: &mut into, end: 0, rest: &mut self.rest };
            let with = Some(&mut *sealing);
            let (discard, turn) = match &mut self.connection {
                Connection::Server(server) => advance(
                    server.process_tls_records(view),
                    &mut sink,
                    with,
                    outgoing,
                    &mut self.peer_closed,
                ),
                Connection::Client(client) => advance(
                    client.process_tls_records(view),
                    &mut sink,
                    with,
                    outgoing,
                    &mut self.peer_closed,
                ),
            };
            self.incoming.consume(discard, bytes - discard);
            match turn {
                Ok(Turn::Writable) => return Ok(()),
                Ok(Turn::Again | Turn::Plaintext) => {}
                Ok(Turn::Idle) => return Err(self.fail(SessionError::Closed, outgoing)),
                Err(e) => return Err(self.fail(e, outgoing)),
            }
        }
    }
}

/// Does what rustls asks for in the state that it has reached, and says how many bytes at the front of what came it is
/// done with. `sealing` is done in the state that allows it.
fn advance<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    sink: &mut Sink<'_>,
    sealing: Option<&mut Sealing<'_, '_>>,
    outgoing: &mut Outgoing,
    peer_closed: &mut bool,
) -> (usize, Result<Turn, SessionError>)
where
    for<'c> rustls::unbuffered::WriteTraffic<'c, Side>: Seal,
{
    let UnbufferedStatus { discard, state } = status;
    let turn = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(Ok(record)) = traffic.next_record() {
                sink.put(record.payload);
            }
            Ok(Turn::Plaintext)
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => outgoing
            .append(TLS_HANDSHAKE_READ_BYTES, |room| data.encode(room))
            .map(|()| Turn::Again)
            .map_err(|_| SessionError::Internal("a handshake message can't be encoded".into())),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It is in `outgoing`, in its order, and there is no way for it to be sent after anything else.
            data.done();
            Ok(Turn::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *peer_closed = true;
            Ok(Turn::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let sealed = sealing.map_or(Ok(()), |sealing| sealing.run(&mut traffic, outgoing));
            sealed.map(|()| Turn::Writable).map_err(|_| SessionError::Internal("its keys are used up".into()))
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Turn::Idle),
        // Early data, which no configuration of ours allows.
        Ok(_) => Err(SessionError::Internal("rustls is in a state that is not known".into())),
        Err(e) => Err(e.into()),
    };
    (discard, turn)
}

impl Sink<'_> {
    fn put(&mut self, payload: &[u8]) {
        let room = if self.rest.is_empty() { self.end.saturating_sub(self.into.len()) } else { 0 };
        let (now, later) = payload.split_at(payload.len().min(room));
        self.into.extend_from_slice(now);
        if !later.is_empty() {
            self.rest.bytes.extend_from_slice(later);
        }
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    fn move_to(&mut self, into: &mut Vec<u8>, end: usize) {
        if self.is_empty() {
            return;
        }
        let left = self.bytes.get(self.from..).unwrap_or_default();
        let now = left.len().min(end.saturating_sub(into.len()));
        into.extend_from_slice(left.get(..now).unwrap_or_default());
        self.from += now;
        if self.is_empty() {
            // An idle connection should not hold it.
            *self = Self::default();
        }
    }
}
