//! A profile as a flame graph.
#![forbid(unsafe_code)]

use std::io;

use inferno::flamegraph::{self, Options};

use super::stacks::{Profile, Thread};
use super::symbols::{Address, Symbols};
use crate::limits::PROFILE_HERTZ;

/// Writes an SVG. A browser shows it; its script zooms and searches.
pub(super) fn graph(profile: &Profile, symbols: &Symbols) -> io::Result<Vec<u8>> {
    let mut lines: Vec<String> = profile.stacks.iter().map(|stack| folded(stack, symbols)).collect();
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

/// One stack as inferno reads it: the frames from the outermost on with semicolons between them, and their samples.
fn folded((thread, frames, count): (&Thread, &[usize], u64), symbols: &Symbols) -> String {
    let mut names = vec![clean(&thread.name)];
    for (depth, &frame) in frames.iter().enumerate().rev() {
        let found = symbols.get(&Address::of(depth, frame)).into_iter().flatten();
        names.extend(found.rev().map(|symbol| clean(&symbol.name)));
    }
    format!("{} {count}", names.join(";"))
}

/// A name without the characters that separate frames, or that XML forbids.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}
