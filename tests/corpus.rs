//! Replays the fuzz corpora that are checked in: every input by the same check that the fuzzer runs.
//!
//! The seeds among them are put together here, each for one thing that a request can do. After a change,
//! `cargo test --test corpus -- --ignored` writes them anew. An input that once was a finding is kept beside
//! them under a name that says what it found.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[path = "../fuzz/checks/http_head.rs"]
mod http_head;
#[path = "../fuzz/checks/scan.rs"]
mod scan;
#[path = "../fuzz/checks/snappy.rs"]
mod snappy;

use std::path::PathBuf;

type Check = fn(&[u8]);
type Seeds = Vec<(&'static str, Vec<u8>)>;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs `check` over every file of a target's corpus, and sees that the seeds are among them.
fn replay(target: &str, check: Check, seeds: Seeds) {
    for (name, bytes) in seeds {
        assert_eq!(std::fs::read(corpus(target).join(name)).unwrap(), bytes, "{target}/{name}");
    }
    for entry in std::fs::read_dir(corpus(target)).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
    }
}

/// These seeds are text: each file is its own source.
#[test]
fn http_head_corpus() {
    replay("http_head", http_head::check, Vec::new());
}

#[test]
fn scan_corpus() {
    replay("scan", scan::check, scan_seeds());
}

#[test]
fn snappy_corpus() {
    replay("snappy", snappy::check, snappy_seeds());
}

#[test]
#[ignore = "writes the seeds into fuzz/corpus"]
fn write_seeds() {
    for (target, seeds) in [("scan", scan_seeds()), ("snappy", snappy_seeds())] {
        std::fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}

/// A length-delimited field with a number below 16 and less than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 0x80);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn series(fields: &[Vec<u8>]) -> Vec<u8> {
    field(1, &fields.concat())
}

/// A sample with the value whose bits are given, at time 1.
fn sample(value: u64) -> Vec<u8> {
    field(2, &[&[0x09][..], &value.to_le_bytes(), &[0x10, 1]].concat())
}

