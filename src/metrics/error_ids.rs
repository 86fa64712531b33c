//! The IDs that Mimir gives its errors, as far as pushes may get them (grafana/mimir, pkg/util/globalerror/user.go,
//! which promises that they do not change).
//!
//! An error's text quotes labels of the tenant before it names the ID. So only known IDs become labels of metrics: any
//! other text could be a tenant's.
#![forbid(unsafe_code)]

/// What all IDs begin with.
const PREFIX: &str = "err-mimir-";
/// How far into a body an ID is looked for.
const WITHIN_BYTES: usize = 1_024;

/// The IDs.
const KNOWN: &[&str] = &[
    "err-mimir-circuit-breaker-open",
    "err-mimir-distributor-max-inflight-push-requests",
    "err-mimir-distributor-max-inflight-push-requests-bytes",
    "err-mimir-distributor-max-ingestion-rate",
    "err-mimir-distributor-max-write-message-size",
    "err-mimir-distributor-max-write-request-data-item-size",
    "err-mimir-duplicate-label-names",
    "err-mimir-exemplar-labels-missing",
    "err-mimir-exemplar-labels-too-long",
    "err-mimir-exemplar-series-missing",
    "err-mimir-exemplar-timestamp-invalid",
    "err-mimir-exemplar-too-far-in-future",
    "err-mimir-exemplar-too-far-in-past",
    "err-mimir-ingester-max-inflight-push-requests",
    "err-mimir-ingester-max-inflight-push-requests-bytes",
    "err-mimir-ingester-max-ingestion-rate",
    "err-mimir-ingester-max-series",
    "err-mimir-ingester-max-tenants",
    "err-mimir-invalid-native-histogram-schema",
    "err-mimir-label-invalid",
    "err-mimir-label-name-too-long",
    "err-mimir-label-value-invalid",
    "err-mimir-label-value-too-long",
    "err-mimir-labels-not-sorted",
    "err-mimir-max-active-series",
    "err-mimir-max-label-names-per-info-series",
    "err-mimir-max-label-names-per-series",
    "err-mimir-max-metadata-per-metric",
    "err-mimir-max-metadata-per-user",
    "err-mimir-max-native-histogram-buckets",
    "err-mimir-max-series-per-metric",
    "err-mimir-max-series-per-user",
    "err-mimir-metadata-missing-metric-name",
    "err-mimir-metric-name-invalid",
    "err-mimir-metric-name-too-long",
    "err-mimir-missing-metric-name",
    "err-mimir-native-histogram-count-mismatch",
    "err-mimir-native-histogram-count-not-big-enough",
    "err-mimir-native-histogram-custom-buckets-infinite",
    "err-mimir-native-histogram-custom-buckets-invalid",
    "err-mimir-native-histogram-custom-buckets-mismatch",
    "err-mimir-native-histogram-custom-buckets-not-reducible",
    "err-mimir-native-histogram-negative-bucket-count",
    "err-mimir-native-histogram-span-negative-offset",
    "err-mimir-native-histogram-spans-buckets-mismatch",
    "err-mimir-not-reducible-native-histogram",
    "err-mimir-request-blocked",
    "err-mimir-sample-duplicate-timestamp",
    "err-mimir-sample-out-of-order",
    "err-mimir-sample-timestamp-too-old",
    "err-mimir-tenant-max-ingestion-rate",
    "err-mimir-tenant-max-request-rate",
    "err-mimir-tenant-too-many-ha-clusters",
    "err-mimir-too-far-in-future",
    "err-mimir-too-far-in-past",
    "err-mimir-unit-too-long",
];

/// The number of known IDs.
pub(super) const KNOWN_MAX: usize = KNOWN.len();

/// What a body says about the error that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorId {
    /// This one.
    Known(&'static str),
    /// Some text that looks like an ID.
    Unknown,
}

/// The ID at the beginning of an error's body: the first that is known, or else that there is some text like one.
pub(super) fn error_id(body: &[u8]) -> Option<ErrorId> {
    let body = body.get(..WITHIN_BYTES).unwrap_or(body);
    let mut found = None;
    for at in 0..body.len() {
        let Some(rest) = body.get(at..).filter(|rest| rest.starts_with(PREFIX.as_bytes())) else { continue };
        let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let word = rest.get(..rest.iter().take_while(|byte| is_part(byte)).count()).unwrap_or_default();
        if let Ok(known) = KNOWN.binary_search_by(|known| known.as_bytes().cmp(word)) {
            return KNOWN.get(known).copied().map(ErrorId::Known);
        }
        found = Some(ErrorId::Unknown);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_at_the_beginning_of_a_body() {
        assert!(KNOWN.is_sorted());
        let far = format!("{} (err-mimir-label-invalid)", "a".repeat(1_020));
        for (body, id) in [
            (
                "received a series (err-mimir-max-label-names-per-series). To adjust",
                Some("max-label-names-per-series"),
            ),
            ("value: 'err-mimir-mine' (err-mimir-label-value-too-long)", Some("label-value-too-long")),
            (&far, None),
            ("", None),
            ("an err- alone, an Err-mimir-x, and err-loki-1", None),
        ] {
            let expected = id.map(|id| format!("{PREFIX}{id}"));
            let found = error_id(body.as_bytes());
            assert_eq!(
                found,
                expected.map(|id| ErrorId::Known(KNOWN.iter().find(|known| **known == id).unwrap()))
            );
        }
        for unknown in ["x err-mimir-", "err-mimir-label-invalid-or-so", "err-mimir-a\u{202e}b"] {
            assert_eq!(error_id(unknown.as_bytes()), Some(ErrorId::Unknown), "{unknown}");
        }
        assert_eq!(
            error_id(b"\xff\xfeerr-mimir-label-invalid\xff"),
            Some(ErrorId::Known("err-mimir-label-invalid"))
        );
    }
}
