//! Explains a captured body: its parts, and the series that are refused.
#![forbid(unsafe_code)]

use bytes::Bytes;
use serde_json::{Value, json};
use std::ops::ControlFlow;

use super::place::Place;
use super::sender::Sender;
use super::told::Told;
use crate::config::Plan;
use crate::format::{destination_of, format};
use crate::http::{Encoding, Media, Refusal};
use crate::model::{MetadataRule, Part, Protocol, RefusedSeries, Signal, V2Handling};
use crate::selector::show_series;
use crate::split::{
    Body, Compression, Families, Labelled, Merger, Metadata, Scan, SplitRules, Splitter, each_series,
};
use crate::tenant::TenantId;
use crate::wire::inflate::Inflater;
use crate::wire::{loki, remote_write_v1, remote_write_v2};

/// What is known about a body besides its bytes. What is not known is detected.
#[derive(Clone, Default, Debug)]
pub struct Hints {
    /// The path that it was sent to.
    pub path: Option<String>,
    /// Its Content-Type.
    pub content_type: Option<String>,
    /// Its Content-Encoding.
    pub content_encoding: Option<String>,
    /// Its format, whatever its head says.
    pub protocol: Option<Protocol>,
    /// Its compression, whatever its head says.
    pub compression: Option<Compression>,
}

impl Hints {
    /// How the server reads a body.
    ///
    /// # Errors
    /// If it refuses the body by its head.
    pub(super) fn read(&self, bytes: &[u8], takes_v2: bool) -> Result<(Protocol, Compression), Refusal> {
        let (protocol, compression) = match (&self.path, self.protocol) {
            (Some(path), None) => self.by_head(path, takes_v2)?,
            (Some(path), Some(_)) => self.by_head(path, true).unwrap_or_else(|_| detect(bytes)),
            (None, _) => detect(bytes),
        };
        let protocol = self.protocol.unwrap_or(protocol);
        if protocol == Protocol::RemoteWriteV2 && !takes_v2 {
            return Err(Refusal::RemoteWriteV2);
        }
        Ok((protocol, self.compression.unwrap_or(compression)))
    }

    fn by_head(&self, path: &str, takes_v2: bool) -> Result<(Protocol, Compression), Refusal> {
        let destination = destination_of(path.as_bytes()).ok_or(Refusal::NotFound)?;
        let media = self.content_type.as_ref().map_or(Media::Protobuf, |text| Media::of(text.as_bytes()));
        let encoding =
            self.content_encoding.as_ref().map_or(Encoding::Absent, |text| Encoding::of(text.as_bytes()));
        format(destination, media, encoding, takes_v2)
    }
}

/// The most that is inflated to find out what a body is.
const DETECT_BYTES_MAX: usize = 256 << 20;

/// The format and compression that a body looks like.
fn detect(bytes: &[u8]) -> (Protocol, Compression) {
    let mut inflater = Inflater::default();
    // Snappy declares the length of what it inflates to, so nothing else passes for it.
    let compressions = [Compression::Snappy, Compression::Zstd, Compression::Gzip];
    for compression in compressions {
        if inflater.inflate(bytes, compression, DETECT_BYTES_MAX).is_ok() && !inflater.bytes().is_empty() {
            return (protocol_of(inflater.bytes()), compression);
        }
    }
    (protocol_of(bytes), Compression::Identity)
}

/// The format that inflated bytes look like. Bytes that look like none count as Remote Write 1.0.
fn protocol_of(inflated: &[u8]) -> Protocol {
    if inflated.trim_ascii_start().starts_with(b"{") {
        return json_protocol_of(inflated);
    }
    if let Ok(Some(remote_write_v2::Field::Symbol(_) | remote_write_v2::Field::Series(_))) =
        remote_write_v2::Fields::new(inflated).take()
    {
        return Protocol::RemoteWriteV2;
    }
    // Both have their series in field 1, which begins with labels: a message there, text here.
    let is_stream = |stream: &[u8]| {
        let seen = loki::Stream::read(stream).unwrap_or_default();
        stream.get(seen.labels).is_some_and(|text| text.trim_ascii_start().starts_with(b"{"))
    };
    match remote_write_v1::Fields::new(inflated).take() {
        Ok(Some(remote_write_v1::Field::Series(first))) if is_stream(first) => Protocol::Loki,
        _ => Protocol::RemoteWriteV1,
    }
}

