//! `http_server_config` and `rate_limit`.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::reader::Reader;
use crate::config::excerpt::found;
use crate::config::yaml::Node;

const SECTION: &str = "http_server_config";
const HEADERS: &str = "http_server_config.headers";

/// The headers that may be set, and their values if only some are allowed. Names are compared with their case, as the
/// toolkit does.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// The headers to add to responses.
pub(super) fn read(reader: &mut Reader<'_>, node: Node) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for (name, node) in reader.section(SECTION, node) {
        match name.text.as_str() {
            "http2" => {
                if reader.value("http_server_config.http2", &node) == Some(true) {
                    reader.notice(name.line, "http_server_config.http2", "Tenantry speaks HTTP/1.1 only");
                }
            }
            "headers" => {
                for (name, node) in reader.section(HEADERS, node) {
                    headers.extend(header(reader, &name.text, name.line, &node));
                }
            }
            _ => reader.unknown(SECTION, &name),
        }
    }
    headers
}

/// A header and its value. A blank value means that it is not set.
fn header(reader: &mut Reader<'_>, name: &str, line: usize, node: &Node) -> Option<(&'static str, String)> {
    let key = super::reader::path(HEADERS, name);
    let Some((name, values)) = ALLOWED.into_iter().find(|(allowed, _)| *allowed == name) else {
        let names: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
        reader.mistake(line, &key, format!("this header cannot be set; possible are {}", names.join(", ")));
        return None;
    };
    let value = reader.value::<String>(&key, node).filter(|value| !value.is_empty())?;
    if !values.is_empty() && !values.contains(&value.as_str()) {
        reader.mistake(
            node.line,
            &key,
            format!("{} is not possible; write {}", found(&value), values.join(" or ")),
        );
        return None;
    }
    // RFC 9110 section 5.5. Other bytes than ASCII are obsolete there.
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) || value.trim() != value {
        reader.mistake(node.line, &key, format!("{} cannot be the value of a header", found(&value)));
        return None;
    }
    Some((name, value))
}

/// `rate_limit` is checked, but requests are limited by other means here.
pub(super) fn rate_limit(reader: &mut Reader<'_>, node: Node) {
    let line = node.line;
    let mut limits = false;
    for (name, node) in reader.section("rate_limit", node) {
        match name.text.as_str() {
            "interval" => {
                limits = reader
                    .value::<Duration>("rate_limit.interval", &node)
                    .is_some_and(|interval| !interval.is_zero());
            }
            "burst" => drop(reader.value::<usize>("rate_limit.burst", &node)),
            _ => reader.unknown("rate_limit", &name),
        }
    }
    if limits {
        reader.notice(line, "rate_limit", "has no effect; `concurrency` and `limits` bound the load");
    }
}
