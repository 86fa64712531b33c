//! However bytes are cut, on the wire or by the reader's room: plaintext arrives whole and in order.

use proptest::prelude::*;
use tenantry::limits::{
    TLS_INCOMING_BYTES_MAX, TLS_READ_BYTES, TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD_BYTES_MAX,
    TLS_RECORD_WIRE_BYTES_MAX, TLS_STEP_BYTES_MAX,
};
use tenantry::tls::outgoing::Outgoing;
use tenantry::tls::session::{Handshake, Progress};

use super::pair::{End, Pair};
use super::{VERSIONS, World};

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

fn slices(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().enumerate().map(|(i, bytes)| (0..*bytes).map(|k| (i * 7 + k) as u8).collect()).collect()
}

/// The lengths of the records in `wire`.
fn records(mut wire: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    while let [_, _, _, high, low, ..] = wire {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        found.push(length);
        wire = &wire[5 + length..];
    }
    assert!(wire.is_empty());
    found
}

#[test]
fn one_byte_at_a_time_is_enough() {
    for (version, _) in VERSIONS {
        let (client, server) = World::with_version(version).load();
        let mut pair = Pair::new(&client, &server, "localhost");
        assert_eq!(pair.shake_in(1), (Ok(()), Ok(())));
        let request = text(40_000);
        assert_eq!(pair.send(&[&request], 1), Ok(request.clone()));
        assert_eq!(pair.reply(&[&request[..100]], 1), Ok(request[..100].to_vec()));
    }
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_pending_until_it_is_read() {
    let (client, server) = World::new().load();
    let mut pair = Pair::new(&client, &server, "localhost");
    pair.client.drive().unwrap();
    let hello = pair.client.sent();
    pair.server.deliver(&hello, usize::MAX).unwrap();
    let flight = pair.server.sent();
    pair.client.deliver(&flight, usize::MAX).unwrap();
    let request = text(2_000);
    let sent = pair.client.encrypt(&[&request]).unwrap();
    let (mut buffer, end) = pair.server.session.lend();
    assert!(sent.len() <= end);
    buffer.extend_from_slice(&sent);
    let server = &mut pair.server;
    server.session.received(buffer);
    assert_eq!(server.session.handshake(&mut server.outgoing), Ok(Handshake::Done));
    assert!(server.session.has_pending());
    let mut early = Outgoing::default();
    assert_eq!(server.session.encrypt([&b"reply"[..]], 100, &mut early), Ok(5), "a reply may come first");
    let mut got = Vec::new();
    assert_eq!(server.session.read(&mut got, 500, &mut server.outgoing), Ok(Progress::Plaintext(500)));
    assert!(server.session.has_pending());
    assert_eq!(server.session.read(&mut got, 5_000, &mut server.outgoing), Ok(Progress::Plaintext(1_500)));
    assert_eq!(got, request);
    assert!(!server.session.has_pending());
    assert_eq!(server.session.read(&mut got, 5_000, &mut server.outgoing), Ok(Progress::Blocked));
}

#[test]
fn a_large_write_goes_out_in_full_records_and_in_steps() {
    for (version, _) in VERSIONS {
        let (client, server) = World::with_version(version).load();
        let mut pair = Pair::connected(&client, &server, "localhost");
        let parts = slices(&[300, 250_000, 7, 0, 350_000, 20]);
        let all = parts.concat();
        let mut session = pair.client.session;
        let mut outgoing = Outgoing::default();
        let step = session.encrypt(parts.iter().map(Vec::as_slice), usize::MAX, &mut outgoing).unwrap();
        assert_eq!(step, TLS_STEP_BYTES_MAX);
        let full = records(outgoing.as_slice());
        assert_eq!(full.len(), TLS_STEP_BYTES_MAX / TLS_RECORD_BYTES);
        let overhead = full[0] - TLS_RECORD_BYTES;
        assert!(full.iter().all(|length| *length == TLS_RECORD_BYTES + overhead), "{full:?}");
        assert!(5 + overhead <= TLS_RECORD_OVERHEAD_BYTES_MAX);
        assert_eq!(session.encrypt([&all[..]], usize::MAX, &mut outgoing), Ok(0), "that has to go first");
        pair.server.deliver(outgoing.as_slice(), TLS_READ_BYTES).unwrap();
        outgoing.clear();
        pair.client = End { session, outgoing, plaintext: Vec::new(), ended: false };
        let rest = pair.client.encrypt(&[&all[step..]]).unwrap();
        let lengths = records(&rest);
        let (last, others) = lengths.split_last().unwrap();
        assert!(others.iter().all(|length| *length == TLS_RECORD_BYTES + overhead), "{lengths:?}");
        assert_eq!(*last, (all.len() - step) % TLS_RECORD_BYTES + overhead);
        pair.server.deliver(&rest, TLS_READ_BYTES).unwrap();
        assert!(pair.server.plaintext == all);
    }
}

#[test]
fn what_is_asked_for_bounds_what_is_encrypted_to_full_records() {
    let (client, server) = World::new().load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    let (all, session) = (text(200_000), &mut pair.client.session);
    for (asked, expected) in
        [(1, 1), (TLS_RECORD_BYTES, 1), (2 * TLS_RECORD_BYTES - 1, 1), (3 * TLS_RECORD_BYTES, 3)]
    {
        let mut outgoing = Outgoing::default();
        assert_eq!(
            session.encrypt([&all[..]], asked, &mut outgoing),
            Ok(expected * TLS_RECORD_BYTES),
            "{asked}"
        );
    }
    let mut outgoing = Outgoing::default();
    assert_eq!(session.encrypt([], 100, &mut outgoing), Ok(0));
    assert_eq!(session.encrypt([&b""[..], b""], 100, &mut outgoing), Ok(0));
    assert!(outgoing.is_empty());
}

#[test]
fn one_read_gives_a_step_at_most_and_what_is_held_is_bounded() {
    let (client, server) = World::new().load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    let request = text(TLS_STEP_BYTES_MAX + 100_000);
    let sent = pair.client.encrypt(&[&request]).unwrap();
    let (mut wire, mut got) = (&sent[..], Vec::with_capacity(request.len()));
    let server = &mut pair.server;
    while got.len() < request.len() {
        let (mut buffer, end) = server.session.lend();
        assert!(end <= TLS_INCOMING_BYTES_MAX && end >= buffer.len() + TLS_READ_BYTES);
        assert!(buffer.len() < TLS_RECORD_WIRE_BYTES_MAX, "only a part of a record is left");
        let now = wire.len().min(end - buffer.len());
        buffer.extend_from_slice(&wire[..now]);
        wire = &wire[now..];
        server.session.received(buffer);
        while let Progress::Plaintext(n) =
            server.session.read(&mut got, usize::MAX / 2, &mut server.outgoing).unwrap()
        {
            assert!(n <= TLS_STEP_BYTES_MAX);
        }
    }
    assert!(got == request);
}

#[test]
fn memory_goes_back_to_the_pool_when_nothing_is_left_in_it() {
    let (client, server) = World::new().load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    assert_eq!(pair.send(&[b"request"], usize::MAX), Ok(b"request".to_vec()));
    let memory = pair.server.session.reclaim().expect("all has been read");
    assert!(pair.server.session.reclaim().is_none());
    assert!(pair.server.session.offer(memory).is_none());
    let sent = pair.client.encrypt(&[b"another"]).unwrap();
    pair.server.deliver(&sent[..9], usize::MAX).unwrap();
    assert!(pair.server.session.reclaim().is_none(), "a part of a record is in it");
    pair.server.deliver(&sent[9..], usize::MAX).unwrap();
    assert_eq!(pair.server.plaintext, b"another");
}

#[test]
fn renewed_keys_change_nothing() {
    let (client, server) = World::with_version("TLS13").load();
    let mut pair = Pair::connected(&client, &server, "localhost");
    for round in 0..50_u8 {
        assert_eq!(pair.send(&[&[round; 100]], 7), Ok(vec![round; 100]));
        assert_eq!(pair.reply(&[&[round; 10]], 7), Ok(vec![round; 10]));
    }
}

#[derive(Clone, Debug)]
struct Cuts {
    slices: Vec<usize>,
    wire: Vec<usize>,
    rooms: Vec<usize>,
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let length = prop_oneof![0..50_usize, 16_300..16_500_usize, 0..60_000_usize];
    let wire = prop_oneof![1..10_usize, 1..5_000_usize, 16_000..17_000_usize, 1..100_000_usize];
    let room = prop_oneof![1..20_usize, 1..20_000_usize, 1..200_000_usize];
    (
        prop::collection::vec(length, 1..8),
        prop::collection::vec(wire, 1..10),
        prop::collection::vec(room, 1..10),
    )
        .prop_map(|(slices, wire, rooms)| Cuts { slices, wire, rooms })
}

/// Sends `cuts.slices` from one end to the other, cut on the wire, into rooms of these sizes.
fn through(from: &mut End, to: &mut End, cuts: &Cuts) -> Vec<u8> {
    let parts = slices(&cuts.slices);
    let sent = from.encrypt(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let (mut wire, mut got) = (&sent[..], Vec::new());
    let (mut sizes, mut rooms) = (cuts.wire.iter().cycle(), cuts.rooms.iter().cycle());
    loop {
        let end = got.len() + rooms.next().unwrap();
        match to.session.read(&mut got, end, &mut to.outgoing).unwrap() {
            Progress::Plaintext(n) => assert!(n > 0 && got.len() <= end),
            Progress::Ended => panic!("neither side has closed"),
            Progress::Blocked if wire.is_empty() => return got,
            Progress::Blocked => {
                let (mut buffer, end) = to.session.lend();
                let now = wire.len().min(*sizes.next().unwrap()).min(end - buffer.len());
                buffer.extend_from_slice(&wire[..now]);
                wire = &wire[now..];
                to.session.received(buffer);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plaintext_arrives_whole_and_in_order(
        up in cuts(), down in cuts(), shake in 1..3_000_usize, version in 0..2_usize,
    ) {
        let (client, server) = World::with_version(VERSIONS[version].0).load();
        let mut pair = Pair::new(&client, &server, "localhost");
        prop_assert_eq!(pair.shake_in(shake), (Ok(()), Ok(())));
        let Pair { client, server } = &mut pair;
        prop_assert!(through(client, server, &up) == slices(&up.slices).concat());
        prop_assert!(through(server, client, &down) == slices(&down.slices).concat());
        prop_assert!(through(client, server, &down) == slices(&down.slices).concat());
    }
}
