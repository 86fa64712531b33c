//! `tenantry explain`: where a series, or each part of a captured request, goes.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::capture::{self, Captured};
use super::login::LoginArgs;
use super::output::{EXIT_USAGE, print, print_error, print_json, report_mistakes};
use crate::config::{self, Plan};
use crate::explain::{Explained, Hints, PartSummary, Place, Sender, Summary, Told, explain, summarize};
use crate::model::{Destination, Protocol, Signal};
use crate::selector::Series;
use crate::split::Compression;
use crate::tenant::{DecidingLabel, TenantError};
use crate::text::{escaped, quote};

/// The arguments of `tenantry explain`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct ExplainArgs {
    /// Read settings from this YAML file; CT_ environment variables win over it
    // As for the server, the last one counts, and an empty name is none.
    #[arg(short, long, value_name = "FILE", overrides_with = "config")]
    config: Option<OsString>,

    /// The value of the request's tenant header; for a captured request, the one that was captured
    #[arg(long, value_name = "HEADER")]
    source: Option<String>,

    /// What the series is: a series of metrics, the labels of a stream of logs, or the attributes of a resource in OTLP
    #[arg(
        long,
        value_enum,
        value_name = "metrics|logs|otlp-metrics|otlp-logs|otlp-traces",
        hide_possible_values = true,
        default_value_t
    )]
    destination: DestinationArg,

    #[command(flatten)]
    login: LoginArgs,

    /// The format of a body: remote-write-1, remote-write-2, loki, loki-json, otlp-metrics, otlp-logs, otlp-traces, or
    /// one of these three with -json [default: as captured, or detected]; OTLP in protobuf is not detected
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<FormatArg>,

    /// The compression of a body: snappy, zstd, gzip or none [default: as captured, or detected]
    #[arg(long, value_enum, hide_possible_values = true)]
    encoding: Option<EncodingArg>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// A series such as {__name__="up",namespace="a"}, or a file with the body of a request
    #[arg(value_name = "SERIES|FILE")]
    what: OsString,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DestinationArg {
    #[default]
    Metrics,
    Logs,
    OtlpMetrics,
    OtlpLogs,
    OtlpTraces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    #[value(name = "remote-write-1")]
    RemoteWrite1,
    #[value(name = "remote-write-2")]
    RemoteWrite2,
    Loki,
    LokiJson,
    OtlpMetrics,
    OtlpLogs,
    OtlpTraces,
    OtlpMetricsJson,
    OtlpLogsJson,
    OtlpTracesJson,
}

