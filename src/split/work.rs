//! How much work requests and parts are, told in bytes: of remote write, which is protobuf in snappy.
//!
//! A core counts bytes to know when to poll its sockets again ([`Tasks`](crate::io::tasks::Tasks)). But a byte of JSON
//! takes 2 to 11 ns to scan, and one of protobuf mostly less than one; and a byte takes 3 ns to compress with gzip, and
//! one with snappy. If all counted alike, a few large exports in a row would hold a core for seconds. So there are
//! factors: measured, and rounded to what is common.
#![forbid(unsafe_code)]

use crate::model::Protocol;
use crate::wire::inflate::Compression;

/// The work of a byte of JSON. Each level of a document is walked again, byte by byte where there are few strings.
const JSON: usize = 8;

/// The work of a byte of JSON that is joined to others: it is walked once.
const JOINED_JSON: usize = 2;

/// Inflating and scanning what has `bytes` of inflated size.
pub fn scanning_work(protocol: Protocol, received: Compression, bytes: usize) -> usize {
    let is_json = matches!(protocol, Protocol::LokiJson | Protocol::OtlpJson(_));
    let inflating = if received == Compression::Gzip { 1 } else { 0 };
    bytes.saturating_mul(inflating + if is_json { JSON } else { 1 })
}

/// Gathering what has `bytes` of inflated size, and compressing it as it is sent.
pub fn compressing_work(sent: Compression, bytes: usize) -> usize {
    bytes.saturating_mul(if sent == Compression::Gzip { 3 } else { 1 })
}

/// The same, for what is made of several parts.
pub fn merging_work(protocol: Protocol, sent: Compression, bytes: usize) -> usize {
    let joining = if matches!(protocol, Protocol::OtlpJson(_)) { JOINED_JSON } else { 0 };
    compressing_work(sent, bytes).saturating_add(bytes.saturating_mul(joining))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression as Level;

    use super::*;
    use crate::model::SplitLimits;
    use crate::split::{Body, SplitError, SplitRules, Splitter};
    use crate::tenant::TenantRules;
    use crate::wire::otlp::Signal;

    const LIMIT: usize = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn scan(protocol: Protocol, json: &[u8]) -> (usize, Result<(), SplitError>) {
        let tenant = TenantRules::of_label(b"t");
        let limits = SplitLimits { inflated_bytes_max: LIMIT, tenants_max: 3 };
        let mut splitter = Splitter::new();
        let body = Body { protocol, compression: Compression::Gzip, bytes: gzip(json).into() };
        let result = splitter.scan(body, &SplitRules::new(&tenant, limits), None);
        (splitter.work(), result.map(|_| ()))
    }

    #[test]
    fn what_is_joined_in_json_is_more_work() {
        let of = |protocol| merging_work(protocol, Compression::Gzip, 100);
        let signal = Signal::Logs;
        assert_eq!((of(Protocol::Otlp(signal)), of(Protocol::OtlpJson(signal))), (300, 500));
        assert_eq!(merging_work(Protocol::OtlpJson(signal), Compression::Gzip, usize::MAX), usize::MAX);
    }

    #[test]
    fn what_is_refused_after_much_work_counts_as_much() {
        for protocol in [Protocol::OtlpJson(Signal::Logs), Protocol::LokiJson] {
            let mut json = b"{\"a\":\"".to_vec();
            json.resize(LIMIT, b'a');
            let (work, refused) = scan(protocol, &json);
            assert!(refused.is_err() && work == LIMIT * (1 + JSON), "{protocol:?}: {work}");
            json.extend_from_slice(b"too large");
            let (work, refused) = scan(protocol, &json);
            assert!(
                refused.is_err_and(|error| error.reason() == "too_large") && work > LIMIT * JSON,
                "{protocol:?}: {work}"
            );
        }
    }
}
