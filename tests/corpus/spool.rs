//! Segments of the spool, and payloads of their records.

use tenantry::http::Passed;
use tenantry::model::{HaReplica, MergeKey, Part, Protocol};
use tenantry::spool::record::{self, HEADER_BYTES, Header, PART, REMOVED};
use tenantry::spool::{Sequence, Spooled};
use tenantry::tenant::{IdRules, TenantId};

use super::Seeds;

const HEADER: Header = Header { number: 1, sequence: Sequence(7) };

fn plain() -> Spooled {
    let part = Part {
        tenant: TenantId::new("acme", IdRules::Mimir).unwrap(),
        protocol: Protocol::RemoteWriteV1,
        elements: b"\x04elements"[..].into(),
        coding: tenantry::model::Coding::SNAPPY,
        inflated_bytes: 9,
        series: 1,
        samples: 2,
        histograms: 0,
        exemplars: 0,
        merge: MergeKey::Ha(None),
    };
    let client = "10.0.0.1:9".parse().unwrap();
    Spooled { upstream: "".into(), part, passed: None, client, request_id: 3, spooled_at: 1_700_000_000_000 }
}

fn rich() -> Spooled {
    let ha = HaReplica { cluster: b"c"[..].into(), replica: b"r"[..].into() };
    let part = Part {
        protocol: Protocol::Loki,
        merge: MergeKey::Ha(Some(Box::new(ha))),
        elements: Vec::new().into(),
        coding: tenantry::model::Coding::SNAPPY,
        ..plain().part
    };
    let parent =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n";
    let passed = Passed::decode(&[b"\x08\0\0\0X-A: 1\r\n", parent.as_bytes()].concat());
    let client = "[2001:db8::1]:443".parse().unwrap();
    Spooled { upstream: "east".into(), part, passed, client, ..plain() }
}

fn payload(spooled: &Spooled) -> Vec<u8> {
    let mut bytes = Vec::new();
    spooled.encode(&mut bytes).unwrap();
    bytes
}

fn segment(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = HEADER.encode().to_vec();
    for (at, (kind, payload)) in records.iter().enumerate() {
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(payload);
            Ok(())
        };
        record::put(&mut bytes, Sequence(at as u64 + 7), *kind, put).unwrap();
    }
    record::seal(&mut bytes[HEADER_BYTES..], HEADER.seed());
    bytes
}

pub(crate) fn seeds() -> Seeds {
    let alone = Spooled { part: Part { merge: MergeKey::Alone, ..plain().part }, ..plain() };
    let removed = b"\0\0\0\0\x04\0\0\0acme\x01".to_vec();
    let two = segment(&[(PART, payload(&plain())), (PART, payload(&rich())), (REMOVED, removed)]);
    let torn = two[..two.len() - 5].to_vec();
    let mut changed = two.clone();
    changed[60] ^= 1;
    let mut version = two.clone();
    version[8] = 2;
    vec![
        ("part-plain", payload(&plain())),
        ("part-rich", payload(&rich())),
        ("part-alone", payload(&alone)),
        ("part-cut-short", payload(&rich())[..30].to_vec()),
        ("segment-new", segment(&[])),
        ("segment-of-two-and-a-removal", two),
        ("segment-torn", torn),
        ("segment-changed", changed),
        ("segment-of-another-version", version),
        ("segment-kind-unknown", segment(&[(9, Vec::new())])),
        ("segment-absurd-length", [&HEADER.encode()[..], &[0xff; 40]].concat()),
        ("segment-zeros-behind", [&HEADER.encode()[..], &[0; 40]].concat()),
        ("header-torn", HEADER.encode()[..20].to_vec()),
        ("nothing", Vec::new()),
    ]
}
