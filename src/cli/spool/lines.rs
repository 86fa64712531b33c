//! The lines of a file of dead letters.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::ops::Range;

use crate::spool::limits::RECORD_BYTES_MAX;
use crate::spool::{DeadLetter, Spooled};

/// The longest line: a record in base64, with some room for what is beside it.
const LINE_BYTES_MAX: u64 = RECORD_BYTES_MAX as u64 / 3 * 4 + (1 << 20);

/// The lines, each with its place in the file. A last one without an end counts.
pub(super) struct Lines<R> {
    reader: R,
    at: u64,
}

/// A line without its end, and where it is with it.
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) place: Range<u64>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, at: 0 }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        let bytes = match self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return None,
            Ok(bytes) => bytes as u64,
            Err(error) => return Some(Err(error)),
        };
        if text.last() == Some(&b'\n') {
            text.pop();
        } else if bytes == LINE_BYTES_MAX {
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, "it has a line that is too long")));
        }
        let place = self.at..self.at + bytes;
        self.at = place.end;
        Some(Ok(Line { text, place }))
    }
}

/// Reads a line: when and why its part was refused, and the part. The error says what is wrong with it.
pub(super) fn read_line(line: &[u8]) -> Result<(DeadLetter, Spooled), String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let letter = DeadLetter::read(line).map_err(|error| format!("it is not a dead letter: {error}"))?;
    let spooled = letter.spooled().map_err(|error| format!("its part cannot be read: {error}"))?;
    Ok((letter, spooled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_place() {
        let lines = Lines::new(&b"ab\n\nc"[..]).map(|line| line.map(|line| (line.text, line.place)).unwrap());
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [(b"ab".to_vec(), 0..3), (vec![], 3..4), (b"c".to_vec(), 4..5)]
        );
    }
}
