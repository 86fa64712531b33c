//! In which format and coding a client wants /metrics (RFC 9110 sections 12.4 and 12.5).
//!
//! A client that wants none of what there is gets the classic text, not compressed, rather than a 406: that is what
//! each gets that says nothing, and a scrape must not fail for a detail of its head.
#![forbid(unsafe_code)]

use crate::limits::HEAD_FIELDS_MAX;

/// A format of /metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format 0.0.4.
    #[default]
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A content coding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// None.
    #[default]
    Identity,
    /// `gzip`
    Gzip,
    /// `zstd`
    Zstd,
}

impl Coding {
    /// The name for `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: Format,
    pub(super) coding: Coding,
}

impl Wanted {
    /// All that can be wanted.
    pub(super) const ALL: usize = 6;

    /// Its number among all, below [`Wanted::ALL`].
    pub(super) fn number(self) -> usize {
        self.format as usize * 3 + self.coding as usize
    }

    /// What the fields of this head say. It was parsed before, so its syntax is right.
    pub(super) fn parse(head: &[u8]) -> Self {
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
            return Self::default();
        }
        let all = |name: &str| {
            let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            fields.filter_map(|field| std::str::from_utf8(field.value).ok()).collect::<Vec<_>>().join(",")
        };
        Self { format: format(&all("accept")), coding: coding(&all("accept-encoding")) }
    }
}

/// An element of a list: what it names, its parameters, and its weight in thousandths.
struct Choice<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    weight: u16,
}

/// The elements of a list. Values with a comma or a semicolon in quotes do not occur in what we look for, and an
/// element that is torn apart at one matches nothing.
fn choices(list: &str) -> impl Iterator<Item = Choice<'_>> {
    list.split(',').map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('='));
        let mut parameters: Vec<_> =
            parameters.map(|(key, value)| (key.trim_end(), value.trim_start().trim_matches('"'))).collect();
        let q = parameters.iter().position(|(key, _)| key.eq_ignore_ascii_case("q"));
        let weight = q.map_or(1_000, |at| weight(parameters.swap_remove(at).1));
        Choice { name, parameters, weight }
    })
}

/// A weight in thousandths; 0 if it is none.
fn weight(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !digits(fraction) {
        return 0;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().unwrap_or(0);
    match whole {
        "1" => 1_000,
        _ => thousandths,
    }
}

/// OpenMetrics must be named; a range such as `*/*` means the classic text.
fn format(accept: &str) -> Format {
    let (mut open, mut classic) = (0, (0, 0));
    for Choice { name, parameters, weight } in choices(accept) {
        let version = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case("version")).map(|(_, v)| *v);
        if name.eq_ignore_ascii_case("application/openmetrics-text") && version.is_none_or(|v| v == "1.0.0") {
            open = open.max(weight);
        }
        // The most specific range decides.
        let specific = match name.to_ascii_lowercase().as_str() {
            "text/plain" if version.is_none_or(|v| v == "0.0.4") => 3,
            "text/*" => 2,
            "*/*" => 1,
            _ => continue,
        };
        classic = classic.max((specific, weight));
    }
    if open > 0 && open >= classic.1 { Format::OpenMetrics } else { Format::Classic }
}

/// Of equal weights, zstd comes first, as it takes the least time, then gzip. Without the field, nothing is compressed.
fn coding(accept_encoding: &str) -> Coding {
    let (mut named, mut others) = ([None; 3], None);
    for Choice { name, weight, .. } in choices(accept_encoding) {
        let name = name.to_ascii_lowercase();
        let at = match name.as_str() {
            "zstd" => 0,
            "gzip" | "x-gzip" => 1,
            "identity" => 2,
            "*" => {
                others = Some(weight);
                continue;
            }
            _ => continue,
        };
        named[at] = Some(weight);
    }
    // Identity is acceptable unless it is excluded, but after all that is named.
    let [zstd, gzip, identity] = named;
    let compressed = [(Coding::Zstd, zstd), (Coding::Gzip, gzip)];
    let compressed = compressed.map(|(coding, weight)| (coding, weight.or(others).unwrap_or(0)));
    let mut best = (Coding::Identity, identity.or(others.filter(|&weight| weight == 0)).unwrap_or(1));
    for (coding, weight) in compressed {
        if weight > best.1 || (weight == best.1 && weight > 0 && best.0 == Coding::Identity) {
            best = (coding, weight);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_served_to_those_that_ask_for_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
            q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
            application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.7";
        let open = [
            prometheus_2,
            prometheus_3,
            protobuf,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "text/plain;q=0.3, application/openmetrics-text;q=0.3",
            "*/*, text/plain;q=0, application/openmetrics-text;q=0.001",
        ];
        for accept in open {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
        let classic = [
            "",
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2, text/plain",
            "application/openmetrics-text;q=0.2, */*",
            "application/openmetrics-text;q=1.5x",
            "application/openmetrics-text;q=0.0001",
            "image/png",
            ";;;,,,=;q=,\u{fffd}",
        ];
        for accept in classic {
            assert_eq!(format(accept), Format::Classic, "{accept}");
        }
    }

    #[test]
    fn the_coding_is_the_one_that_is_wanted_most() {
        for (accepted, chosen) in [
            ("", Coding::Identity),
            ("identity", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("gzip, deflate, br, zstd", Coding::Zstd),
            ("GZIP;q=0.9, zstd;q=0.8", Coding::Gzip),
            ("gzip;q=0.5, identity", Coding::Identity),
            ("gzip;q=0.5, identity;q=0.5", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("gzip;q=0, zstd;q=0, identity;q=0", Coding::Identity),
            ("identity;q=0, gzip;q=0.001", Coding::Gzip),
            ("identity;q=0, *", Coding::Zstd),
            ("zstd;q=0, *", Coding::Gzip),
            ("*;q=0", Coding::Identity),
            ("br", Coding::Identity),
            ("gzip;q=nonsense", Coding::Identity),
        ] {
            assert_eq!(coding(accepted), chosen, "{accepted}");
        }
    }

    #[test]
    fn the_fields_of_a_head_are_read_together() {
        let head =
            b"GET /metrics HTTP/1.1\r\nHost: x\r\naccept: text/plain;q=0.1\r\nACCEPT-Encoding: gzip\r\n\
            Accept: application/openmetrics-text\r\n\r\n";
        assert_eq!(Wanted::parse(head), Wanted { format: Format::OpenMetrics, coding: Coding::Gzip });
        assert_eq!(Wanted::parse(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Wanted::default());
        assert_eq!(Wanted::parse(b"GET"), Wanted::default());
        let numbers: std::collections::BTreeSet<_> = [Format::Classic, Format::OpenMetrics]
            .into_iter()
            .flat_map(|format| {
                [Coding::Identity, Coding::Gzip, Coding::Zstd]
                    .map(|coding| Wanted { format, coding }.number())
            })
            .collect();
        assert!(numbers.len() == Wanted::ALL && numbers.iter().all(|&number| number < Wanted::ALL));
    }
}
