//! Replays the fuzz corpora: every input runs through the same check as under the fuzzer.
//!
//! The seeds among them are built here, one for each property of a request. After a change,
//! `cargo test --test corpus -- --ignored write` writes them anew. Inputs that once were findings are kept beside them,
//! under names that say what they found.
//!
//! Where cargo-fuzz does not run, `FUZZ_TARGET=tls FUZZ_SECONDS=600 cargo test --release --test corpus -- --ignored
//! mutate` checks changed copies of the inputs. It knows nothing of the code that they reach.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[path = "../fuzz/checks/http_head.rs"]
mod http_head;
#[path = "../fuzz/checks/loki_json.rs"]
mod loki_json;
#[path = "../fuzz/checks/loki_labels.rs"]
mod loki_labels;
#[path = "../fuzz/checks/loki_protobuf.rs"]
mod loki_protobuf;
#[path = "../fuzz/checks/otlp.rs"]
mod otlp;
#[path = "../fuzz/checks/scan.rs"]
mod scan;
#[path = "../fuzz/checks/scan_v2.rs"]
mod scan_v2;
#[path = "../fuzz/checks/selector.rs"]
mod selector;
#[path = "../fuzz/checks/snappy.rs"]
mod snappy;
#[path = "../fuzz/checks/spool_segment.rs"]
mod spool_segment;
#[path = "../fuzz/checks/tls.rs"]
mod tls;

#[path = "corpus/loki.rs"]
mod loki;
#[path = "corpus/otlp.rs"]
mod otlp_seeds;
#[path = "corpus/spool.rs"]
mod spool;

use std::path::PathBuf;

