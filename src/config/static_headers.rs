//! Headers that every request to an upstream carries. Their values may be secrets: no error text, no `Debug` and no
//! page shows one.
#![forbid(unsafe_code)]

use super::header::{HEADERS_OF_TENANTS, check_header};
use super::value::{Value, Written};
use super::yaml::{Content, Name, Node};
use crate::auth::Secret;
use crate::limits::{UPSTREAM_HEADERS_BYTES_MAX, UPSTREAM_HEADERS_MAX};

/// Names and values as written, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StaticHeaders(Vec<(String, Secret)>);

/// What else is in requests, which static headers must not contradict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Others<'a> {
    /// The setting of the tenant's header.
    pub(super) tenant_header: &'a str,
    /// The headers of senders that are passed on.
    pub(super) passed: &'a [String],
    /// The setting of credentials, if there are any.
    pub(super) credentials: Option<&'a str>,
}

const AUTHORIZATION: &str = "authorization";

impl StaticHeaders {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `Authorization` is among them.
    pub(super) fn authorize(&self) -> bool {
        self.0.iter().any(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION))
    }

    /// Reads a section (`Name: value`), or a list of such items.
    pub(super) fn read(node: &Node) -> Result<Self, String> {
        let mut headers = Self::default();
        match &node.content {
            Content::Null => {}
            Content::Text(text) if text.is_empty() => {}
            Content::Map(entries) => headers.take_section(entries)?,
            Content::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    match &item.content {
                        Content::Map(entries) => headers.take_section(entries)?,
                        Content::Text(text) => headers.take_text(at, text)?,
                        Content::Null | Content::List(_) => return Err(no_header(at)),
                    }
                }
            }
            Content::Text(_) => return Err("wants a section of names and values, not a single value".into()),
        }
        Ok(headers)
    }

    fn take_section(&mut self, entries: &[(Name, Node)]) -> Result<(), String> {
        for (name, node) in entries {
            let value = match &node.content {
                Content::Text(text) => text.trim(),
                Content::Null => "",
                Content::List(_) | Content::Map(_) => {
                    let what = node.kind();
                    return Err(format!("the header on line {} wants a single value, not {what}", name.line));
                }
            };
            self.0.push((name.text.clone(), Secret::new(value)));
        }
        Ok(())
    }

    fn take_text(&mut self, at: usize, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once(':').ok_or_else(|| no_header(at))?;
        self.0.push((name.trim().to_owned(), Secret::new(value.trim())));
        Ok(())
    }

    /// Returns the lines of a request's head, if there are headers.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn check(&self, others: &Others<'_>) -> Result<Option<Secret>, Vec<String>> {
        let mut mistakes = Vec::new();
        if self.0.len() > UPSTREAM_HEADERS_MAX {
            mistakes.push(format!("there are more than the {UPSTREAM_HEADERS_MAX} that are possible"));
        }
        let mut lines = zeroize::Zeroizing::new(Vec::new());
        for (at, (name, value)) in self.0.iter().enumerate() {
            if let Err(text) = check_name(at, name, others).and_then(|()| check_value(name, value.expose())) {
                mistakes.push(text);
                continue;
            }
            if self.0.iter().take(at).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
                mistakes.push(format!("{name} is listed twice: remove one"));
            }
            for part in [name.as_bytes(), b": ", value.expose(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        if lines.len() > UPSTREAM_HEADERS_BYTES_MAX {
            mistakes
                .push(format!("they are more than the {UPSTREAM_HEADERS_BYTES_MAX} bytes that are possible"));
        }
        match mistakes.is_empty() {
            true => Ok(Some(Secret::new(lines.as_slice())).filter(|lines| !lines.is_empty())),
            false => Err(mistakes),
        }
    }
}

/// Returns the lines that [`StaticHeaders::check`] has made, without that of `Authorization`. `None` if none is left.
pub(super) fn without_authorization(lines: &Secret) -> Option<Secret> {
    let is_other = |line: &&[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case(AUTHORIZATION.as_bytes())
    };
    // A `Vec` that grows would leave secrets behind.
    let mut others = Vec::with_capacity(lines.expose().len());
    lines
        .expose()
        .split_inclusive(|byte| *byte == b'\n')
        .filter(is_other)
        .for_each(|line| others.extend_from_slice(line));
    Some(Secret::new(others)).filter(|others| !others.is_empty())
}

/// An item is not shown: it may be a value without its name.
fn no_header(at: usize) -> String {
    format!("item {} of the list is not of the form `Name: value`", at + 1)
}

fn check_name(at: usize, name: &str, others: &Others<'_>) -> Result<(), String> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let lower = name.to_ascii_lowercase();
    if is(AUTHORIZATION) {
        return match others.credentials {
            Some(key) => Err(format!("Authorization is what {key} sets: keep one of the two")),
            None => Ok(()),
        };
    }
    if is("traceparent") || is("tracestate") {
        return Err(format!("{name} is passed on as senders set it: remove it"));
    }
    if is(others.tenant_header) || HEADERS_OF_TENANTS.into_iter().any(is) {
        return Err(format!("{name} names a tenant, and every request has its own"));
    }
    if others.passed.iter().any(|passed| is(passed)) {
        return Err(format!("{name} is also in upstream.pass_headers: keep one of the two"));
    }
    // Only a name that is one is shown.
    let shown = format!("the name of header {} (not shown)", at + 1);
    if check_header(name).is_err_and(|text| text.contains("cannot contain") || name.is_empty()) {
        return Err(format!("{shown} is empty or has a character that no header's name can have"));
    }
    if ["content-", "proxy-"].iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!(
            "{name} belongs to one message or one connection, and cannot be the same for all"
        ));
    }
    check_header(name)
}

