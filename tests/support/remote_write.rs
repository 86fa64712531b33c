//! Remote write 1.0 as prost sees it: the other opinion on what we send.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Metadata {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub family: String,
    #[prost(string, tag = "4")]
    pub help: String,
}

/// A series with one sample; an empty tenant means no tenant label.
pub fn series(tenant: &str, name: &str, value: f64) -> TimeSeries {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let mut labels = vec![label("__name__", name), label("job", "test")];
    if !tenant.is_empty() {
        labels.push(label("tenant", tenant));
    }
    TimeSeries { labels, samples: vec![Sample { value, timestamp: 1_700_000_000_000 }] }
}

/// A request's body: the series, deflated.
pub fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    deflate(&WriteRequest { timeseries, metadata: vec![] })
}

/// Any request, deflated.
pub fn deflate(request: &WriteRequest) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

/// What a body inflates to.
pub fn inflated(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block")
}

/// What a body holds.
pub fn inflate(body: &[u8]) -> WriteRequest {
    WriteRequest::decode(&*inflated(body)).expect("a WriteRequest")
}

/// The names of a request's series, in order.
pub fn names(request: &WriteRequest) -> Vec<String> {
    let name = |s: &TimeSeries| s.labels.iter().find(|l| l.name == "__name__").unwrap().value.clone();
    request.timeseries.iter().map(name).collect()
}