/// The format that JSON looks like: the first name of a list of streams or of resources tells. What has none counts as
/// a Loki push.
fn json_protocol_of(json: &[u8]) -> Protocol {
    let names: [(&[u8], Protocol); 7] = [
        (b"\"streams\"", Protocol::LokiJson),
        (b"\"resourceMetrics\"", Protocol::OtlpJson(Signal::Metrics)),
        (b"\"resource_metrics\"", Protocol::OtlpJson(Signal::Metrics)),
        (b"\"resourceLogs\"", Protocol::OtlpJson(Signal::Logs)),
        (b"\"resource_logs\"", Protocol::OtlpJson(Signal::Logs)),
        (b"\"resourceSpans\"", Protocol::OtlpJson(Signal::Traces)),
        (b"\"resource_spans\"", Protocol::OtlpJson(Signal::Traces)),
    ];
    let found = names.iter().filter_map(|(name, protocol)| {
        let at = json.windows(name.len()).position(|found| found == *name)?;
        Some((at, *protocol))
    });
    found.min_by_key(|(at, _)| *at).map_or(Protocol::LokiJson, |(_, protocol)| protocol)
}

/// The part of one tenant.
#[derive(Clone, Debug)]
pub struct PartSummary {
    /// The tenant, as the upstream is told.
    pub tenant: String,
    /// Where it is sent.
    pub place: Place,
    /// Series or streams.
    pub series: u32,
    /// Samples and histograms, or entries.
    pub samples: u32,
    /// Bytes as sent.
    pub bytes: usize,
    /// Bytes after inflation.
    pub inflated_bytes: u32,
}

/// Series that are left out, or for which a request is refused, for one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// `missing`, `invalid`, `denied` or `dropped`.
    pub decision: &'static str,
    /// Series, or streams and entries with metadata of their own.
    pub series: u64,
    /// Their samples or entries.
    pub samples: u64,
    /// The first of them.
    pub example: String,
    /// Why it has no tenant.
    pub reason: String,
}

/// What happens to a body.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its format and compression, if the server takes them.
    pub read_as: Option<(Protocol, Compression)>,
    /// Its size as sent.
    pub bytes: usize,
    /// What is found in it, if it can be split.
    pub scan: Option<Scan>,
    /// The parts that are forwarded.
    pub parts: Vec<PartSummary>,
    /// The series that are not.
    pub left: Vec<Left>,
    /// What the sender is told if the upstreams store all parts; `None` for a 2xx.
    pub told: Option<Told>,
}

/// A body that has been split.
pub(super) struct Split {
    pub(super) scan: Scan,
    pub(super) parts: Vec<Part>,
}

/// Splits a body as the server does. Routed metadata is treated as if no earlier request were known.
///
/// # Errors
/// What the sender is told if the whole request is refused.
pub(super) fn split(plan: &Plan, body: Body, sender: &Sender) -> Result<Split, Told> {
    let limit = plan.limits.body_bytes_max;
    if body.bytes.len() > limit {
        return Err(Told::of_refusal(&Refusal::BodyTooLarge { limit }));
    }
    let destination = body.protocol.destination();
    if !plan.takes(destination) {
        return Err(Told::of_refusal(&Refusal::NoTarget { key: destination.key() }));
    }
    let families = Families::default();
    let rules = SplitRules {
        tenant: plan.tenant_rules(destination),
        grant: &sender.grant,
        metadata: match plan.metadata {
            MetadataRule::Drop => Metadata::Drop,
            MetadataRule::ToDefault => Metadata::ToDefault,
            MetadataRule::Route => Metadata::Route(&families),
        },
        ha: plan.merge.ha_labels.as_ref(),
        loki_label_remove: plan.loki_label_remove,
        remote_write_v2: plan.remote_write_v2.unwrap_or_default(),
        limits: plan.split_limits(),
    };
    let mut splitter = Splitter::new();
    let scan =
        splitter.scan(body, &rules, sender.source.as_deref()).map_err(|error| Told::of_error(&error))?;
    let coding = |tenant: &TenantId| {
        let (_, terms) =
            plan.upstream_of(tenant, sender.source.as_deref().map(str::as_bytes), &sender.grant, destination);
        *terms.codings.of(destination)
    };
    let parts = std::iter::from_fn(|| splitter.next_part_as(coding)).collect();
    Ok(Split { scan, parts })
}

