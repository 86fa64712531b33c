//! The line about a request: the access log.
#![forbid(unsafe_code)]

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use super::LOG;
use super::format::{Lines, json_head, now, priority};

/// What the line says about a request. None of it can hold characters that a line must not have.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The ID that the upstream gets, too.
    pub request_id: u128,
    /// The sender's address.
    pub client: SocketAddr,
    /// The protocol, if its head was valid.
    pub protocol: Option<&'static str>,
    /// The answer's status.
    pub status: u16,
    /// From the first byte to the end of the answer.
    pub took: Duration,
    /// Bytes of the body, as received.
    pub bytes: usize,
    /// Tenants in the request.
    pub tenants: usize,
    /// Series, or streams.
    pub series: u64,
    /// Samples, or entries.
    pub samples: u64,
    /// The trace that it is part of.
    pub trace_id: Option<u128>,
}

/// Logs a request, whatever the log's level.
pub fn request(request: &Request) {
    if let Some(log) = LOG.get() {
        log.queue.push(line(log.format, request).as_bytes());
    }
}

const MESSAGE: &str = "request";

/// The whole line, with its line break.
fn line(format: Lines, request: &Request) -> String {
    let mut fields = Fields { out: String::with_capacity(320), is_json: format == Lines::Json };
    fields.out.push_str(&match format {
        Lines::Text => format!("{} {:>5} {MESSAGE}", now(), Level::INFO),
        Lines::Json => json_head(Level::INFO, MESSAGE),
        Lines::Journald => format!("<{}>{MESSAGE}", priority(Level::INFO)),
    });
    let Request { request_id: id, client, protocol, status, took, .. } = request;
    fields.text("request_id", uuid(*id));
    fields.text("client", client);
    if let Some(protocol) = protocol {
        fields.text("protocol", protocol);
    }
    fields.number("status", status);
    fields.number("duration_seconds", format_args!("{:.6}", took.as_secs_f64()));
    fields.number("bytes", request.bytes);
    fields.number("tenants", request.tenants);
    fields.number("series", request.series);
    fields.number("samples", request.samples);
    if let Some(trace) = request.trace_id {
        fields.text("trace_id", format_args!("{trace:032x}"));
    }
    fields.out.push_str(if format == Lines::Json { "}\n" } else { "\n" });
    fields.out
}

/// The ID as the upstream gets it (RFC 9562).
fn uuid(id: u128) -> impl Display {
    let group = |shift: u32, mask: u128| (id >> shift) & mask;
    let [a, b, c] = [group(80, 0xffff), group(64, 0xffff), group(48, 0xffff)];
    let (first, last) = (id >> 96, group(0, 0xffff_ffff_ffff));
    format!("{first:08x}-{a:04x}-{b:04x}-{c:04x}-{last:012x}")
}

struct Fields {
    out: String,
    is_json: bool,
}

impl Fields {
    // Writing to a String can't fail.
    fn text(&mut self, name: &str, value: impl Display) {
        let _ = match self.is_json {
            true => write!(self.out, ",\"{name}\":\"{value}\""),
            false => write!(self.out, " {name}=\"{value}\""),
        };
    }

    fn number(&mut self, name: &str, value: impl Display) {
        let _ = match self.is_json {
            true => write!(self.out, ",\"{name}\":{value}"),
            false => write!(self.out, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        request_id: 0x0011_2233_4455_4677_8899_aabb_ccdd_eeff,
        client: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9),
        protocol: Some("remote_write_v1"),
        status: 204,
        took: Duration::from_millis(1_250),
        bytes: 100,
        tenants: 2,
        series: 3,
        samples: 4,
        trace_id: Some(7),
    };

    #[test]
    fn a_line_has_all_fields_in_each_format() {
        let text = "request_id=\"00112233-4455-4677-8899-aabbccddeeff\" client=\"127.0.0.1:9\" \
                    protocol=\"remote_write_v1\" status=204 duration_seconds=1.250000 bytes=100 tenants=2 series=3 \
                    samples=4 trace_id=\"00000000000000000000000000000007\"\n";
        assert!(line(Lines::Text, &REQUEST).ends_with(&format!("  INFO request {text}")));
        assert_eq!(line(Lines::Journald, &REQUEST), format!("<6>request {text}"));
        let json: serde_json::Value = serde_json::from_str(&line(Lines::Json, &REQUEST)).unwrap();
        assert_eq!((&json["level"], &json["message"]), (&"info".into(), &"request".into()));
        assert_eq!((&json["status"], &json["duration_seconds"]), (&204.into(), &1.25.into()));
        assert_eq!(json["trace_id"], "00000000000000000000000000000007");
        let less = Request { protocol: None, trace_id: None, ..REQUEST };
        assert!(
            !line(Lines::Text, &less).contains("protocol") && !line(Lines::Json, &less).contains("trace")
        );
    }
}
