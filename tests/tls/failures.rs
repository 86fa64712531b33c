//! Ends that are none, bytes that are no TLS, and peers that do not stop.

use tenantry::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_INCOMING_BYTES_MAX};
use tenantry::tls::error::{Fault, SessionError};
use tenantry::tls::session::{Handshake, PLAIN_HTTP_REPLY, Progress, Session};

use super::pair::{End, Pair};
use super::{VERSIONS, World};

#[test]
fn an_end_behind_a_close_notify_is_an_end() {
    for (version, _) in VERSIONS {
        let (client, server) = World::with_version(version).load();
        let mut pair = Pair::connected(&client, &server, "localhost");
        let mut sent = pair.client.encrypt(&[b"request"]).unwrap();
        pair.client.session.close(&mut pair.client.outgoing);
        sent.extend(pair.client.sent());
        pair.client.session.close(&mut pair.client.outgoing);
        assert!(pair.client.outgoing.is_empty(), "once is enough");
        sent.extend_from_slice(b"behind the end nothing counts");
        pair.server.deliver(&sent, usize::MAX).unwrap();
        assert_eq!((&pair.server.plaintext[..], pair.server.ended), (&b"request"[..], true));
        assert_eq!(pair.server.session.ended(), Ok(()));
        assert!(pair.server.session.has_pending(), "waiting for more would be in vain");
        // The other direction is still open (RFC 8446 section 6.1).
        assert_eq!(pair.reply(&[b"reply"], usize::MAX), Ok(b"reply".to_vec()));
        pair.server.session.close(&mut pair.server.outgoing);
        let last = pair.server.sent();
        pair.client.deliver(&last, usize::MAX).unwrap();
        assert!(pair.client.ended);
        let refused = pair.client.session.encrypt([&b"more"[..]], 100, &mut pair.client.outgoing);
        assert_eq!(refused, Err(SessionError::Closed));
    }
}

#[test]
fn an_end_without_a_close_notify_is_a_truncation() {
    let (client, server) = World::new().load();
    let mut pair = Pair::new(&client, &server, "localhost");
    assert_eq!(pair.server.session.ended(), Err(SessionError::EndedInHandshake));
    let mut pair2 = Pair::connected(&client, &server, "localhost");
    assert_eq!(pair2.send(&[b"request"], usize::MAX), Ok(b"request".to_vec()));
    assert_eq!(pair2.server.session.ended(), Err(SessionError::Truncated));
    let read = pair2.server.session.read(&mut Vec::new(), 10, &mut pair2.server.outgoing);
    assert_eq!(read, Err(SessionError::Truncated), "and it stays one");
    // The other direction is still open: a request that timed out is answered. It ends properly, and only once.
    assert_eq!(pair2.reply(&[b"reply"], usize::MAX), Ok(b"reply".to_vec()));
    for ended in [true, false] {
        pair2.server.session.close(&mut pair2.server.outgoing);
        let last = pair2.server.sent();
        assert_eq!(!last.is_empty(), ended);
        pair2.client.deliver(&last, usize::MAX).unwrap();
        assert!(pair2.client.ended);
    }
    pair.client.drive().unwrap();
    assert_eq!(pair.client.session.ended(), Err(SessionError::EndedInHandshake));
}

#[test]
fn every_bit_that_is_changed_is_found() {
    for (version, _) in VERSIONS {
        let (client, server) = World::with_version(version).load();
        // TLS 1.3 gives no meaning to the type and version of an encrypted record (RFC 8446 section 5.2), and rustls
        // does not look at them.
        for at in if version == "TLS13" { 3..40 } else { 0..40 } {
            let mut pair = Pair::connected(&client, &server, "localhost");
            let mut sent = pair.client.encrypt(&[b"a request"]).unwrap();
            let Some(byte) = sent.get_mut(at) else { break };
            *byte ^= 1 << (at % 8);
            let result = pair.server.deliver(&sent, usize::MAX);
            assert_eq!(pair.server.plaintext, b"", "{version} {at}");
            // A length that has grown waits for more; a type that is unknown may need no decryption to be refused.
            let (result, ended) = (result, pair.server.session.ended());
            assert!(ended.is_err(), "{version} {at}");
            if let Err(error) = result {
                assert!(matches!(error, SessionError::Protocol(_)), "{version} {at}: {error}");
                assert_eq!(ended, Err(error), "it stays the reason");
                assert!(!pair.server.outgoing.is_empty(), "{version} {at}: the alert is to be sent");
                let alert = pair.server.sent();
                let heard = pair.client.deliver(&alert, usize::MAX).unwrap_err();
                assert!(matches!(heard, SessionError::Refused(_)), "{version} {at}: {heard}");
            }
        }
    }
}

