//! Remote Write 1.0 through prost, independent of the server's own code.

pub use testkit::proto::{Label, MetricMetadata, MetricType, Sample, TimeSeries, WriteRequest};

/// A series with one sample. An empty tenant means no tenant label.
pub fn series(tenant: &str, name: &str, value: f64) -> TimeSeries {
    let labels = [("__name__", name), ("job", "test"), ("tenant", tenant)];
    let count = if tenant.is_empty() { 2 } else { 3 };
    TimeSeries::new(&labels[..count], &[(1_700_000_000_000, value)])
}

/// A request's body: the series, deflated.
pub fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    deflate(&WriteRequest { timeseries, metadata: vec![] })
}

/// A request's body with one series of this tenant.
pub fn one(tenant: &str) -> Vec<u8> {
    body(vec![series(tenant, "up", 1.0)])
}

/// Any request, deflated.
pub fn deflate(request: &WriteRequest) -> Vec<u8> {
    request.to_block().to_vec()
}

/// What a body inflates to.
pub fn inflated(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block")
}

/// What a body holds.
pub fn inflate(body: &[u8]) -> WriteRequest {
    WriteRequest::from_block(body).expect("a WriteRequest")
}

/// The metadata of the family `up`, as Prometheus sends it.
pub fn metadata_of_up() -> MetricMetadata {
    MetricMetadata {
        r#type: MetricType::Counter as i32,
        metric_family_name: "up".into(),
        help: "Whether it is up.".into(),
        ..MetricMetadata::default()
    }
}

/// The value of a series' label, as text.
pub fn label(series: &TimeSeries, name: &str) -> Option<String> {
    series.label(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// The names of a request's series, in order.
pub fn names(request: &WriteRequest) -> Vec<String> {
    request.timeseries.iter().map(|series| label(series, "__name__").unwrap()).collect()
}
