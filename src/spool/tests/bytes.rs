//! The bytes of records and segments, by hand.

use bytes::Bytes;

use crate::http::Passed;
use crate::model::{Coding, Compression, Destination, HaReplica, MergeKey, Part, Protocol};
use crate::spool::record::{self, HEADER_BYTES, Header, HeaderFault, Next, Record};
use crate::spool::stream::tenant;
use crate::spool::{Malformed, Sequence, Spooled, Stream};

fn passed() -> Passed {
    Passed::decode(b"\x06\0\0\0X: 1\r\n").unwrap()
}

fn full() -> Spooled {
    let ha = HaReplica { cluster: b"c\xff"[..].into(), replica: b"r"[..].into() };
    let part = Part {
        tenant: tenant("acme").unwrap(),
        protocol: Protocol::RemoteWriteV2,
        // A stale marker's NaN is bytes like any others.
        elements: Bytes::from_static(b"\x02\0\0\0\0\xf0\x7f"),
        coding: Coding::SNAPPY,
        inflated_bytes: 0x0403_0201,
        series: 5,
        samples: 6,
        histograms: 7,
        exemplars: 8,
        merge: MergeKey::Ha(Some(Box::new(ha))),
    };
    Spooled {
        upstream: "east".into(),
        part,
        passed: Some(passed()),
        client: "10.1.2.3:258".parse().unwrap(),
        request_id: 0x1122,
        spooled_at: 0x0a0b,
    }
}

/// The bytes of `full`, field by field.
fn full_bytes() -> Vec<u8> {
    let fields: [&[u8]; 18] = [
        b"\x04\0\0\0east",
        b"\x04\0\0\0acme",
        b"\x02",
        b"\x01\x02\x03\x04",
        b"\x05\0\0\0",
        b"\x06\0\0\0",
        b"\x07\0\0\0",
        b"\x08\0\0\0",
        b"\x02\x02\0\0\0c\xff",
        b"\x01\0\0\0r",
        b"\x01\x0a\0\0\0",
        b"\x06\0\0\0X: 1\r\n",
        b"\x04\x0a\x01\x02\x03",
        b"\x02\x01",
        b"\x22\x11\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x0b\x0a\0\0\0\0\0\0",
        b"\x02\0\0\0\0",
        b"\xf0\x7f",
    ];
    fields.concat()
}