type Check = fn(&[u8]);
type Seeds = Vec<(&'static str, Vec<u8>)>;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs `check` on every file of a target's corpus. The seeds must be among them.
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

/// These seeds are text files, which are written by hand.
#[test]
fn http_head_corpus() {
    replay("http_head", http_head::check, Vec::new());
}

#[test]
fn scan_corpus() {
    replay("scan", scan::check, scan_seeds());
}

#[test]
fn scan_v2_corpus() {
    replay("scan_v2", scan_v2::check, scan_v2_seeds());
}

#[test]
fn snappy_corpus() {
    replay("snappy", snappy::check, snappy_seeds());
}

#[test]
fn loki_protobuf_corpus() {
    replay("loki_protobuf", loki_protobuf::check, loki::protobuf_seeds());
}

#[test]
fn loki_labels_corpus() {
    replay("loki_labels", loki_labels::check, loki::labels_seeds());
}

#[test]
fn loki_json_corpus() {
    replay("loki_json", loki_json::check, loki::json_seeds());
}

#[test]
fn otlp_corpora() {
    for (target, check, seeds) in otlp_seeds::ALL {
        replay(target, check, seeds());
    }
}

#[test]
fn selector_corpus() {
    replay("selector", selector::check, selector_seeds());
}

#[test]
fn spool_segment_corpus() {
    replay("spool_segment", spool_segment::check, spool::seeds());
}

#[test]
fn tls_corpus() {
    replay("tls", tls::check, tls_seeds());
}

#[test]
#[ignore = "writes the seeds into fuzz/corpus"]
fn write_seeds() {
    let all = [
        ("scan", scan_seeds()),
        ("scan_v2", scan_v2_seeds()),
        ("snappy", snappy_seeds()),
        ("loki_protobuf", loki::protobuf_seeds()),
        ("loki_labels", loki::labels_seeds()),
        ("loki_json", loki::json_seeds()),
        ("selector", selector_seeds()),
        ("spool_segment", spool::seeds()),
        ("tls", tls_seeds()),
    ];
    let of_otlp = otlp_seeds::ALL.map(|(target, _, seeds)| (target, seeds()));
    for (target, seeds) in all.into_iter().chain(of_otlp) {
        std::fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }

    /// A copy of one input with up to eight changes: bytes set, cut, repeated, or taken from another input.
    fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(8) {
            let (at, length) = (self.below(bytes.len() + 1), self.below(64));
            match self.below(5) {
                0 => bytes.truncate(at.max(2)),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => {
                    let other = &inputs[self.below(inputs.len())];
                    let from = self.below(other.len() + 1);
                    bytes.splice(at..at, other[from..].iter().take(length).copied());
                }
                3 => {
                    let again: Vec<u8> = bytes[at..].iter().take(length).copied().collect();
                    bytes.splice(at..at, again);
                }
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, or a minute, with the target FUZZ_TARGET, or each"]
fn mutate() {
    let all: [(&str, Check); 10] = [
        ("http_head", http_head::check),
        ("scan", scan::check),
        ("scan_v2", scan_v2::check),
        ("snappy", snappy::check),
        ("loki_protobuf", loki_protobuf::check),
        ("loki_labels", loki_labels::check),
        ("loki_json", loki_json::check),
        ("selector", selector::check),
        ("spool_segment", spool_segment::check),
        ("tls", tls::check),
    ];
    let all = all.into_iter().chain(otlp_seeds::ALL.map(|(target, check, _)| (target, check)));
    let wanted = std::env::var("FUZZ_TARGET").ok();
    let seconds = std::env::var("FUZZ_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    for (target, check) in all.filter(|(name, _)| wanted.as_ref().is_none_or(|one| one == name)) {
        let files = std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path());
        let inputs: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).unwrap()).collect();
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        let (mut random, mut runs, begun) = (Random(seed), 0_u64, std::time::Instant::now());
        while begun.elapsed().as_secs() < seconds {
            let input = random.changed(&inputs);
            if let Err(finding) = std::panic::catch_unwind(|| check(&input)) {
                eprintln!("{target}, after {runs} runs: {}", input.escape_ascii());
                std::panic::resume_unwind(finding);
            }
            runs += 1;
        }
        eprintln!("{target}: {runs} runs");
    }
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    testkit::fields::field(number, bytes, (0, 0))
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn series(fields: &[Vec<u8>]) -> Vec<u8> {
    field(1, &fields.concat())
}

/// A sample at time 1, with a value of these bits.
fn sample(value: u64) -> Vec<u8> {
    field(2, &[&[0x09][..], &value.to_le_bytes(), &[0x10, 1]].concat())
}

/// Requests. The check takes tenants from the labels `t`, `tenant` and the empty name, in this order, and clusters and
/// replicas from `c` and `r`.
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

/// Remote Write 2.0 requests, for the same rules.
fn scan_v2_seeds() -> Seeds {
    /// 0 `` 1 `t` 2 `a` 3 `b` 4 `c` 5 `tenant` 6 `r` 7 `__name__` 8 `x_total` 9 `help`
    const SYMBOLS: [&str; 10] = ["", "t", "a", "b", "c", "tenant", "r", "__name__", "x_total", "help"];
    let table = || SYMBOLS.map(|symbol| field(4, symbol.as_bytes())).concat();
    let number = |number: u8, value: u8| vec![number << 3, value];
    let series = |members: &[Vec<u8>]| field(5, &members.concat());
    let refs = |references: &[u8]| field(1, references);
    let of = |tenant: u8| series(&[refs(&[7, 8, 1, tenant]), sample(1)]);
    let with = |series: Vec<u8>| [table(), series, of(3)].concat();
    let exemplar = || field(4, &[refs(&[9, 4]), vec![0x11, 0, 0, 0, 0, 0, 0, 0, 0], number(3, 1)].concat());
    let metadata = |help: u8| field(5, &[number(1, 1), number(3, help), number(4, 0)].concat());
    let started = || field(2, &[0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0x18, 1]);
    let histogram = |schema: u8| field(3, &[number(1, 3), number(4, schema), vec![0x88, 1, 7]].concat());
    let group = || vec![6 << 3 | 3, 7 << 3 | 3, 0x08, 1, 7 << 3 | 4, 6 << 3 | 4];
    vec![
        ("one-tenant", [table(), of(2), of(2)].concat()),
        ("two-tenants-in-turn", [table(), of(2), of(3), of(2)].concat()),
        ("symbols-behind", [of(2), of(3), table()].concat()),
        ("symbols-between", [field(4, b""), of(2), table(), of(3)].concat()),
        ("symbols-twice", [table(), table(), of(2), series(&[refs(&[11, 12]), sample(1)]), of(3)].concat()),
        ("symbols-without-the-empty-one", [field(4, b"t"), of(2)].concat()),
        ("symbols-missing", of(2)),
        ("symbol-key-longer-than-needed", [table(), vec![0xa2, 0, 0x81, 0, b'z'], of(2), of(3)].concat()),
        ("reference-out-of-range", with(series(&[refs(&[1, 10])]))),
        ("reference-of-33-bits", with(series(&[refs(&[1, 0x82, 0x80, 0x80, 0x80, 0x10])]))),
        ("reference-longer-than-needed", with(series(&[refs(&[0x81, 0, 0x82, 0x80, 0])]))),
        ("reference-cut-short", with(series(&[refs(&[1, 0x82])]))),
        ("labels-odd", with(series(&[refs(&[1, 2, 7])]))),
        ("labels-unpacked", with(series(&[number(1, 1), sample(1), number(1, 2)]))),
        ("labels-in-pieces", with(series(&[refs(&[7]), refs(&[8, 1]), number(1, 2), refs(&[])]))),
        ("labels-none", with(series(&[sample(1)]))),
        ("tenant-label-twice", with(series(&[refs(&[1, 2, 1, 3, 5, 4])]))),
        ("tenant-label-empty", with(series(&[refs(&[1, 0, 5, 4, 1, 2])]))),
        ("tenant-by-the-empty-name", with(series(&[refs(&[0, 2, 9, 9]), sample(0)]))),
        ("exemplar", with(series(&[refs(&[1, 2]), exemplar(), sample(1)]))),
        ("exemplar-alone", with(series(&[refs(&[1, 2]), exemplar()]))),
        ("exemplar-odd", with(series(&[refs(&[1, 2]), field(4, &refs(&[9]))]))),
        (
            "exemplar-unpacked",
            with(series(&[refs(&[1, 2]), field(4, &[number(1, 9), number(1, 4)].concat())])),
        ),
        ("metadata", with(series(&[refs(&[7, 8, 1, 2]), sample(1), metadata(9)]))),
        ("metadata-alone", with(series(&[refs(&[7, 8, 1, 2]), metadata(9)]))),
        ("metadata-twice", with(series(&[metadata(9), refs(&[7, 8, 1, 2]), metadata(0)]))),
        ("metadata-out-of-range", with(series(&[refs(&[1, 2]), metadata(10)]))),
        ("start-timestamps", with(series(&[refs(&[1, 2]), started(), histogram(4), number(6, 1)]))),
        ("custom-buckets-alone", with(series(&[refs(&[1, 2]), histogram(105)]))),
        ("custom-buckets-and-others", with(series(&[refs(&[1, 2]), histogram(105), histogram(0)]))),
        ("sample-broken", with(series(&[refs(&[1, 2]), field(2, &[0x09, 0])]))),
        ("unknown-fields", [table(), number(6, 1), group(), of(2), field(9, b"?"), of(3)].concat()),
        ("unknown-fields-in-series", with(series(&[group(), refs(&[1, 2]), field(9, b"?"), number(7, 1)]))),
        ("series-of-1-0", with(field(1, b""))),
        ("known-field-of-another-type", with(series(&[refs(&[1, 2]), number(2, 1)]))),
        ("cut-short", [table(), of(2)[..9].to_vec()].concat()),
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
    let block = |inflated: u64, elements: &[Vec<u8>]| {
        let mut block = Vec::new();
        tenantry::wire::varint::put(&mut block, inflated);
        [block, elements.concat()].concat()
    };
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
        ("copy-of-64-from-60-back", block(124, &[literal(&[7; 60]), copy2(64, 60)])),
        ("copy-of-64-from-33-back", block(124, &[literal(&[7; 60]), copy2(64, 33)])),
        ("copy-of-64-from-31-back", block(124, &[literal(&[7; 60]), copy2(64, 31)])),
        ("copy-from-299-back", block(311, &[long(61, &[0x2b, 1], 300), vec![1 << 5 | 7 << 2 | 1, 0x2b]])),
        ("many-short-elements", block(200, &vec![literal(b"a"); 200])),
        ("many-short-elements-cut", block(260, &[vec![literal(b"a"); 200], vec![vec![59 << 2]]].concat())),
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

/// Selectors and series.
fn selector_seeds() -> Seeds {
    let texts = [
        ("plain", "up{namespace=\"a\"}"),
        ("name-only", "job:up:sum"),
        ("every-op", "{a=\"1\",b!=\"2\",c=~\"3.*\",d!~\"4|5\"}"),
        ("three-quotes", "{a=\"1\", b='2', c=`3\\`,}"),
        ("escapes", r#"{a="\a\b\f\n\r\t\v\\\"", b='\'', c="\x41\101\u00e9\U0001F600"}"#),
        ("escape-of-bytes", r#"{a="\xff\377"}"#),
        ("escape-unknown", r#"{a="\q"}"#),
        ("quoted-names", "{\"grüße\",\"a b\"=~'1'}"),
        ("name-twice", "up{__name__=~\"u.\"}"),
        ("label-twice", "{a='1',a='2'}"),
        ("white-space-and-comments", "# in front\n up { a = '1' , # one\n b=~'2' #}\n } # behind"),
        ("empty-set", "{}"),
        ("nothing", ""),
        ("only-a-comma", "{,}"),
        ("open-brace", "{a='1'"),
        ("open-quote", "{a='1}"),
        ("something-behind", "{a='1'} 5"),
        ("half-an-op", "{a!'1'}"),
        ("open-group", "{a=~'('}"),
        ("group-that-closes-another", "{a=~'b)|(c'}"),
        ("comment-in-a-pattern", "{a=~'(?x)b # )'}"),
        ("large-pattern", r"{a=~`((\w{50}){50}){50}`}"),
        ("hidden-characters", "{a='\u{202e}\u{200b}\u{feff}\u{fffd}'}"),
    ];
    texts.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect()
}

/// What a peer of TLS may send. The first byte says to whom and how, the second how it is cut.
fn tls_seeds() -> Seeds {
    let with = |what: u8, cut: u8, rest: &[u8]| [&[what, cut], rest].concat();
    let record = |kind: u8, payload: &[u8]| {
        [&[kind, 3, 3], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
    };
    let message = |kind: u8, body: &[u8]| [&[kind, 0], &(body.len() as u16).to_be_bytes()[..], body].concat();
    let extension =
        |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat();
    let key_share = || [&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    let extensions = || {
        let name = b"\0\x0c\0\0\x09localhost";
        [
            extension(0, name),
            extension(10, &[0, 2, 0, 29]),
            extension(13, &[0, 4, 4, 3, 8, 4]),
            extension(16, b"\0\x09\x08http/1.1"),
            extension(43, &[2, 3, 4]),
            extension(51, &key_share()),
        ]
        .concat()
    };
    let hello = |suites: &[u8], extensions: &[u8]| {
        let session = [&[32][..], &[7; 32]].concat();
        let lengths = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes().to_vec();
        let head = [&[3, 3][..], &[5; 32], &session, &lengths(suites), suites, &[1, 0]].concat();
        message(1, &[&head[..], &lengths(extensions), extensions].concat())
    };
    let tls13 = || hello(&[0x13, 1, 0x13, 2], &extensions());
    let tls12 =
        || hello(&[0xc0, 0x2b], &[extension(10, &[0, 2, 0, 29]), extension(13, &[0, 2, 4, 3])].concat());
    let server_hello = || {
        let tail =
            [extension(43, &[3, 4]), extension(51, &[&[0, 29, 0, 32][..], &[9; 32]].concat())].concat();
        let head = [&[3, 3][..], &[5; 32], &[0, 0x13, 1, 0]].concat();
        message(2, &[&head[..], &(tail.len() as u16).to_be_bytes(), &tail].concat())
    };
    let alert = |level: u8, what: u8| record(21, &[level, what]);
    let in_pieces = || tls13().chunks(50).flat_map(|part| record(22, part)).collect::<Vec<_>>();
    vec![
        ("server-nothing", with(0, 1, b"")),
        ("server-plain-http", with(0, 1, b"GET / HTTP/1.1\r\n\r\n")),
        ("server-ssl-2", with(0, 9, b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10")),
        ("server-hello-1.3", with(0, 200, &record(22, &tls13()))),
        ("server-hello-1.3-byte-by-byte", with(0, 1, &record(22, &tls13()))),
        ("server-hello-1.3-in-pieces", with(0, 5, &in_pieces())),
        ("server-hello-1.2", with(0, 200, &record(22, &tls12()))),
        ("server-hello-twice", with(0, 200, &record(22, &[tls13(), tls13()].concat()))),
        (
            "server-hello-then-ccs-and-data",
            with(0, 200, &[record(22, &tls13()), record(20, &[1]), record(23, &[0; 40])].concat()),
        ),
        ("server-hello-without-end", with(0, 3, &record(22, &[1, 0, 0xff, 0xff, 3, 3]))),
        ("server-record-too-long", with(0, 255, &[22, 3, 1, 0xff, 0xff, 1])),
        ("server-empty-records", with(0, 20, &record(22, b"").repeat(40))),
        ("server-alert", with(0, 20, &alert(2, 40))),
        ("server-warnings", with(0, 20, &alert(1, 90).repeat(9))),
        ("client-plain-http", with(1, 2, b"HTTP/1.1 400 Bad Request\r\n")),
        ("client-server-hello", with(1, 200, &record(22, &server_hello()))),
        ("client-server-hello-1.2", with(9, 200, &record(22, &server_hello()))),
        ("client-alert", with(1, 200, &alert(2, 70))),
        ("client-close-notify", with(1, 200, &alert(1, 0))),
        (
            "server-records",
            with(2, 9, &[&[2, 6, 1, 0, 0, 2, 3, 3][..], &[0, 1, 1], &[3, 2, 9, 9], &[1, 2, 1, 0]].concat()),
        ),
        (
            "client-records",
            with(3, 9, &[&[2, 6, 2, 0, 0, 2, 3, 3][..], &[0, 1, 1], &[3, 2, 9, 9], &[1, 2, 2, 0]].concat()),
        ),
        ("hello-unchanged", with(4, 7, b"")),
        ("hello-unchanged-1.2", with(12, 7, b"")),
        ("hello-changed", with(4, 90, &[0, 60, 1, 0, 120, 0x80])),
        ("hello-cut", with(4, 90, &[0, 100, 0])),
        ("answer-changed", with(5, 90, &[0, 20, 1])),
        ("answer-changed-in-the-certificate", with(13, 90, &[1, 44, 4])),
        ("answer-cut", with(5, 90, &[0, 140, 0])),
        ("after-handshake-plaintext-alert", with(6, 90, &alert(1, 0))),
        ("after-handshake-data", with(6, 90, &record(23, &[3; 60]))),
        ("after-handshake-1.2-renegotiation", with(14, 90, &record(22, &message(1, b"")))),
        ("honest", with(7, 1, &[0, 10, 6, 10, 1, 200, 5, 1, 6, 0, 0, 0])),
        ("honest-1.2", with(15, 100, &[0, 10, 6, 10, 1, 200, 5, 1, 6, 0, 0, 0])),
        ("changed-later", with(7, 100, &[0, 100, 7, 3])),
        ("changed-later-1.2", with(15, 100, &[0, 100, 7, 30])),
    ]
}
