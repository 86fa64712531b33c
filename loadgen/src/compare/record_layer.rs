//! What rustls alone needs to encrypt and decrypt messages: its record layer, without sockets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use crate::tls::{self, Certificates};

/// Messages that are encrypted and then decrypted at a time, few enough for a cache; and how often.
const BATCH: usize = 8;
const BATCHES: u32 = 25;

/// Two sessions that have shaken hands.
pub(super) struct RecordLayer {
    client: UnbufferedClientConnection,
    server: UnbufferedServerConnection,
}

/// CPU time for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageCost {
    pub(super) encrypt: Duration,
    pub(super) decrypt: Duration,
}

impl RecordLayer {
    pub(super) fn new(certificates: &Certificates) -> io::Result<Self> {
        let [cert, key] = ["server.pem", "server.pem.key"].map(|name| certificates.path(name));
        let (client, server) = (Arc::clone(&certificates.client.0), tls::server(&cert, &key, None)?);
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let client = UnbufferedClientConnection::new(client, name).map_err(io::Error::other)?;
        let server = UnbufferedServerConnection::new(server).map_err(io::Error::other)?;
        let mut layer = Self { client, server };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        loop {
            advance(&mut layer.client, &mut to_client, &mut to_server)?;
            advance(&mut layer.server, &mut to_server, &mut to_client)?;
            if to_client.is_empty() {
                return Ok(layer);
            }
        }
    }

    /// The mean over many messages of this size.
    pub(super) fn cost(&mut self, bytes: usize) -> io::Result<MessageCost> {
        let message = vec![b'm'; bytes];
        // Each record of 16 KiB adds some 22 bytes.
        let mut wires = vec![vec![0; bytes + bytes / 512 + 64]; BATCH];
        let (mut encrypt, mut decrypt) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..BATCHES {
            let mut lengths = [0; BATCH];
            let begun = cpu_time();
            for (wire, length) in wires.iter_mut().zip(&mut lengths) {
                let ConnectionState::WriteTraffic(mut traffic) =
                    self.client.process_tls_records(&mut []).state.map_err(io::Error::other)?
                else {
                    return Err(io::Error::other("the session cannot write"));
                };
                *length = traffic.encrypt(&message, wire).map_err(io::Error::other)?;
            }
            let encrypted = cpu_time();
            for (wire, length) in wires.iter_mut().zip(lengths) {
                let wire = wire.get_mut(..length).unwrap_or_default();
                if read(&mut self.server, wire, &mut Vec::new())?.plaintext != bytes {
                    return Err(io::Error::other("a message was not decrypted whole"));
                }
            }
            decrypt += cpu_time() - encrypted;
            encrypt += encrypted - begun;
        }
        let all = BATCHES * u32::try_from(BATCH).unwrap_or(u32::MAX);
        Ok(MessageCost { encrypt: encrypt / all, decrypt: decrypt / all })
    }
}

/// Either side.
trait Side {
    type Data;

    fn process<'c, 'i>(&'c mut self, wire: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, wire: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(wire)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, wire: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(wire)
    }
}

/// Bytes that a side took from the wire, and the plaintext in them.
#[derive(Default)]
struct Taken {
    wire: usize,
    plaintext: usize,
}

/// Has a side take what came and say what it has to say.
fn advance(side: &mut impl Side, came: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
    let taken = read(side, came, out)?;
    came.drain(..taken.wire);
    Ok(())
}

fn read(side: &mut impl Side, wire: &mut [u8], out: &mut Vec<u8>) -> io::Result<Taken> {
    let mut taken = Taken::default();
    loop {
        let rest = wire.get_mut(taken.wire..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = side.process(rest);
        taken.wire += discard;
        match state.map_err(io::Error::other)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(io::Error::other)?;
                    taken.wire += record.discard;
                    taken.plaintext += record.payload.len();
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let begin = out.len();
                let needed = match data.encode(&mut []) {
                    Err(EncodeError::InsufficientSize(error)) => error.required_size,
                    other => other.map_err(io::Error::other)?,
                };
                out.resize(begin + needed, 0);
                data.encode(out.get_mut(begin..).unwrap_or_default()).map_err(io::Error::other)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            _ => return Ok(taken),
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_messages_cost_more() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::issue(dir.path()).unwrap();
        let mut layer = RecordLayer::new(&certificates).unwrap();
        let [short, long] = [100, 100_000].map(|bytes| layer.cost(bytes).unwrap());
        assert!(short.encrypt > Duration::ZERO && short.decrypt > Duration::ZERO, "{short:?}");
        assert!(long.encrypt > short.encrypt && long.decrypt > short.decrypt, "{short:?} {long:?}");
    }
}