#[test]
fn plaintext_before_an_error_is_given_first() {
    let (client, server) = World::new().load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    let mut sent = pair.client.encrypt(&[b"good"]).unwrap();
    let good = sent.len();
    sent.extend(pair.client.encrypt(&[b"bad"]).unwrap());
    sent[good + 7] ^= 1;
    let (mut buffer, _) = pair.server.session.lend();
    buffer.extend_from_slice(&sent);
    pair.server.session.received(buffer);
    let (mut got, server) = (Vec::new(), &mut pair.server);
    assert_eq!(server.session.read(&mut got, 100, &mut server.outgoing), Ok(Progress::Plaintext(4)));
    let error = server.session.read(&mut got, 100, &mut server.outgoing).unwrap_err();
    assert_eq!((error.fault(), error.label()), (Fault::Peer, "protocol"));
    assert_eq!(server.session.read(&mut got, 100, &mut server.outgoing), Err(error.clone()));
    assert_eq!(server.session.encrypt([&b"x"[..]], 100, &mut server.outgoing), Err(error));
    assert_eq!(got, b"good");
}

#[test]
fn plain_http_gets_an_answer_in_plain_http() {
    let (client, server) = World::new().load();
    for (text, chunk) in
        [("GET / HTTP/1.1\r\n\r\n", 1), ("POST /push HTTP/1.1\r\n", 99), ("PRI * HTTP/2.0\r\n", 3)]
    {
        let mut end = End::server(&server);
        assert_eq!(end.deliver(text.as_bytes(), chunk), Err(SessionError::PlainHttp));
        assert_eq!(end.sent(), PLAIN_HTTP_REPLY);
        assert_eq!(end.session.handshake(&mut end.outgoing), Err(SessionError::PlainHttp));
        assert!(end.outgoing.is_empty(), "it is said once");
    }
    let reply = String::from_utf8(PLAIN_HTTP_REPLY.to_vec()).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}\r\n", body.len()))
    );
    let mut end = End::client(&client, "localhost");
    end.drive().unwrap();
    end.sent();
    assert_eq!(end.deliver(b"HTTP/1.1 400 Bad Request\r\n", usize::MAX), Err(SessionError::PlainHttp));
    assert!(end.outgoing.is_empty(), "a server is not answered");
}

#[test]
fn garbage_is_refused_with_an_alert() {
    let (_, server) = World::new().load();
    for garbage in
        [&b"\0\0\0\0\0\0\0\0"[..], b"\x80\x2e\x01\0\x02\0\x15\0\0\0", b"ssh-2.0-x\r\n", &[0xff; 30]]
    {
        let mut end = End::server(&server);
        let error = end.deliver(garbage, usize::MAX).unwrap_err();
        assert_eq!((error.fault(), error.label()), (Fault::Peer, "protocol"), "{garbage:?}");
        assert_eq!(end.sent()[0], 21, "an alert (RFC 8446 section 5.1)");
    }
}

/// Handshake records with the beginning of a message that is as long as rustls allows.
fn endless_hello(record_bytes: usize, records: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0xff, 0xff];
    message.resize(record_bytes * records, 0);
    let cut = message.chunks(record_bytes);
    cut.flat_map(|part| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat()).collect()
}

#[test]
fn a_handshake_that_does_not_end_is_refused() {
    let (_, server) = World::new().load();
    for (record_bytes, records) in [(1, 20_000), (100, 1_000), (16_000, 5)] {
        let mut end = End::server(&server);
        let hello = endless_hello(record_bytes, records);
        let mut taken = 0;
        let error = loop {
            let (mut buffer, room) = end.session.lend();
            assert!(room <= TLS_INCOMING_BYTES_MAX && room > buffer.len());
            let now = (room - buffer.len()).min(hello.len() - taken);
            assert!(now > 0, "it took all of {} bytes", hello.len());
            buffer.extend_from_slice(&hello[taken..taken + now]);
            taken += now;
            end.session.received(buffer);
            match end.session.handshake(&mut end.outgoing) {
                Ok(state) => assert_eq!(state, Handshake::Blocked),
                Err(e) => break e,
            }
        };
        assert!(taken <= TLS_HANDSHAKE_BYTES_MAX + 5_000, "{taken}");
        assert_eq!(error.fault(), Fault::Peer, "{error}");
    }
}

#[test]
fn a_client_that_says_nothing_costs_little() {
    let (_, server) = World::new().load();
    let mut sessions: Vec<_> = (0..100).map(|_| Session::server(server.config().clone()).unwrap()).collect();
    for session in &mut sessions {
        assert!(!session.has_pending() && session.is_handshaking());
        assert!(session.reclaim().is_none(), "it holds no memory for reads");
    }
    assert!(size_of::<Session>() < 2_048, "{}", size_of::<Session>());
}

/// Sends messages that are answered, or ignored, for ever.
#[test]
fn warnings_and_empty_records_do_not_go_on_for_ever() {
    let (client, server) = World::with_version("TLS12").load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    // An unencrypted warning is an error in a session that is encrypted.
    assert!(pair.server.deliver(&[21, 3, 3, 0, 2, 1, 90].repeat(5), usize::MAX).is_err());
    let mut end = End::server(&server);
    let empty = [22, 3, 1, 0, 0].repeat(100);
    assert!(matches!(end.deliver(&empty, usize::MAX), Err(SessionError::Protocol(_))));
}
