//! A profile as `go tool pprof` reads it: `perftools.profiles.Profile` of google/pprof's profile.proto.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::stacks::Profile;
use super::symbols::{Address, Symbol, Symbols};
use crate::limits::PROFILE_HERTZ;
use crate::wire::message::Message;

/// Writes the profile, compressed as the format demands.
pub(super) fn gzipped(profile: &Profile, symbols: &Symbols) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&message(profile, symbols))?;
    encoder.finish()
}

fn message(profile: &Profile, symbols: &Symbols) -> Vec<u8> {
    let mut texts = Texts::default();
    let mut message = Message::default();
    let (samples, count) = (texts.id("samples"), texts.id("count"));
    let (cpu, nanoseconds) = (texts.id("cpu"), texts.id("nanoseconds"));
    let period = 1_000_000_000 / u64::from(PROFILE_HERTZ);
    for (kind, unit) in [(samples, count), (cpu, nanoseconds)] {
        message.message(1, |value| value_type(value, kind, unit));
    }
    let (thread_key, id_key) = (texts.id("thread"), texts.id("thread_id"));
    let mut addresses: Vec<_> = symbols.keys().copied().collect();
    addresses.sort_unstable();
    let ids: HashMap<Address, u64> = addresses.iter().copied().zip(1..).collect();
    for (thread, frames, count) in profile.stacks.iter() {
        let at = |(depth, &frame): (usize, &usize)| ids.get(&Address::of(depth, frame)).copied();
        let name = texts.id(&thread.name);
        message.message(2, |sample| {
            sample.numbers(1, frames.iter().enumerate().filter_map(at));
            sample.numbers(2, [count, count * period]);
            sample.message(3, |label| {
                label.number(1, thread_key);
                label.number(2, name);
            });
            sample.message(3, |label| {
                label.number(1, id_key);
                label.number(3, u64::try_from(thread.id).unwrap_or_default());
            });
        });
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    mapping(&mut message, &maps, &mut texts);
    locations(&mut message, &addresses, symbols, &mut texts);
    let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or_default();
    message.number(9, nanos(profile.began.duration_since(UNIX_EPOCH).unwrap_or_default()));
    message.number(10, nanos(profile.took));
    message.message(11, |value| value_type(value, cpu, nanoseconds));
    message.number(12, period);
    let (lost, beyond) = (profile.stacks.lost, profile.stacks.beyond);
    if lost + beyond > 0 {
        let comment =
            texts.id(&format!("{lost} samples were lost, and {beyond} were of too many different stacks"));
        message.numbers(13, [comment]);
    }
    message.number(14, cpu);
    texts.list.iter().for_each(|text| message.bytes(6, text.as_bytes()));
    message.into_bytes()
}

fn value_type(message: &mut Message, kind: u64, unit: u64) {
    message.number(1, kind);
    message.number(2, unit);
}

/// Adds the locations of all addresses, and the functions at them.
fn locations(message: &mut Message, addresses: &[Address], symbols: &Symbols, texts: &mut Texts) {
    let mut functions: HashMap<(&str, &str), u64> = HashMap::new();
    for (address, id) in addresses.iter().zip(1..) {
        let found: &[Symbol] = symbols.get(address).map(Vec::as_slice).unwrap_or_default();
        let mut lines = Vec::new();
        for symbol in found {
            let next = functions.len() as u64 + 1;
            let function = *functions.entry((&symbol.name, &symbol.file)).or_insert(next);
            if function == next {
                let (name, file) = (texts.id(&symbol.name), texts.id(&symbol.file));
                message.message(5, |message| {
                    message.number(1, function);
                    message.number(2, name);
                    message.number(3, name);
                    message.number(4, file);
                });
            }
            lines.push((function, symbol.line));
        }
        message.message(4, |location| {
            location.number(1, id);
            location.number(2, 1);
            location.number(3, address.0 as u64);
            for (function, line) in lines {
                location.message(4, |message| {
                    message.number(1, function);
                    message.number(2, u64::from(line));
                });
            }
        });
    }
}

/// Adds the mapping of the program's code. Nearly all addresses are in it, and names are found already.
fn mapping(message: &mut Message, maps: &str, texts: &mut Texts) {
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_string_lossy();
    let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(&*program));
    let mut words = code.unwrap_or_default().split([' ', '-']);
    let mut hex =
        |nth| words.nth(nth).and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or_default();
    // start-end permissions offset: `r-xp` falls into two words.
    let (start, end, offset) = (hex(0), hex(0), hex(2));
    let name = texts.id(&program);
    message.message(3, |mapping| {
        mapping.number(1, 1);
        mapping.number(2, start);
        mapping.number(3, end);
        mapping.number(4, offset);
        mapping.number(5, name);
        (7..=10).for_each(|has| mapping.number(has, 1));
    });
}

/// The table of texts. The first one is empty.
struct Texts {
    list: Vec<String>,
    ids: HashMap<String, u64>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { list: vec![String::new()], ids: HashMap::from([(String::new(), 0)]) }
    }
}

impl Texts {
    fn id(&mut self, text: &str) -> u64 {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = self.list.len() as u64;
        self.list.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }
}
