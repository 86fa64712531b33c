//! Writes the lines of a page, in either format.
//!
//! A page may have two hundred thousand lines, so a line is a few copies of text into one buffer. Labels are made into
//! text once for each set of labels (a tenant's once for all its lines), bounds once for each set of bounds.

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Format;
use crate::exchange::fragment::RequestId;
use crate::metrics::{Distribution, Exemplar};

/// The page that is being written.
pub(super) struct Page {
    out: String,
    format: Format,
    /// The bounds of the histogram that was written last, as text.
    bounds: Vec<(f64, String)>,
    /// The time of the page, on both clocks.
    now: (Instant, Duration),
    /// The buckets to show, by their bits, besides the last.
    buckets: u32,
}

/// Labels as the text between the braces, with their values escaped.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (i, (key, value)) in labels.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(key);
        text.push_str("=\"");
        escape(value, &mut text);
        text.push('"');
    }
    text
}

/// The text of two sets of labels together.
pub(super) fn join(first: &str, second: &str) -> String {
    let comma = if first.is_empty() || second.is_empty() { "" } else { "," };
    [first, comma, second].concat()
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            out: String::new(),
            format,
            bounds: Vec::new(),
            now: (Instant::now(), unix),
            buckets: u32::MAX,
        }
    }

    /// The text of the page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Starts a family. The lines of its samples must follow. In OpenMetrics the samples of a counter have the suffix
    /// `_total` and the family has not. A counter without it is of type `unknown` there, so that its name stays.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let (family, kind) = match (self.format, kind) {
            (Format::OpenMetrics, "counter") => match name.strip_suffix("_total") {
                Some(family) => (family, kind),
                None => (name, "unknown"),
            },
            _ => (name, kind),
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.out, "# HELP {family} {help}\n# TYPE {family} {kind}");
        if self.format == Format::OpenMetrics
            && let Some(unit) = UNITS.iter().find(|unit| family.rsplit('_').next() == Some(unit))
        {
            let _ = writeln!(self.out, "# UNIT {family} {unit}");
        }
    }

    pub(super) fn sample(&mut self, name: &str, with: &[(&str, &str)], value: impl Figure) {
        self.line(name, "", &labels(with), value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.line(name, "", "", value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Figure) {
        self.family(name, "gauge", help);
        self.line(name, "", "", value);
    }

    /// Writes a line. The labels are text already.
    pub(super) fn line(&mut self, name: &str, suffix: &str, labels: &str, value: impl Figure) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        if !labels.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            self.out.push('}');
        }
        self.out.push(' ');
        value.write(&mut self.out);
        self.out.push('\n');
    }

    /// Lets the histograms that follow have only the buckets with these bits, and the last.
    pub(super) fn show_buckets(&mut self, buckets: u32) {
        self.buckets = buckets;
    }

    /// Writes a histogram's samples: the number of values up to each bound, their sum and their count.
    pub(super) fn distribution(&mut self, name: &str, labels: &str, values: &Distribution) {
        if !self.bounds.iter().map(|(bound, _)| bound).eq(values.buckets.iter().map(|(bound, _)| bound)) {
            self.bounds = values.buckets.iter().map(|&(bound, _)| (bound, go_float(bound))).collect();
        }
        let (mut up_to_here, last) = (0, values.buckets.len().saturating_sub(1));
        for (at, &(_, n)) in values.buckets.iter().enumerate() {
            up_to_here += n;
            if at < last && at < 32 && self.buckets & (1 << at) == 0 {
                continue;
            }
            self.out.push_str(name);
            self.out.push_str("_bucket{");
            self.out.push_str(labels);
            self.out.push_str(if labels.is_empty() { "le=\"" } else { ",le=\"" });
            self.out.push_str(self.bounds.get(at).map_or("", |(_, text)| text));
            self.out.push_str("\"} ");
            up_to_here.write(&mut self.out);
            if let (Format::OpenMetrics, Some(Some(exemplar))) = (self.format, values.exemplars.get(at)) {
                self.exemplar(exemplar);
            }
            self.out.push('\n');
        }
        self.line(name, "_sum", labels, values.sum);
        self.line(name, "_count", labels, up_to_here);
    }

    /// Ends a bucket's line with its exemplar. Its labels take less than the 128 characters that are allowed.
    fn exemplar(&mut self, exemplar: &Exemplar) {
        let (id, value, (now, unix)) = (RequestId(exemplar.request_id), exemplar.value, self.now);
        let at = unix.saturating_sub(exemplar.age(now)).as_secs_f64();
        let _ = write!(self.out, " # {{request_id=\"{id}\"}} {value} {at:.3}");
    }
}

/// The units that names end in.
const UNITS: [&str; 3] = ["seconds", "milliseconds", "bytes"];

/// A sample's value.
pub(super) trait Figure {
    fn write(&self, out: &mut String);
}

impl Figure for u64 {
    fn write(&self, out: &mut String) {
        out.push_str(itoa::Buffer::new().format(*self));
    }
}

impl Figure for usize {
    fn write(&self, out: &mut String) {
        out.push_str(itoa::Buffer::new().format(*self));
    }
}

impl Figure for i32 {
    fn write(&self, out: &mut String) {
        out.push_str(itoa::Buffer::new().format(*self));
    }
}

impl Figure for f64 {
    fn write(&self, out: &mut String) {
        let _ = match self.is_infinite() {
            true => out.write_str(if *self > 0.0 { "+Inf" } else { "-Inf" }),
            false => write!(out, "{self}"),
        };
    }
}

/// Appends a label's value, escaped for either format.
fn escape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        out.push_str(match from.as_bytes().first() {
            Some(b'"') => "\\\"",
            Some(b'\n') => "\\n",
            _ => "\\\\",
        });
        rest = from.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// A positive number as Go's `strconv.FormatFloat(v, 'g', -1, 64)` writes it. The label `le` is text, and a query for
/// cortex-tenant's `le="1.8e+06"` must match here.
fn go_float(value: f64) -> String {
    if value.is_infinite() {
        return "+Inf".to_owned();
    }
    if (1e-4..1e6).contains(&value) {
        return value.to_string();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        escape("a\"\\\n}ü", &mut out);
        assert_eq!(out, r#"a\"\\\n}ü"#);
    }

    #[test]
    fn bounds_are_written_as_go_does() {
        let bounds = [0.00005, 0.0001, 0.5, 1.0, 2500.0, 3e5, 1e6, 1.8e6, f64::INFINITY];
        let written = ["5e-05", "0.0001", "0.5", "1", "2500", "300000", "1e+06", "1.8e+06", "+Inf"];
        assert_eq!(bounds.map(go_float), written);
    }
}
