//! Reads labels as Prometheus' lexer and grammar do: first into words, then into labels. Slow, and independent of the
//! server's reader.

/// A word of the text.
#[derive(Clone, PartialEq, Debug)]
enum Word {
    Name(Vec<u8>),
    Quoted(Vec<u8>),
    Sign(u8),
}

/// All labels of a text, in their order. `None` if the text is malformed.
#[must_use]
pub fn labels(text: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let words = words(text)?;
    let mut rest = words.as_slice();
    let mut labels = Vec::new();
    if let [Word::Name(name), behind @ ..] = rest {
        labels.push((b"__name__".to_vec(), name.clone()));
        rest = behind;
    }
    if rest.is_empty() {
        return Some(labels);
    }
    let [Word::Sign(b'{'), inside @ .., Word::Sign(b'}')] = rest else { return None };
    // A comma follows each label. It may be missing after the last.
    let mut items: Vec<&[Word]> = inside.split(|word| *word == Word::Sign(b',')).collect();
    if items.last().is_some_and(|item| item.is_empty()) {
        items.pop();
    }
    for item in items {
        labels.push(match item {
            [Word::Name(name) | Word::Quoted(name), Word::Sign(b'='), Word::Quoted(value)] => {
                (name.clone(), value.clone())
            }
            [Word::Quoted(name)] => (b"__name__".to_vec(), name.clone()),
            _ => return None,
        });
    }
    Some(labels)
}

fn words(text: &[u8]) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut inside = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'#' => at += text[at..].iter().take_while(|byte| !b"\r\n".contains(byte)).count(),
            b'{' | b'}' | b',' | b'=' => {
                if byte == b'{' || byte == b'}' {
                    inside = byte == b'{';
                }
                words.push(Word::Sign(byte));
                at += 1;
            }
            b'"' | b'\'' | b'`' => {
                let (value, end) = unquote(text, at)?;
                words.push(Word::Quoted(value));
                at = end;
            }
            b'_' | b':' | b'a'..=b'z' | b'A'..=b'Z' => {
                let belongs = |byte: &&u8| {
                    byte.is_ascii_alphanumeric() || **byte == b'_' || (!inside && **byte == b':')
                };
                let name: Vec<u8> = text[at..].iter().take_while(belongs).copied().collect();
                if name.is_empty() {
                    return None;
                }
                at += name.len();
                words.push(Word::Name(name));
            }
            _ => return None,
        }
    }
    Some(words)
}

/// The content of the quotes at `open`, and where they end.
fn unquote(text: &[u8], open: usize) -> Option<(Vec<u8>, usize)> {
    let quote = text[open];
    let mut value = Vec::new();
    let mut bytes = text[open + 1..].iter().copied();
    loop {
        let byte = bytes.next()?;
        if byte == quote {
            return Some((value, text.len() - bytes.len()));
        }
        if quote == b'`' {
            value.push(byte);
            continue;
        }
        if byte == b'\n' {
            return None;
        }
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let letter = bytes.next()?;
        let mut number = |first: &[u8], count: usize, radix: u32| {
            let digits: Vec<u8> = first.iter().copied().chain(bytes.by_ref().take(count)).collect();
            let all_digits = digits.iter().all(|&digit| char::from(digit).is_digit(radix));
            let enough = digits.len() == first.len() + count;
            (all_digits && enough)
                .then(|| u32::from_str_radix(&String::from_utf8(digits).ok()?, radix).ok())?
        };
        match letter {
            b'x' => value.push(u8::try_from(number(&[], 2, 16)?).ok()?),
            b'0'..=b'7' => value.push(u8::try_from(number(&[letter], 2, 8)?).ok()?),
            b'u' => value.extend(char::from_u32(number(&[], 4, 16)?)?.to_string().bytes()),
            b'U' => value.extend(char::from_u32(number(&[], 8, 16)?)?.to_string().bytes()),
            _ => {
                let known = [
                    b"a\x07",
                    b"b\x08",
                    b"f\x0c",
                    b"n\n",
                    b"r\r",
                    b"t\t",
                    b"v\x0b",
                    b"\\\\",
                    &[quote, quote],
                ];
                value.push(known.into_iter().find(|known| known[0] == letter)?[1]);
            }
        }
    }
}