fn encoded(spooled: &Spooled) -> Vec<u8> {
    let mut bytes = Vec::new();
    spooled.encode(&mut bytes).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Spooled, Malformed> {
    Spooled::decode(&Bytes::copy_from_slice(bytes))
}

#[test]
fn a_spooled_part_has_these_bytes() {
    assert_eq!(encoded(&full()), full_bytes());
    assert_eq!(decoded(&full_bytes()), Ok(full()));
}

#[test]
fn every_value_of_a_field_is_kept() {
    let mut all = vec![full()];
    for protocol in [Protocol::RemoteWriteV1, Protocol::Loki, Protocol::LokiJson] {
        all.push(Spooled { part: Part { protocol, ..full().part }, ..full() });
    }
    let compressions = [Compression::Snappy, Compression::Zstd, Compression::Gzip, Compression::Identity];
    for protocol in Protocol::ALL.into_iter().filter(|protocol| protocol.export().is_some()) {
        for coding in compressions.into_iter().flat_map(|now| compressions.map(|sent| Coding { now, sent })) {
            all.push(Spooled { part: Part { protocol, coding, ..full().part }, ..full() });
        }
    }
    for merge in [MergeKey::Alone, MergeKey::Ha(None)] {
        all.push(Spooled { part: Part { merge, ..full().part }, ..full() });
    }
    for client in ["[2001:db8::1]:65535", "[fe80::1%7]:1"] {
        all.push(Spooled { client: client.parse().unwrap(), ..full() });
    }
    // Those of each rule for IDs, even if another one is set now.
    for id in ["a!-_.*'()", "4294967295:1", "a:b@c", &"a".repeat(256), "__mimir_cluster"] {
        all.push(Spooled { part: Part { tenant: tenant(id).unwrap(), ..full().part }, ..full() });
    }
    all.push(Spooled { upstream: "".into(), passed: None, ..full() });
    all.push(Spooled { part: Part { elements: Bytes::new(), ..full().part }, ..full() });
    all.push(Spooled { request_id: u128::MAX, spooled_at: u64::MAX, ..full() });
    for spooled in all {
        assert_eq!(decoded(&encoded(&spooled)).as_ref(), Ok(&spooled));
    }
}

#[test]
fn the_elements_are_not_copied() {
    let bytes = Bytes::from(full_bytes());
    let elements = Spooled::decode(&bytes).unwrap().part.elements;
    assert_eq!(elements.as_ptr(), bytes[bytes.len() - 7..].as_ptr());
}

#[test]
fn what_is_mangled_is_refused_with_its_field() {
    let bytes = full_bytes();
    let elements = bytes.len() - full().part.elements.len();
    for cut in 0..elements {
        assert!(decoded(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(decoded(&bytes[..elements]).is_ok());
    let at = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what).unwrap();
    for (at, byte, reason) in [
        (4, 0xff, "a text is not UTF-8"),
        (3, 0xff, "it ends within a field"),
        (12, b'/', "its tenant is not an ID"),
        (16, 0, "its protocol is unknown"),
        (16, 11, "its protocol is unknown"),
        (at(b"\x02\x02\0\0\0c"), 3, "its merge key is unknown"),
        (at(b"\x01\x0a\0\0\0\x06"), 2, "its headers are neither there nor absent"),
        (at(b"\x06\0\0\0X"), 5, "its headers cannot be passed on"),
        (at(b"X: 1"), b'\n', "its headers cannot be passed on"),
        (at(b"\x04\x0a\x01\x02\x03"), 5, "its client's address is of an unknown kind"),
    ] {
        let mut mangled = bytes.clone();
        mangled[at] = byte;
        assert_eq!(decoded(&mangled).unwrap_err().to_string(), reason, "byte {at}");
    }
}

#[test]
fn a_stream_has_these_bytes() {
    let stream = Stream { upstream: "".into(), destination: Destination::Logs, tenant: tenant("a").unwrap() };
    let mut bytes = Vec::new();
    stream.encode(&mut bytes).unwrap();
    assert_eq!(bytes, b"\0\0\0\0\x01\0\0\0a\x02");
    assert_eq!(Stream::decode(&bytes), Ok(stream));
    for wrong in [&b""[..], b"\0\0\0\0\x01\0\0\0a\x06", b"\0\0\0\0\x01\0\0\0a\x02\0", b"\0\0\0\0\0\0\0\0\x01"]
    {
        assert!(Stream::decode(wrong).is_err(), "{wrong:?}");
    }
}

const HEADER: Header = Header { number: 0x1a, sequence: Sequence(0x0201) };

#[test]
fn a_header_has_these_bytes() {
    let bytes = HEADER.encode();
    let fields = [&b"TNTSPOOL"[..], b"\x01\0\0\0", b"\x1a\0\0\0\0\0\0\0", b"\x01\x02\0\0\0\0\0\0"].concat();
    assert_eq!(bytes[..28], fields);
    assert_eq!(bytes[28..], HEADER.seed().to_le_bytes());
    // The check value of CRC-32C (RFC 3720, B.4: 32 bytes of zeros).
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(HEADER.seed(), crc32c::crc32c(&fields));
    assert_eq!(Header::decode(&bytes, 0x1a, 32), Ok(HEADER));
    assert_eq!(Header::decode(&bytes, 0x1a, 99), Ok(HEADER));
}

#[test]
fn a_header_is_torn_of_another_version_or_wrong() {
    let bytes = HEADER.encode();
    for cut in 0..HEADER_BYTES {
        assert_eq!(Header::decode(&bytes[..cut], 0x1a, cut as u64), Err(HeaderFault::Torn), "{cut}");
        let mut zeros = bytes;
        zeros[cut..].fill(0);
        let expected = if zeros == bytes { Ok(HEADER) } else { Err(HeaderFault::Torn) };
        assert_eq!(Header::decode(&zeros, 0x1a, 32), expected, "{cut}");
        // With records behind it, its creation had ended.
        let expected = if zeros == bytes { Ok(HEADER) } else { Err(HeaderFault::Wrong) };
        assert_eq!(Header::decode(&zeros, 0x1a, 33), expected, "{cut}");
    }
    assert_eq!(Header::decode(&bytes, 0x1b, 32), Err(HeaderFault::Wrong));
    assert_eq!(Header::decode(b"{}", 0x1a, 2), Err(HeaderFault::Wrong));
    let mut version = bytes;
    version[8] = 2;
    assert_eq!(Header::decode(&version, 0x1a, 32), Err(HeaderFault::Version(2)));
    for at in 0..HEADER_BYTES {
        let mut mangled = bytes;
        mangled[at] ^= 0x10;
        assert!(Header::decode(&mangled, 0x1a, 99).is_err(), "{at}");
    }
}

fn a_record(seed: u32) -> Vec<u8> {
    let mut bytes = vec![0xee];
    let put = |out: &mut Vec<u8>| {
        out.extend_from_slice(b"abc");
        Ok(())
    };
    assert_eq!(record::put(&mut bytes, Sequence(0x0102), 2, put), Ok(20));
    bytes.remove(0);
    record::seal(&mut bytes, seed);
    bytes
}

#[test]
fn a_record_has_these_bytes() {
    let bytes = a_record(7);
    let content = b"\x02\x01\0\0\0\0\0\0\x02abc";
    let checksum = crc32c::crc32c_append(7, content).to_le_bytes();
    assert_eq!(bytes, [&[12, 0, 0, 0][..], &checksum, content].concat());
    let expected = Record { sequence: Sequence(0x0102), kind: 2, payload: b"abc" };
    assert_eq!(record::next(&bytes, 7), Next::Record(expected));
    let two = [bytes.clone(), bytes.clone()].concat();
    assert_eq!(record::next(&two, 7), Next::Record(expected));
    assert_eq!(expected.bytes(), bytes.len());
    assert_eq!(record::next(&bytes, 8), Next::Wrong, "that of another segment");
}

#[test]
fn a_record_that_is_cut_or_changed_is_none() {
    let bytes = a_record(7);
    for cut in 0..bytes.len() {
        let needed = if cut < 8 { 17 } else { bytes.len() };
        assert_eq!(record::next(&bytes[..cut], 7), Next::More(needed), "{cut}");
    }
    for at in 0..bytes.len() * 8 {
        let mut mangled = bytes.clone();
        mangled[at / 8] ^= 1 << (at % 8);
        assert!(!matches!(record::next(&mangled, 7), Next::Record(_)), "bit {at}");
    }
    assert_eq!(record::next(&[0; 64], 7), Next::Wrong);
    assert_eq!(record::next(&[0; 64], 0), Next::Wrong);
    assert_eq!(record::next(&[0xff; 64], 7), Next::Wrong, "no length is too absurd");
}

#[test]
fn a_record_that_does_not_fit_leaves_nothing_behind() {
    let mut bytes = vec![1];
    let fails = |out: &mut Vec<u8>| {
        out.push(1);
        Err(Malformed("no"))
    };
    assert_eq!(record::put(&mut bytes, Sequence(1), 1, fails), Err(Malformed("no")));
    assert_eq!(bytes, [1]);
}