/// Requests: `t`, then `tenant`, then the empty name are the labels that the check looks for, `c` and `r` those
/// that tell replicas apart.
fn scan_seeds() -> Seeds {
    const STALE: u64 = 0x7ff0_0000_0000_0002;
    let of = |tenant: &str| series(&[label("__name__", "up"), label("t", tenant), sample(STALE)]);
    let metadata = || field(3, &[&[0x08, 1][..], &field(2, b"up"), &field(4, b"help")].concat());
    let histogram = || field(4, &[0x08, 3, 0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    let exemplar = || field(3, &[label("trace_id", "1"), vec![0x11, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
    let group = || vec![5 << 3 | 3, 6 << 3 | 3, 0x08, 1, 6 << 3 | 4, 5 << 3 | 4];
    vec![
        ("one-tenant", [of("a"), of("a")].concat()),
        ("three-tenants-in-turn", [of("a"), of("b"), of("c"), of("b"), of("a")].concat()),
        ("five-tenants-are-too-many", ["a", "b", "c", "d", "e"].map(of).concat()),
        ("tenant-label-twice", series(&[label("t", "a"), label("t", "b"), sample(0)])),
        ("tenant-label-empty-then-set", series(&[label("t", ""), label("t", "b")])),
        ("tenant-by-second-name", series(&[label("tenant", "a"), label("t", ""), label("", "e")])),
        ("tenant-label-last", series(&[sample(1), label("a", "1"), label("b", "2"), label("t", "z")])),
        ("tenant-invalid", [of("a/b"), of("a")].concat()),
        ("tenant-missing", [series(&[label("__name__", "up")]), of("a")].concat()),
        ("tenant-not-utf8", series(&[field(1, &[field(1, b"t"), field(2, b"\xff\xfe")].concat())])),
        (
            "label-value-twice",
            series(&[field(1, &[field(1, b"t"), field(2, b"x"), field(2, b"a")].concat())]),
        ),
        ("label-value-first", series(&[field(1, &[field(2, b"a"), field(1, b"t")].concat())])),
        (
            "label-with-unknown-fields",
            series(&[field(1, &[group(), field(1, b"t"), field(2, b"a")].concat())]),
        ),
        ("label-broken-behind-the-tenant", series(&[label("t", "a"), field(1, &[0x0a, 9])])),
        ("label-broken-before-the-tenant", series(&[field(1, &[0x0a, 9]), label("t", "a")])),
        ("replica", [series(&[label("c", "1"), label("r", "2"), label("t", "a")]), of("a")].concat()),
        ("metadata-with-series", [metadata(), of("a"), metadata(), of("d")].concat()),
        ("metadata-only", [metadata(), metadata()].concat()),
        ("histogram-and-exemplar", series(&[label("t", "a"), exemplar(), histogram(), sample(0)])),
        ("source-and-symbols", [vec![0x10, 1], of("a"), field(4, b"symbol"), of("b"), group()].concat()),
        ("source-with-one-tenant", [vec![0x10, 1], of("a")].concat()),
        ("unknown-fields-in-series", series(&[vec![0x30, 1], label("t", "a"), group(), field(9, b"?")])),
        ("longer-than-needed", vec![0x8a, 0, 0x88, 0, 0x8a, 0, 0x85, 0, 0x8a, 0, 0x81, 0, b't']),
        ("key-of-33-bits", vec![0x8a, 0x80, 0x80, 0x80, 0x10, 0]),
        ("length-of-64-bits", [&[0x0a][..], &[0xff; 9], &[1]].concat()),
        ("group-that-does-not-close", [of("a"), vec![5 << 3 | 3]].concat()),
        ("groups-100-deep", [of("a"), vec![5 << 3 | 3; 100], vec![5 << 3 | 4; 100]].concat()),
        ("known-field-of-another-type", [of("a"), vec![0x08, 1]].concat()),
        ("cut-short", of("a")[..12].to_vec()),
        ("empty", Vec::new()),
    ]
}

/// Blocks: a length, then literals (tag `(length - 1) << 2`) and copies.
fn snappy_seeds() -> Seeds {
    // `length - 1` fits the tag.
    let literal = |bytes: &[u8]| [&[(bytes.len() as u8 - 1) << 2], bytes].concat();
    let copy1 = |bytes: u8, offset: u8| vec![(bytes - 4) << 2 | 1, offset];
    let copy2 = |bytes: u8, offset: u16| [&[(bytes - 1) << 2 | 2][..], &offset.to_le_bytes()].concat();
    let copy4 = |bytes: u8, offset: u32| [&[(bytes - 1) << 2 | 3][..], &offset.to_le_bytes()].concat();
    let block = |inflated: u8, elements: &[Vec<u8>]| [vec![inflated], elements.concat()].concat();
    let long = |tag: u8, length: &[u8], bytes: usize| [&[tag << 2], length, &vec![b'x'; bytes][..]].concat();
    vec![
        ("nothing", Vec::new()),
        ("empty", vec![0]),
        ("literal", block(3, &[literal(b"abc")])),
        ("literal-of-60", block(60, &[literal(&[b'x'; 60])])),
        ("literal-length-1-byte", [vec![100], long(60, &[99], 100)].concat()),
        ("literal-length-2-bytes", [vec![0xac, 0x02], long(61, &[0x2b, 1], 300)].concat()),
        ("literal-length-4-bytes", [vec![100], long(63, &[99, 0, 0, 0], 100)].concat()),
        ("literal-length-4-bytes-huge", [vec![100], long(63, &[0xff; 4], 100)].concat()),
        ("literal-cut-short", block(9, &[literal(b"abc")[..2].to_vec()])),
        ("copy-1-byte-offset", block(10, &[literal(b"abcd"), copy1(6, 4)])),
        ("copy-2-byte-offset", block(68, &[literal(b"abcd"), copy2(64, 4)])),
        ("copy-4-byte-offset", block(24, &[literal(b"abcd"), copy4(20, 2)])),
        ("copy-overlaps-itself", block(65, &[literal(b"a"), copy2(64, 1)])),
        ("copy-of-offset-0", block(8, &[literal(b"abcd"), copy1(4, 0)])),
        ("copy-before-the-block", block(8, &[literal(b"abcd"), copy1(4, 5)])),
        ("copy-first", block(4, &[copy1(4, 1)])),
        ("copy-past-the-length", block(9, &[literal(b"abcd"), copy1(6, 4)])),
        ("copy-cut-short", block(10, &[literal(b"abcd"), copy4(6, 4)[..3].to_vec()])),
        ("length-too-short", block(2, &[literal(b"abc")])),
        ("length-too-long", block(4, &[literal(b"abc")])),
        ("length-without-end", vec![0xff; 12]),
        ("length-longer-than-needed", [vec![0x83, 0x80, 0x80, 0x80, 0x00], literal(b"abc")].concat()),
        ("length-of-6-bytes", [vec![0x83, 0x80, 0x80, 0x80, 0x80, 0x00], literal(b"abc")].concat()),
        ("length-of-33-bits", [vec![0x80, 0x80, 0x80, 0x80, 0x10], literal(b"abc")].concat()),
        ("length-over-the-cap", [vec![0x81, 0x80, 0x04], literal(b"abc")].concat()),
        ("length-that-elements-cannot-have", [vec![0xff, 0xff, 0x03], literal(b"abc")].concat()),
    ]
}