/// Whether a request forwards nothing of this series, because Remote Write 1.0 cannot express it. Then it needs no
/// tenant.
pub(super) fn is_lost(plan: &Plan, protocol: Protocol, series: &Labelled<'_>) -> bool {
    let downgrades = plan.remote_write_v2.unwrap_or_default() == V2Handling::Downgrade;
    series.lost_in_v1 && downgrades && protocol == Protocol::RemoteWriteV2
}

/// Explains a body.
pub fn summarize(plan: &Plan, bytes: &Bytes, hints: &Hints, sender: &Sender) -> Summary {
    let mut summary = Summary {
        read_as: None,
        bytes: bytes.len(),
        scan: None,
        parts: Vec::new(),
        left: Vec::new(),
        told: None,
    };
    let (protocol, compression) = match hints.read(bytes, plan.remote_write_v2.is_some()) {
        Ok(read_as) => read_as,
        Err(refusal) => {
            summary.told = Some(Told::of_refusal(&refusal));
            return summary;
        }
    };
    summary.read_as = Some((protocol, compression));
    let destination = protocol.destination();
    let body = Body { protocol, compression, bytes: bytes.clone() };
    let has_left_some = match split(plan, body.clone(), sender) {
        Ok(Split { scan, parts }) => {
            let part = |part: &Part| PartSummary {
                tenant: part.tenant.to_string(),
                place: Place::of(plan, &part.tenant, sender, destination),
                series: part.series,
                samples: part.samples,
                bytes: deflated_bytes(part),
                inflated_bytes: part.inflated_bytes,
            };
            summary.parts = parts.iter().map(part).collect();
            let refused = &scan.refused;
            summary.told = Told::of_left_out(plan, destination, &parts, refused, reason_of(refused));
            let some = refused.series() > 0;
            summary.scan = Some(scan);
            some
        }
        Err(told) => {
            let is_tenants = told.reason.ends_with("_tenant");
            summary.told = Some(told);
            is_tenants
        }
    };
    if has_left_some {
        summary.left = left(plan, body, sender);
    }
    summary
}

/// The reason that most series are left out for, as one word.
fn reason_of(refused: &RefusedSeries) -> &'static str {
    let counts = [
        (refused.missing, "missing_tenant"),
        (refused.invalid, "invalid_tenant"),
        (refused.denied, "denied_tenant"),
    ];
    counts.into_iter().max_by_key(|(count, _)| *count).map_or("", |(_, reason)| reason)
}

/// All series without a tenant, by reason.
fn left(plan: &Plan, body: Body, sender: &Sender) -> Vec<Left> {
    let mut all: Vec<Left> = Vec::new();
    let protocol = body.protocol;
    let (rules, removes) =
        (plan.tenant_rules(protocol.destination()), plan.removes_label(protocol.destination()));
    let mut visit = |series: &Labelled<'_>| {
        if is_lost(plan, protocol, series) {
            return;
        }
        let decision = series.decide(rules, sender.source.as_deref(), &sender.grant, removes);
        let word = decision.word();
        let Err(error) = decision.tenant else { return };
        match all.iter_mut().find(|left| left.decision == word) {
            Some(left) => {
                left.series += 1;
                left.samples += series.samples;
            }
            None => all.push(Left {
                decision: word,
                series: 1,
                samples: series.samples,
                example: show_series(series.labels()),
                reason: error.to_string(),
            }),
        }
    };
    // The splitter has read it, or refuses it for a tenant; what was shown until an error is right.
    let _ = each_series(body, plan.split_limits(), usize::MAX, |series| {
        visit(series);
        ControlFlow::Continue(())
    });
    all
}

/// A format's name, as in `--format`.
pub fn format_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::RemoteWriteV1 => "remote-write-1",
        Protocol::RemoteWriteV2 => "remote-write-2",
        Protocol::Loki => "loki",
        Protocol::LokiJson => "loki-json",
        Protocol::Otlp(Signal::Metrics) => "otlp-metrics",
        Protocol::Otlp(Signal::Logs) => "otlp-logs",
        Protocol::Otlp(Signal::Traces) => "otlp-traces",
        Protocol::OtlpJson(Signal::Metrics) => "otlp-metrics-json",
        Protocol::OtlpJson(Signal::Logs) => "otlp-logs-json",
        Protocol::OtlpJson(Signal::Traces) => "otlp-traces-json",
    }
}