fn check_value(name: &str, value: &[u8]) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{name} has no value"));
    }
    match value.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        true => Ok(()),
        false => Err(format!("the value of {name} must be of visible ASCII characters and spaces")),
    }
}

/// A section, a list of `Name: value`, or in the variable such items separated by commas.
impl Value for StaticHeaders {
    const MAY_BE_EMPTY: bool = true;

    fn read(written: Written<'_>) -> Result<Self, String> {
        match written {
            Written::Yaml(node) => Self::read(node),
            Written::Variable(text) => {
                let mut headers = Self::default();
                let items = text.split(',').map(str::trim).enumerate();
                items
                    .filter(|_| !text.trim().is_empty())
                    .try_for_each(|(at, item)| headers.take_text(at, item))?;
                Ok(headers)
            }
        }
    }

    /// Without the values.
    fn show(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| format!("{name}: \"***\"")).collect();
        format!("{{{}}}", names.join(", "))
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    const OTHERS: Others<'static> = Others { tenant_header: "X-Tenant", passed: &[], credentials: None };

    fn read(text: &str) -> Result<StaticHeaders, String> {
        StaticHeaders::read(&yaml::read(text).unwrap())
    }

    fn lines(headers: &StaticHeaders) -> String {
        let lines = headers.check(&OTHERS).unwrap();
        String::from_utf8(lines.map_or(Vec::new(), |lines| lines.expose().to_vec())).unwrap()
    }

    fn mistakes(text: &str) -> Vec<String> {
        read(text).unwrap().check(&OTHERS).unwrap_err()
    }

    #[test]
    fn each_way_to_write_them_gives_the_same_lines() {
        let expected = "X-A: one, two\r\nx-b: c:d\r\n";
        for text in [
            "X-A: one, two\nx-b: 'c:d'\n",
            "- 'X-A: one, two'\n- 'x-b:c:d '\n",
            "- X-A: one, two\n- x-b: 'c:d'\n",
        ] {
            assert_eq!(lines(&read(text).unwrap()), expected, "{text}");
        }
        let variable = |text| <StaticHeaders as Value>::read(Written::Variable(text));
        assert_eq!(lines(&variable("X-A: b , x-c:d:e").unwrap()), "X-A: b\r\nx-c: d:e\r\n");
        for empty in ["", "{}", "[]", "''"] {
            assert_eq!(read(empty).unwrap().check(&OTHERS), Ok(None), "{empty:?}");
        }
        assert!(variable("X-A: canary, canary").unwrap_err().contains("item 2"));
    }

    #[test]
    fn names_that_have_a_meaning_of_their_own_are_refused() {
        for (name, said) in [
            ("Host", "choose another"),
            ("connection", "choose another"),
            ("Transfer-Encoding", "choose another"),
            ("User-Agent", "choose another"),
            ("Content-Length", "one message"),
            ("content-disposition", "one message"),
            ("Proxy-Authorization", "one message"),
            ("x-tenant", "names a tenant"),
            ("X-Scope-OrgID", "names a tenant"),
            ("AccountID", "names a tenant"),
            ("traceparent", "passed on"),
            ("'X A'", "the name of header 1 (not shown)"),
            ("''", "the name of header 1 (not shown)"),
        ] {
            let found = mistakes(&format!("{name}: canary"));
            assert!(found.len() == 1 && found[0].contains(said), "{name}: {found:?}");
            assert!(!found[0].contains("canary"), "{found:?}");
        }
        let authorization = read("Authorization: Custom abc").unwrap();
        assert_eq!(lines(&authorization), "Authorization: Custom abc\r\n");
        let others = Others { credentials: Some("auth.egress.username"), ..OTHERS };
        assert!(authorization.check(&others).unwrap_err()[0].contains("auth.egress.username"));
        let passed = ["x-a".to_owned()];
        let others = Others { passed: &passed, ..OTHERS };
        assert!(read("X-A: b").unwrap().check(&others).unwrap_err()[0].contains("upstream.pass_headers"));
    }

    #[test]
    fn values_cannot_break_a_head_and_all_mistakes_are_reported_without_them() {
        let found = mistakes(
            "X-A: \"canary\\r\\nX-B: c\"\nX-C: \"canary\\t\"\nX-D: ä canary\nX-E:\nx-f: \"a\\0\"\nX-G: a\nx-g: canary\n",
        );
        // The tab at the end of X-C is white space, and trimmed.
        let subjects = ["X-A", "X-D", "X-E", "x-f", "x-g"];
        assert_eq!(found.len(), subjects.len(), "{found:#?}");
        for (text, subject) in found.iter().zip(subjects) {
            assert!(text.contains(subject) && !text.contains("canary"), "{text}");
        }
        for text in ["canary", "[canary]", "[[canary]]", "X-A: [canary]", "- X-A: {canary: b}"] {
            assert!(!read(text).unwrap_err().contains("canary"), "{text}");
        }
    }

    #[test]
    fn their_number_and_size_have_limits() {
        let many: String = (0..=UPSTREAM_HEADERS_MAX).map(|n| format!("X-{n}: a\n")).collect();
        assert!(mistakes(&many)[0].contains("more than the"));
        let large = format!("X-A: {}", "b".repeat(UPSTREAM_HEADERS_BYTES_MAX));
        assert!(mistakes(&large)[0].contains("bytes"));
    }

    #[test]
    fn values_are_never_shown() {
        let headers = read("X-A: canary\nX-B: canary").unwrap();
        assert_eq!(headers.show(), "{X-A: \"***\", X-B: \"***\"}");
        assert!(!format!("{headers:?}").contains("canary"));
    }
}
