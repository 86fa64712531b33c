//! Loki pushes.

use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message;
use testkit::proto_loki::{Entry, PushRequest, Stream};

pub(crate) const STREAMS: usize = 100;
pub(crate) const ENTRIES: usize = 20;
const TENANTS: usize = 10;

fn line(at: usize) -> String {
    let mix = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "level=info ts=2026-01-01T00:00:{:02}Z caller=handler.go:{} msg=\"request done\" id={mix:016x} status=200",
        at % 60,
        at % 997
    )
}

fn labels(stream: usize, with_tenant: bool) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("app", format!("app-{}", stream % 23)),
        ("cluster", "eu-central-1-prod".to_owned()),
        ("filename", format!("/var/log/pods/app-{stream}/0.log")),
        ("namespace", format!("team-{}", stream % 17)),
    ];
    if with_tenant {
        labels.insert(0, ("__tenant__", format!("tenant-{}", stream % TENANTS)));
    }
    labels
}

fn tenant_of(entry: usize) -> String {
    format!("tenant-{}", entry % TENANTS)
}

/// As Promtail sends it. Labels or entries name the tenant.
pub(crate) fn protobuf(in_labels: bool) -> Vec<u8> {
    let stream = |at: usize| {
        let pairs: Vec<String> =
            labels(at, in_labels).iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let entry = |entry: usize| {
            let tenant = tenant_of(entry);
            let metadata = [("trace_id", "4bf92f3577b34da6"), ("__tenant__", &tenant)];
            let metadata = if in_labels { &metadata[..1] } else { &metadata[..] };
            Entry::new(1_760_000_000_000_000_000 + entry as i64, &line(at * ENTRIES + entry), metadata)
        };
        Stream {
            labels: format!("{{{}}}", pairs.join(", ")).into(),
            entries: (0..ENTRIES).map(entry).collect(),
            hash: 0,
        }
    };
    PushRequest { streams: (0..STREAMS).map(stream).collect() }.encode_to_vec()
}

/// The same in JSON, with the tenant in the labels.
pub(crate) fn json() -> String {
    let mut json = String::from("{\"streams\":[");
    for at in 0..STREAMS {
        let pairs: Vec<String> =
            labels(at, true).iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let separator = if at > 0 { "," } else { "" };
        let _ = write!(json, "{separator}{{\"stream\":{{{}}},\"values\":[", pairs.join(","));
        for entry in 0..ENTRIES {
            let (comma, line) = (if entry > 0 { "," } else { "" }, line(at * ENTRIES + entry));
            let _ = write!(json, "{comma}[\"{}\",{line:?}]", 1_760_000_000_000_000_000 + entry as u64);
        }
        json.push_str("]}");
    }
    json + "]}"
}

/// A stream of one entry for each series of a fleet.
pub(crate) fn json_streams() -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let series = super::request(STREAMS * ENTRIES, TENANTS).timeseries;
    let streams = series.iter().enumerate().map(|(at, series)| {
        let labels: serde_json::Map<_, _> =
            series.labels.iter().map(|label| (text(&label.name), text(&label.value).into())).collect();
        let nanos = (1_760_000_000_000_000_000 + at as u64).to_string();
        serde_json::json!({ "stream": labels, "values": [[nanos, line(at)]] })
    });
    serde_json::json!({ "streams": streams.collect::<Vec<_>>() }).to_string()
}
