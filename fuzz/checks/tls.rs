//! A peer's bytes, in any chunks, against our sessions. Nothing panics; what is held stays within its bounds; an error
//! stays the same error; and plaintext that comes out is what went in, as far as it comes.
//!
//! The first byte chooses what the others are, the second how they are cut:
//!
//! | first byte % 8 | the others |
//! |---|---|
//! | 0, 1 | raw bytes to a server; to a client that has sent its ClientHello |
//! | 2, 3 | the same, as records: each a type, a length and so many bytes |
//! | 4, 5 | changes to what an honest peer sends in the handshake: to the server; to the client |
//! | 6 | raw bytes to a server after the handshake |
//! | 7 | what an honest client does after the handshake, and changes to its bytes |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "../../tests/tls/pair.rs"]
mod pair;

use std::sync::LazyLock;

use pair::{End, Files, Pair, load_client, load_server};
use tenantry::limits::{TLS_INCOMING_BYTES_MAX, TLS_RECORD_BYTES};
use tenantry::tls::client::{ClientSettings, ClientTls};
use tenantry::tls::error::SessionError;
use tenantry::tls::names::Choices;
use tenantry::tls::server::{ServerSettings, ServerTls};
use tenantry::tls::session::Progress;
use testkit::pki::{Authority, Wanted};

/// What waits to be sent at most: a flight of the handshake, with certificates and tickets, and an alert.
const OUTGOING_BYTES_MAX: usize = 16_384;

/// Into how many pieces what an honest client sends is cut at most.
const DELIVERIES_MAX: usize = 512;

/// A server, a client that takes either version, and one that has TLS 1.2 only.
static CONFIGS: LazyLock<(ServerTls, [ClientTls; 2])> = LazyLock::new(|| {
    let authority = Authority::new("Fuzz CA").expect("is made");
    let mut files = Files::default();
    let issued = authority.issue(&Wanted::server(&["localhost"])).expect("is made");
    let certificates = vec![files.put_pair("server", &issued, "")];
    let ca = Some(files.put("ca.pem", &authority.certificate()));
    let clients = ["TLS13", "TLS12"].map(|version| {
        let choices = Choices { max_version: Some(version.into()), ..Choices::default() };
        load_client(&files, &ClientSettings { ca: ca.clone(), choices, ..ClientSettings::default() })
            .expect("loads")
    });
    (
        load_server(&files, &ServerSettings { certificates, ..ServerSettings::default() }).expect("loads"),
        clients,
    )
});

/// What the fuzz target does.
pub(crate) fn check(input: &[u8]) {
    let [what, cut, rest @ ..] = input else { return };
    let (server, clients) = &*CONFIGS;
    let client = &clients[usize::from(what >> 3 & 1)];
    let chunk = usize::from(*cut).pow(2).max(1);
    let begun = || {
        let mut end = End::client(client, "localhost");
        end.drive().expect("it only begins");
        end.sent();
        end
    };
    match what % 8 {
        0 => hostile(End::server(server), rest, chunk),
        1 => hostile(begun(), rest, chunk),
        2 => hostile(End::server(server), &as_records(rest), chunk),
        3 => hostile(begun(), &as_records(rest), chunk),
        4 => changed_handshake(client, server, rest, &[], chunk),
        5 => changed_handshake(client, server, &[], rest, chunk),
        6 => hostile(Pair::connected(client, server, "localhost").server, rest, chunk),
        _ => honest(Pair::connected(client, server, "localhost"), rest, chunk),
    }
}

/// Each two bytes are a record's type and length; so many bytes follow.
fn as_records(mut plan: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    while let [kind, length, rest @ ..] = plan {
        let (payload, later) = rest.split_at(rest.len().min(usize::from(*length)));
        let length = u16::try_from(payload.len()).expect("it came from a byte").to_be_bytes();
        wire.extend_from_slice(&[20 + kind % 5, 3, 3, length[0], length[1]]);
        wire.extend_from_slice(payload);
        plan = later;
    }
    wire
}