/// A compression's name, as in `--encoding`.
fn encoding_name(compression: Compression) -> &'static str {
    match compression {
        Compression::Snappy => "snappy",
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
        Compression::Identity => "none",
    }
}

impl Summary {
    /// The names of format and compression, if the server takes them.
    pub fn names(&self) -> Option<(&'static str, &'static str)> {
        self.read_as.map(|(protocol, compression)| (format_name(protocol), encoding_name(compression)))
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let (format, encoding) = self.names().unzip();
        let scan = self.scan.as_ref();
        json!({
            "format": format,
            "encoding": encoding,
            "bytes": self.bytes,
            "inflated_bytes": scan.map(|scan| scan.inflated_bytes),
            "series": scan.map(|scan| scan.series),
            "samples": scan.map(|scan| scan.samples),
            "parts": self.parts.iter().map(PartSummary::json).collect::<Vec<_>>(),
            "left_out": self.left.iter().map(Left::json).collect::<Vec<_>>(),
            "metadata_dropped": scan.map(|scan| scan.metadata_dropped),
            "answer": self.told.as_ref().map(Told::json),
        })
    }
}

impl PartSummary {
    fn json(&self) -> Value {
        let (header, headers) = self.place.headers_json();
        json!({
            "tenant": self.tenant,
            "upstream": self.place.upstream,
            "target": self.place.target,
            "header": header,
            "headers": headers,
            "series": self.series,
            "samples": self.samples,
            "bytes": self.bytes,
            "inflated_bytes": self.inflated_bytes,
        })
    }
}

impl Left {
    fn json(&self) -> Value {
        json!({
            "decision": self.decision,
            "series": self.series,
            "samples": self.samples,
            "example": self.example,
            "reason": self.reason,
        })
    }
}

/// Returns the size of a part as it is sent alone.
fn deflated_bytes(part: &Part) -> usize {
    Merger::default().deflate(part).map_or(part.elements.len(), |deflated| deflated.elements.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Login;

    #[test]
    fn json_is_told_by_its_first_list() {
        for (json, name) in [
            (r#"{"streams":[{"stream":{"resourceLogs":""}}]}"#, "loki-json"),
            (r#" {"resourceMetrics":[]}"#, "otlp-metrics-json"),
            (r#"{"resource_metrics":[]}"#, "otlp-metrics-json"),
            (r#"{"x":1,"resourceLogs":[{"a":"streams"},{"b":{"streams":[]}}]}"#, "otlp-logs-json"),
            (r#"{"resource_logs":["#, "otlp-logs-json"),
            (r#"{"resourceSpans":[]}"#, "otlp-traces-json"),
            (r#"{"resource_spans":[]}"#, "otlp-traces-json"),
            ("{}", "loki-json"),
        ] {
            assert_eq!(format_name(protocol_of(json.as_bytes())), name, "{json}");
        }
    }

    /// What becomes of an export of two log records, one with a tenant.
    fn summary(config: &str, records: &str) -> Summary {
        let config = format!("tenant: {{attributes: [tenant], on_missing: drop}}\n{config}");
        let plan = crate::config::parse("f", &config, []).unwrap();
        let sender = Sender::new(&plan, None, Login::None).unwrap();
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
        summarize(&plan, &json.into_bytes().into(), &Hints::default(), &sender)
    }

    const WITH: &str = r#"{"attributes":[{"key":"tenant","value":{"stringValue":"a"}}]}"#;
    const WITHOUT: &str = r#"{"attributes":[]}"#;

    #[test]
    fn exports_are_answered_in_the_words_of_otlp() {
        let some = summary("", &format!("{WITH},{WITHOUT}"));
        let told = some.told.unwrap();
        assert_eq!((told.status, some.parts.len()), (200, 1), "{told:?}");
        assert!(told.text.starts_with("1 log records rejected: "), "{told:?}");
        assert_eq!(summary("", WITHOUT).told.unwrap().status, 400);
        assert_eq!(summary("", WITH).told, None);
        let own = summary("listen: :4318", WITH).told.unwrap();
        assert_eq!((own.status, own.reason), (404, "path"), "{own:?}");
    }

    #[test]
    fn parts_have_the_size_that_their_target_gets() {
        let records = vec![WITH; 100].join(",");
        let plain = summary("", &records).parts[0].bytes;
        let coded = summary("target_otlp_logs_coding: gzip", &records).parts[0].bytes;
        assert!(coded * 2 < plain, "{coded} of {plain}");
    }
}
