//! A profile as a flame graph.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;

use inferno::flamegraph::{self, Options};

use super::stacks::{Profile, Thread};
use super::symbols::{Address, Symbols};
use crate::limits::PROFILE_HERTZ;

/// Writes an SVG. A browser shows it; its script zooms and searches.
pub(super) fn graph(profile: &Profile, symbols: &Symbols) -> io::Result<Vec<u8>> {
    // Stacks differ in addresses, and many have the same functions.
    let mut counts = HashMap::<String, u64>::new();
    for (thread, frames, count) in profile.stacks.iter() {
        *counts.entry(folded(thread, frames, symbols)).or_default() += count;
    }
    let mut lines: Vec<String> =
        counts.into_iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    if lines.is_empty() {
        lines.push("(no thread used the CPU) 1".into());
    }
    lines.sort_unstable();
    let mut options = Options::default();
    options.title = format!("tenantry: CPU time in {:.1} s", profile.took.as_secs_f64());
    options.count_name = format!("samples of {} ms", 1_000 / PROFILE_HERTZ);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(io::Error::other)?;
    Ok(svg)
}

/// One stack as inferno reads it: the frames from the outermost on with semicolons between them.
fn folded(thread: &Thread, frames: &[usize], symbols: &Symbols) -> String {
    let mut names = vec![clean(&thread.name)];
    for (depth, &frame) in frames.iter().enumerate().rev() {
        let found = symbols.get(&Address::of(depth, frame)).into_iter().flatten();
        names.extend(found.rev().map(|symbol| clean(&symbol.name)));
    }
    names.join(";")
}

/// A name without the characters that separate frames, or that XML forbids.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}