/// Delivers bytes of a peer that is not to be trusted.
fn hostile(mut end: End, bytes: &[u8], chunk: usize) {
    let result = deliver(&mut end, bytes, chunk);
    let ended = end.session.ended();
    if let Err(error) = result {
        assert_eq!(ended, Err(error), "it stays the reason");
    }
    let mut into = Vec::new();
    let again = end.session.read(&mut into, 100, &mut end.outgoing);
    assert!(again.is_err() == ended.is_err() || matches!(again, Ok(Progress::Plaintext(_))));
    end.session.close(&mut end.outgoing);
}

/// As `End::deliver`, and looks at the bounds.
fn deliver(end: &mut End, bytes: &[u8], chunk: usize) -> Result<(), SessionError> {
    for part in bytes.chunks(chunk.min(TLS_INCOMING_BYTES_MAX)) {
        let result = end.deliver(part, usize::MAX);
        assert!(end.outgoing.len() <= OUTGOING_BYTES_MAX, "{}", end.outgoing.len());
        result?;
        assert!(end.ended || !end.session.has_pending(), "it was driven until it was blocked");
        let (buffer, room) = end.session.lend();
        assert!(buffer.len() < room && room <= TLS_INCOMING_BYTES_MAX);
        end.session.received(buffer);
    }
    Ok(())
}

/// Each three bytes are a place, in two, and what it is changed by.
fn changed(mut wire: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        let length = wire.len();
        match change[2] {
            0 => wire.truncate(at),
            by if length > 0 => wire[at % length] ^= by,
            _ => {}
        }
    }
    wire
}

/// A handshake in which what the client sends first, and what the server answers, is changed.
fn changed_handshake(client: &ClientTls, server: &ServerTls, up: &[u8], down: &[u8], chunk: usize) {
    let mut pair = Pair::new(client, server, "localhost");
    pair.client.drive().expect("it only begins");
    let hello = changed(pair.client.sent(), up);
    let mut results = [Ok(()), deliver(&mut pair.server, &hello, chunk)];
    let answer = changed(pair.server.sent(), down);
    results[0] = deliver(&mut pair.client, &answer, chunk);
    for _ in 0..4 {
        let (up, down) = (pair.client.sent(), pair.server.sent());
        if results[1].is_ok() {
            results[1] = deliver(&mut pair.server, &up, chunk);
        }
        if results[0].is_ok() {
            results[0] = deliver(&mut pair.client, &down, chunk);
        }
    }
    if up.is_empty() && down.is_empty() {
        assert_eq!(results, [Ok(()), Ok(())]);
    }
}

/// Each two bytes are something that the client does, and how much of it.
fn honest(mut pair: Pair, plan: &[u8], chunk: usize) {
    let (mut sent, mut intact) = (Vec::new(), true);
    for step in plan.chunks_exact(2).take(64) {
        let (what, much) = (step[0], usize::from(step[1]));
        let mut wire = match what % 8 {
            0..=4 => {
                let text = vec![step[1]; much * much];
                sent.extend_from_slice(&text);
                let (first, second) = text.split_at(text.len() / 3);
                pair.client.encrypt(&[first, second]).expect("it is open")
            }
            5 => {
                let text = vec![step[1]; 4 * TLS_RECORD_BYTES];
                sent.extend_from_slice(&text);
                pair.client.encrypt(&[&text]).expect("it is open")
            }
            6 => {
                let reply = vec![step[1]; much];
                assert_eq!(pair.reply(&[&reply], chunk).ok(), Some(reply));
                continue;
            }
            _ => pair
                .client
                .encrypt(&[b"changed"])
                .map(|wire| [wire, vec![0; much]].concat())
                .expect("it is open"),
        };
        if what % 8 == 7 {
            intact = false;
            // Behind the header, of which TLS 1.3 ignores a part.
            wire[5 + much % 10] ^= 0x10;
        }
        // A record in single bytes takes longer than many short ones, and tells no more.
        let result = deliver(&mut pair.server, &wire, chunk.max(wire.len() / DELIVERIES_MAX));
        assert!(sent.starts_with(&pair.server.plaintext));
        if intact {
            assert_eq!(result, Ok(()));
            assert_eq!(sent.len(), pair.server.plaintext.len());
        } else {
            assert!(result.is_err());
            return;
        }
    }
    pair.client.session.close(&mut pair.client.outgoing);
    let last = pair.client.sent();
    assert_eq!(deliver(&mut pair.server, &last, chunk), Ok(()));
    assert!(pair.server.ended && pair.server.session.ended().is_ok());
}
