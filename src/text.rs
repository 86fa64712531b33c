//! Untrusted text: how it is shown, and how quoted text is read.
//!
//! Design constraints:
//!
//! * Labels and tenants come from senders. Shown on a terminal, in a log or on a page, a character must neither control
//!   it nor change how the text around it looks. So such characters are escaped wherever untrusted text is shown.
//! * What is shown in quotes can be pasted back: [`quote`] writes Go's notation, as Prometheus reads it, and
//!   [`unquote`] reads every text that [`quote`] writes. Bytes that are not UTF-8 survive as `\xff`.
#![forbid(unsafe_code)]

pub(crate) mod search;

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character controls a terminal, ends a line, changes the direction of its neighbours (Unicode Standard
/// Annex 9), or is invisible.
pub fn needs_escape(letter: char) -> bool {
    !matches!(letter, ' '..='~')
        && (letter.is_control()
            || matches!(
                letter,
                '\u{ad}'
                    | '\u{61c}'
                    | '\u{115f}'..='\u{1160}'
                    | '\u{180e}'
                    | '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}'
                    | '\u{3164}'
                    | '\u{feff}'
                    | '\u{ffa0}'
                    | '\u{fff9}'..='\u{fffb}'
                    | '\u{e0000}'..='\u{e007f}'
            ))
}

/// Text to be shown without quotes: the characters that [`needs_escape`] are escaped, all others stay.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match needs_escape(letter) {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Appends `bytes` in double quotes, in Go's notation. The result is one line of harmless UTF-8. U+FFFD is escaped,
/// too, as Prometheus' lexer treats it as an error.
pub fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => out.extend(['\\', letter]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                _ if letter == '\u{fffd}' || needs_escape(letter) => {
                    // Writing to a String cannot fail.
                    let _ = match u32::from(letter) {
                        code @ ..0x80 => write!(out, "\\x{code:02x}"),
                        code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                        code => write!(out, "\\U{code:08x}"),
                    };
                }
                letter => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
}

/// Why a text is not a quoted one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QuoteFault {
    /// It ends, or its line ends, inside quotes.
    Open,
    /// An escape sequence is unknown, or names no character.
    Escape,
}

/// What was in quotes, and the byte after its closing quote.
type Unquoted<'a> = (Cow<'a, [u8]>, usize);

/// Reads the quoted text that begins at byte `open` of `text`, with a double, a single or a back quote, as Prometheus
/// does (promql's `Unquote` in util/strutil/quote.go). Returns it and the byte after its closing quote. It is a slice
/// of `text` unless it has escapes.
///
/// # Errors
/// What is wrong, and the byte where.
pub(crate) fn unquote(text: &[u8], open: usize) -> Result<Unquoted<'_>, (QuoteFault, usize)> {
    let unclosed = (QuoteFault::Open, open);
    let [quote, rest @ ..] = text.get(open..).unwrap_or_default() else { return Err(unclosed) };
    let length = match quote {
        b'`' => search::find(rest, |chunk| chunk.equal(b'`')),
        _ => search::find(rest, |chunk| chunk.equal(*quote) | chunk.equal(b'\\') | chunk.equal(b'\n')),
    };
    let (plain, mut rest) = rest.split_at(length);
    if let [first, ..] = rest
        && first == quote
    {
        return Ok((Cow::Borrowed(plain), open + length + 2));
    }
    let mut value = plain.to_vec();
    loop {
        match rest {
            [byte, behind @ ..] if byte == quote => {
                return Ok((Cow::Owned(value), text.len() - behind.len()));
            }
            [b'\\', behind @ ..] => {
                rest = escape(behind, *quote, &mut value)
                    .ok_or((QuoteFault::Escape, text.len() - rest.len()))?;
            }
            [byte, behind @ ..] if *byte != b'\n' => {
                value.push(*byte);
                rest = behind;
            }
            _ => return Err(unclosed),
        }
    }
}

/// Reads an escape sequence behind its backslash, and returns what follows it.
fn escape<'a>(sequence: &'a [u8], quote: u8, value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let [letter, rest @ ..] = sequence else { return None };
    let short = match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        letter if *letter == quote => quote,
        b'x' => return numbered(rest, 2, 16, value),
        b'u' => return numbered(rest, 4, 16, value),
        b'U' => return numbered(rest, 8, 16, value),
        b'0'..=b'7' => return numbered(sequence, 3, 8, value),
        _ => return None,
    };
    value.push(short);
    Some(rest)
}

/// A byte given by two hexadecimal or three octal digits, or a character given by four or eight hexadecimal ones.
fn numbered<'a>(text: &'a [u8], count: usize, radix: u32, value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (digits, rest) = text.split_at_checked(count)?;
    let add = |number: u32, digit: &u8| Some(number << radix.ilog2() | char::from(*digit).to_digit(radix)?);
    let number = digits.iter().try_fold(0, add)?;
    if count < 4 {
        value.push(u8::try_from(number).ok()?);
    } else {
        let letter = char::from_u32(number)?;
        value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(bytes: &[u8]) -> String {
        let mut out = String::new();
        quote(bytes, &mut out);
        out
    }

    #[test]
    fn hostile_characters_are_escaped_and_others_stay() {
        assert_eq!(escaped("größe שלום 🙂 \"x\\"), "größe שלום 🙂 \"x\\");
        assert_eq!(escaped("a\u{1b}[31m\u{202e}b\r\n"), "a\\u{1b}[31m\\u{202e}b\\r\\n");
        assert_eq!(
            quoted("ü\"\\\n\u{1b}\u{202e}\u{e0041}\u{fffd}".as_bytes()),
            r#""ü\"\\\n\x1b\u202e\U000e0041\ufffd""#
        );
        assert_eq!(quoted(b"a\xffb\xe4"), r#""a\xffb\xe4""#);
    }

    #[test]
    fn quoted_text_ends_where_it_says() {
        let read = |text: &str| unquote(text.as_bytes(), 1).map(|(value, end)| (value.into_owned(), end));
        assert_eq!(read("x'a'b"), Ok((b"a".to_vec(), 4)));
        assert_eq!(read("x`\\n'\n`"), Ok((b"\\n'\n".to_vec(), 7)));
        assert_eq!(read(r#"x"\"\x41\101\u00e9" y"#), Ok((b"\"AA\xc3\xa9".to_vec(), 19)));
        for (text, fault) in [
            ("x", (QuoteFault::Open, 1)),
            ("x'a", (QuoteFault::Open, 1)),
            ("x'\\ta\n'", (QuoteFault::Open, 1)),
            ("x'ab\\q'", (QuoteFault::Escape, 4)),
            ("x'\\ud800'", (QuoteFault::Escape, 2)),
            ("x'\\400'", (QuoteFault::Escape, 2)),
            ("x'\\", (QuoteFault::Escape, 2)),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_quoted_reads_back(bytes: Vec<u8>, text: String) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let quoted = quoted(bytes);
                prop_assert!(!quoted.contains(needs_escape) && !quoted.contains('\u{fffd}'), "{quoted:?}");
                let read = unquote(quoted.as_bytes(), 0).unwrap();
                prop_assert_eq!((&*read.0, read.1), (bytes, quoted.len()));
            }
        }
    }
}
