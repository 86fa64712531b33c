//! The functions that addresses belong to, from the program's own symbols and line tables.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;

use super::failure::Failure;
use super::stacks::Stacks;

/// A function at an address. Functions that were inlined there come before the one that contains them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) name: String,
    /// Empty if the program has no line tables.
    pub(super) file: String,
    pub(super) line: u32,
}

/// The functions at each address of a profile.
pub(super) type Symbols = HashMap<Address, Vec<Symbol>>;

/// An address of a stack. A return address is behind the call that belongs to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address(pub(super) usize);

impl Address {
    /// The address within the instruction that a frame is at: `depth` 0 is the one that was interrupted.
    pub(super) fn of(depth: usize, frame: usize) -> Self {
        Self(if depth == 0 { frame } else { frame.saturating_sub(1) })
    }
}

/// Looks up each address of `stacks`.
///
/// # Errors
/// If `is_cancelled`.
pub(super) fn resolve(stacks: &Stacks, is_cancelled: &dyn Fn() -> bool) -> Result<Symbols, Failure> {
    let mut symbols = Symbols::new();
    let mut cancelled = false;
    for (_, frames, _) in stacks.iter() {
        cancelled = cancelled || is_cancelled();
        if cancelled {
            break;
        }
        for (depth, &frame) in frames.iter().enumerate() {
            let address = Address::of(depth, frame);
            symbols.entry(address).or_insert_with(|| at(address));
        }
    }
    // It keeps the program's tables in memory otherwise.
    backtrace::clear_symbol_cache();
    if cancelled { Err(Failure::Cancelled) } else { Ok(symbols) }
}

fn at(Address(address): Address) -> Vec<Symbol> {
    let mut found = Vec::new();
    // The crate takes a return address, and looks at the byte before it.
    let behind: *mut c_void = ptr::without_provenance_mut(address.saturating_add(1));
    backtrace::resolve(behind, |symbol| {
        let name = symbol.name().map(|name| format!("{name:#}"));
        found.push(Symbol {
            name: name.unwrap_or_else(|| format!("{address:#x}")),
            file: symbol.filename().map(|file| file.display().to_string()).unwrap_or_default(),
            line: symbol.lineno().unwrap_or_default(),
        });
    });
    if found.is_empty() {
        found.push(Symbol { name: format!("{address:#x}"), ..Symbol::default() });
    }
    found
}