impl FormatArg {
    fn protocol(self) -> Protocol {
        match self {
            Self::RemoteWrite1 => Protocol::RemoteWriteV1,
            Self::RemoteWrite2 => Protocol::RemoteWriteV2,
            Self::Loki => Protocol::Loki,
            Self::LokiJson => Protocol::LokiJson,
            Self::OtlpMetrics => Protocol::Otlp(Signal::Metrics),
            Self::OtlpLogs => Protocol::Otlp(Signal::Logs),
            Self::OtlpTraces => Protocol::Otlp(Signal::Traces),
            Self::OtlpMetricsJson => Protocol::OtlpJson(Signal::Metrics),
            Self::OtlpLogsJson => Protocol::OtlpJson(Signal::Logs),
            Self::OtlpTracesJson => Protocol::OtlpJson(Signal::Traces),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EncodingArg {
    Snappy,
    Zstd,
    Gzip,
    None,
}

/// Runs the command.
pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let file = args.config.as_ref().filter(|name| !name.is_empty()).map(PathBuf::from);
    let plan = match config::load(file.as_deref()) {
        Ok(plan) => plan,
        Err(mistakes) => return report_mistakes(&mistakes),
    };
    let sender = match Sender::new(&plan, args.source.as_deref(), args.login.login()) {
        Ok(sender) => sender,
        Err(denied) => return print_denied(&denied.to_string(), args.json),
    };
    let path = Path::new(&args.what);
    if path.exists() {
        return body(args, &plan, &sender, path);
    }
    let text = args.what.to_string_lossy();
    match Series::parse(&text) {
        Ok(series) => one(args, &plan, &sender, series),
        Err(error) => {
            let also = if text.contains('{') { "" } else { "there is no such file, and " };
            print_error(&format_args!("{}: {also}it is not a series: {error}", escaped(&text)));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The access rules allow the login no tenant.
fn print_denied(why: &str, as_json: bool) -> ExitCode {
    if as_json {
        let answer = json!({"status": 403, "text": why, "reason": "forbidden", "whole_request": true});
        return print_json(&json!({"decision": "denied", "tenant": null, "reason": why, "answer": answer}));
    }
    print(&format!("refused    {why}\nanswer     403, for the whole request\n"))
}

fn one(args: &ExplainArgs, plan: &Plan, sender: &Sender, series: Series) -> ExitCode {
    let destination = match args.destination {
        DestinationArg::Metrics => Destination::Metrics,
        DestinationArg::Logs => Destination::Logs,
        DestinationArg::OtlpMetrics => Destination::OtlpMetrics,
        DestinationArg::OtlpLogs => Destination::OtlpLogs,
        DestinationArg::OtlpTraces => Destination::OtlpTraces,
    };
    let explained = explain(plan, series, sender, destination);
    if args.json {
        return print_json(&explained.json());
    }
    let mut lines = Lines::default();
    lines.series(plan, &explained);
    lines.note_access(plan, args);
    print(&lines.0)
}

fn body(args: &ExplainArgs, plan: &Plan, sender: &Sender, path: &Path) -> ExitCode {
    let Captured { bytes, hints, source } = match capture::read(path) {
        Ok(captured) => captured,
        Err(error) => {
            print_error(&error);
            return ExitCode::FAILURE;
        }
    };
    let protocol = args.format.map(FormatArg::protocol);
    let compression = args.encoding.map(|encoding| match encoding {
        EncodingArg::Snappy => Compression::Snappy,
        EncodingArg::Zstd => Compression::Zstd,
        EncodingArg::Gzip => Compression::Gzip,
        EncodingArg::None => Compression::Identity,
    });
    let hints = Hints { protocol, compression, ..hints };
    let source = args.source.as_deref().or(source.as_deref());
    let summary = summarize(plan, &bytes, &hints, &sender.with_source(plan, source));
    if args.json {
        return print_json(&summary.json());
    }
    let mut lines = Lines::default();
    lines.body(&summary);
    lines.note_access(plan, args);
    print(&lines.0)
}

/// The lines of a report, each with its subject in front.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, subject: &str, text: &str) {
        self.0.push_str(&format!("{subject:<10} {}\n", escaped(text)));
    }

    fn series(&mut self, plan: &Plan, explained: &Explained) {
        let Explained { series, decision, rule, place, told } = explained;
        self.add("series", &series.to_string());
        match &decision.label {
            Some(label) => self.label(plan, label, decision.label_removed),
            None => self.add("label", "none of the tenant labels has a value"),
        }
        if let Some(rule) = rule {
            self.add("rule", rule);
        }
        match &decision.tenant {
            Ok(tenant) => self.add("tenant", tenant.as_str()),
            Err(error @ TenantError::Dropped { .. }) => {
                self.add("dropped", &error.to_string());
                self.add("answer", "the sender is not told of it");
                return;
            }
            Err(error) => self.add("refused", &error.to_string()),
        }
        match place {
            Some(place) => self.place(place),
            None => self.answer(told.as_ref()),
        }
    }

    fn label(&mut self, plan: &Plan, label: &DecidingLabel, is_removed: bool) {
        let mut text = String::from_utf8_lossy(&label.name).into_owned();
        text.push('=');
        quote(&label.value, &mut text);
        let labels = plan.tenant.labels.len();
        if labels > 1 {
            text.push_str(&format!(", number {} of {labels} by priority", label.priority + 1));
        }
        text.push_str(if is_removed { "; it is removed" } else { "; it stays" });
        self.add("label", &text);
    }

    fn place(&mut self, place: &Place) {
        for (name, value) in &place.headers {
            self.add("header", &format!("{name}: {value}"));
        }
        self.add("upstream", &place.upstream);
        self.add("target", &place.target);
    }

    fn answer(&mut self, told: Option<&Told>) {
        match told {
            Some(told) if told.whole_request => {
                self.add("answer", &format!("{} for the whole request: {}", told.status, told.text));
            }
            Some(told) => {
                self.add("answer", &format!("{}, after the rest is stored: {}", told.status, told.text));
            }
            None => self.add("answer", "204, as `tenant.accept_all` is set"),
        }
    }

    fn body(&mut self, summary: &Summary) {
        let read_as = match summary.names() {
            Some((format, encoding)) => format!("{}, {format}, {encoding}", bytes(summary.bytes)),
            None => bytes(summary.bytes),
        };
        self.add("body", &read_as);
        if let Some(scan) = &summary.scan {
            let [series, samples] = [scan.series, scan.samples];
            let inflated = bytes(scan.inflated_bytes);
            self.add("content", &format!("{series} series, {samples} samples, {inflated} inflated"));
        }
        summary.parts.iter().for_each(|part| self.part(part));
        let verb = if summary.scan.is_some() { "left out" } else { "at fault" };
        for left in &summary.left {
            let counts = format!("{} series, {} samples", left.series, left.samples);
            self.add(verb, &format!("{} ({counts}): {}", left.decision, left.reason));
            self.add("", &format!("such as {}", left.example));
        }
        match &summary.told {
            Some(told) => self.answer(Some(told)),
            None => self.add("answer", "2xx, if the upstreams store all parts"),
        }
    }

    fn part(&mut self, part: &PartSummary) {
        let PartSummary { tenant, place, series, samples, inflated_bytes, .. } = part;
        let size = format!("{} ({inflated_bytes} inflated)", bytes(part.bytes));
        self.add("part", &format!("{tenant}: {series} series, {samples} samples, {size}"));
        let headers: Vec<_> = place.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        self.add("", &format!("to {}, {}, with {}", place.upstream, place.target, headers.join(", ")));
    }

    fn note_access(&mut self, plan: &Plan, args: &ExplainArgs) {
        if plan.auth.access().is_some() && !args.login.is_given() {
            self.add("note", "access rules are left out: name the sender by --user or --token");
        }
    }
}

fn bytes(count: usize) -> String {
    format!("{count} bytes")
}
