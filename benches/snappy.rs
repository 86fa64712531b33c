//! Decoding snappy blocks, compared with snap's decoder. `cargo bench --bench snappy`.
//!
//! The blocks differ, as those of a sender do. A block that is decoded again and again would flatter a decoder that
//! branches on elements, because the CPU learns them by heart.
//!
//! Ours is faster only as long as the compiler selects without a branch whether an element is a literal or a copy. At
//! the end, the bench fails if the order of literals and copies makes a difference, or if snap's decoder has caught up.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

mod fleet;

use std::hint::black_box;
use std::iter;
use std::slice;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use fleet::SERIES;
use prost::Message;
use tenantry::wire::snappy::Inflater;
use tenantry::wire::varint;
use testkit::proto::WriteRequest;

/// How many series a block has, and how many such blocks there are.
const SIZES: [(usize, usize); 2] = [(SERIES, 7), (100, 151)];

const INFLATED_BYTES_MAX: usize = 64 << 20;

/// How much longer elements in random order may take than the same elements in turn. It is 1.0 without a branch, and
/// was 1.5 with one.
const DISORDER_MAX: f64 = 1.2;

/// The least share of snap's time that ours must save. It was 17 % when this was written.
const GAIN_MIN: f64 = 0.05;

/// The shortest of so many times counts.
const ROUNDS: usize = 40;

/// Blocks of this many series, all different.
fn blocks(series: usize, count: usize) -> Vec<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let all = fleet::request(series * count, 10).timeseries;
    let of_block = |first| all.iter().skip(first).step_by(count).cloned().collect();
    let requests = (0..count).map(|first| WriteRequest { timeseries: of_block(first), metadata: Vec::new() });
    requests.map(|request| encoder.compress_vec(&request.encode_to_vec()).expect("compresses")).collect()
}

/// A function that decodes a block.
fn ours() -> impl FnMut(&[u8]) {
    let mut inflater = Inflater::default();
    move |block| {
        black_box(inflater.inflate(black_box(block), INFLATED_BYTES_MAX).expect("inflates"));
    }
}

/// As [`ours`], also into memory that is kept.
fn by_snap() -> impl FnMut(&[u8]) {
    let mut output = vec![0; INFLATED_BYTES_MAX];
    let mut decoder = snap::raw::Decoder::new();
    move |block| {
        black_box(decoder.decompress(black_box(block), &mut output).expect("inflates"));
    }
}

fn inflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("snappy");
    for (series, count) in SIZES {
        let blocks = blocks(series, count);
        let bytes: usize =
            blocks.iter().map(|block| snap::raw::decompress_len(block).expect("has one")).sum();
        group.throughput(Throughput::ElementsAndBytes {
            elements: series as u64,
            bytes: (bytes / count) as u64,
        });
        let mut bench = |name, decode: &mut dyn FnMut(&[u8])| {
            let mut fresh = blocks.iter().cycle();
            group.bench_function(BenchmarkId::new(name, series), |b| {
                b.iter(|| fresh.next().map(|block| decode(block)));
            });
        };
        bench("ours", &mut ours());
        bench("snap's", &mut by_snap());
    }
    group.finish();
}

/// The time for all blocks.
fn measure(blocks: &[Vec<u8>], decode: &mut impl FnMut(&[u8])) -> Duration {
    let begin = Instant::now();
    blocks.iter().for_each(|block| decode(block));
    begin.elapsed()
}

/// The shortest times of two alternating measurements, in seconds.
fn shortest(mut one: impl FnMut() -> Duration, mut other: impl FnMut() -> Duration) -> (f64, f64) {
    let rounds = iter::repeat_with(|| (one(), other())).take(ROUNDS);
    let (a, b) =
        rounds.fold((Duration::MAX, Duration::MAX), |best, round| (best.0.min(round.0), best.1.min(round.1)));
    (a.as_secs_f64(), b.as_secs_f64())
}

/// Whether ours still saves what it is there for.
fn check_gain() {
    for (series, count) in SIZES {
        let blocks = blocks(series, count);
        let (mut ours, mut by_snap) = (ours(), by_snap());
        let (ours, theirs) = shortest(|| measure(&blocks, &mut ours), || measure(&blocks, &mut by_snap));
        let gain = 1.0 - ours / theirs;
        eprintln!("blocks of {series} series: {:.1} % less time than snap's", gain * 100.0);
        assert!(gain >= GAIN_MIN, "our decoder does not pay off");
    }
}

/// A block of literals and copies of eight bytes. No copy is near enough to wait for what was just written.
fn of_kinds(mut is_literal: impl FnMut() -> bool) -> Vec<u8> {
    const ELEMENTS: u16 = 40_000;
    let mut block = Vec::new();
    varint::put(&mut block, 256 * 16 + u64::from(ELEMENTS) * 8);
    for _ in 0..256 {
        block.push(15 << 2);
        block.extend_from_slice(b"0123456789abcdef");
    }
    for at in 0..ELEMENTS {
        if is_literal() {
            block.push(7 << 2);
            block.extend_from_slice(&u64::from(at).to_le_bytes());
        } else {
            block.push(7 << 2 | 2);
            block.extend_from_slice(&(512 + at % 1500).to_le_bytes());
        }
    }
    block
}

/// Whether the time depends on how predictable the elements' kinds are.
fn check_branches() {
    let (mut turn, mut random) = (false, 1_u64);
    let in_turn = of_kinds(|| {
        turn = !turn;
        turn
    });
    let in_disorder = of_kinds(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 40 & 1 == 0
    });
    let (mut decode, mut decode_too) = (ours(), ours());
    let (in_turn, in_disorder) = shortest(
        || measure(slice::from_ref(&in_turn), &mut decode),
        || measure(slice::from_ref(&in_disorder), &mut decode_too),
    );
    let disorder = in_disorder / in_turn;
    eprintln!("elements in random order take {disorder:.2} times as long as in turn");
    assert!(disorder <= DISORDER_MAX, "look for a branch on `is_literal` in the machine code of our decoder");
}

criterion_group!(benches, inflate);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // Not if each bench runs once, as a test: times mean nothing then.
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    if asked("--bench") && !asked("--test") && !asked("--list") {
        check_branches();
        check_gain();
    }
}
