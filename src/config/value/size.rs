//! Sizes in bytes.
#![forbid(unsafe_code)]

use super::{Value, Written, whole_number};
use crate::config::excerpt::found;

/// A number of bytes: plain, or with the suffix Ki, Mi or Gi (KiB, MiB and GiB mean the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct ByteSize(pub(in crate::config) usize);

/// Suffixes for powers of 1,024, the largest first.
const SIZE_UNITS: [(&str, usize); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

impl Value for ByteSize {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = text.get(digits.len()..).unwrap_or_default().trim_start();
        if digits.is_empty() {
            return Err(format!("{} is not a number of bytes; write it like 8388608 or 8Mi", found(text)));
        }
        let factor = match unit.strip_suffix('B').unwrap_or(unit) {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(
                || format!("{} has an unknown unit; write bytes, or Ki, Mi, Gi behind a number", found(text)),
            )?,
        };
        let number = whole_number(digits)?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("{} is too large", found(text)))
    }

    fn show(&self) -> String {
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => format!("{}{name}", self.0 / factor),
            None => self.0.to_string(),
        }
    }

    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}
