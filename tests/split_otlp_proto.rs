//! Properties of splitting exports of OTLP that OpenTelemetry's own crate makes and reads (`opentelemetry-proto`): with
//! all fields that its messages have, as protobuf and as the JSON that it writes. Which tenant an item has is decided
//! here once more, as plainly as it can be said.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]

#[path = "strategies/exports.rs"]
mod exports;

use std::collections::BTreeMap;

use exports::{logs, metrics, spans};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenantry::model::{Compression, Part, Protocol, Signal, SplitLimits};
use tenantry::split::{Body, SplitRules, Splitter};
use tenantry::tenant::{NamedBy, TenantRules};

/// An item with all that it is in, encoded, and the tenant that it belongs to.
struct Item {
    tenant: String,
    encoded: Vec<u8>,
}

/// An export of any signal.
trait Export: Message + Default + PartialEq + Serialize + DeserializeOwned {
    const SIGNAL: Signal;

    /// All items in their order. `removes`: their resources without the attribute that names the tenant.
    fn items(&self, removes: bool) -> Vec<Item>;
}

/// The tenant that attributes name, if they do: by `t`, else by `tenant`. With the key that does.
fn naming(attributes: &[KeyValue]) -> Option<(&'static str, String)> {
    let of = |key: &str| {
        let value = attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()?;
        match value {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(number) => Some(number.to_string()),
            Value::BoolValue(truth) => Some(truth.to_string()),
            _ => None,
        }
    };
    ["t", "tenant"].into_iter().find_map(|key| Some((key, of(key)?)))
}

fn named(attributes: &[KeyValue]) -> Option<String> {
    naming(attributes).map(|(_, tenant)| tenant)
}

/// What an item is in.
#[derive(Clone)]
struct Within {
    resource: Option<String>,
    scope: Option<String>,
    encoded: Vec<u8>,
}

impl Within {
    fn new(resource: Option<&Resource>, schema_url: &str, removes: bool) -> Self {
        let named = resource.and_then(|one| naming(&one.attributes));
        let mut kept = resource.cloned().unwrap_or_default();
        if let Some((removed, _)) = named.as_ref().filter(|_| removes) {
            kept.attributes.retain(|pair| pair.key != *removed);
        }
        let encoded = [kept.encode_to_vec(), schema_url.into()].concat();
        Self { resource: named.map(|(_, tenant)| tenant), scope: None, encoded }
    }

    fn scope(&self, scope: Option<&InstrumentationScope>, schema_url: &str) -> Self {
        let more = [scope.map(Message::encode_to_vec).unwrap_or_default(), schema_url.into()].concat();
        let encoded = [&self.encoded[..], &more].concat();
        Self { scope: scope.and_then(|one| named(&one.attributes)), encoded, ..self.clone() }
    }

    fn item(&self, attributes: &[KeyValue], encoded: &[u8]) -> Item {
        let tenant = self.resource.clone().or_else(|| self.scope.clone()).or_else(|| named(attributes));
        Item {
            tenant: tenant.unwrap_or_else(|| "nobody".to_owned()),
            encoded: [&self.encoded[..], encoded].concat(),
        }
    }
}

impl Export for ExportTraceServiceRequest {
    const SIGNAL: Signal = Signal::Traces;

    fn items(&self, removes: bool) -> Vec<Item> {
        let mut items = Vec::new();
        for resource in &self.resource_spans {
            let within = Within::new(resource.resource.as_ref(), &resource.schema_url, removes);
            for scope in &resource.scope_spans {
                let within = within.scope(scope.scope.as_ref(), &scope.schema_url);
                let spans = scope.spans.iter();
                items.extend(spans.map(|span| within.item(&span.attributes, &span.encode_to_vec())));
            }
        }
        items
    }
}

impl Export for ExportLogsServiceRequest {
    const SIGNAL: Signal = Signal::Logs;

    fn items(&self, removes: bool) -> Vec<Item> {
        let mut items = Vec::new();
        for resource in &self.resource_logs {
            let within = Within::new(resource.resource.as_ref(), &resource.schema_url, removes);
            for scope in &resource.scope_logs {
                let within = within.scope(scope.scope.as_ref(), &scope.schema_url);
                let records = scope.log_records.iter();
                items.extend(records.map(|one| within.item(&one.attributes, &one.encode_to_vec())));
            }
        }
        items
    }
}

impl Export for ExportMetricsServiceRequest {
    const SIGNAL: Signal = Signal::Metrics;

    fn items(&self, removes: bool) -> Vec<Item> {
        let mut items = Vec::new();
        for resource in &self.resource_metrics {
            let within = Within::new(resource.resource.as_ref(), &resource.schema_url, removes);
            for scope in &resource.scope_metrics {
                let within = within.scope(scope.scope.as_ref(), &scope.schema_url);
                for metric in &scope.metrics {
                    let mut bare = metric.clone();
                    let points = take_points(bare.data.as_mut());
                    let metric = bare.encode_to_vec();
                    items.extend(
                        points.iter().map(|(attributes, point)| {
                            within.item(attributes, &[&metric[..], point].concat())
                        }),
                    );
                }
            }
        }
        items
    }
}

/// Takes the data points out of a metric: the attributes of each, and the point as it is encoded.
fn take_points(data: Option<&mut Data>) -> Vec<(Vec<KeyValue>, Vec<u8>)> {
    macro_rules! points {
        ($data:expr) => {
            std::mem::take(&mut $data.data_points)
                .into_iter()
                .map(|point| (point.attributes.clone(), point.encode_to_vec()))
                .collect()
        };
    }
    match data {
        None => Vec::new(),
        Some(Data::Gauge(data)) => points!(data),
        Some(Data::Sum(data)) => points!(data),
        Some(Data::Histogram(data)) => points!(data),
        Some(Data::ExponentialHistogram(data)) => points!(data),
        Some(Data::Summary(data)) => points!(data),
    }
}

/// The parts of an export.
fn split(protocol: Protocol, bytes: &[u8], removes: bool) -> Vec<Part> {
    let tenant = TenantRules {
        named_by: NamedBy::Attribute,
        labels: vec![(*b"t").into(), (*b"tenant").into()],
        default: Some("nobody".to_owned()),
        label_remove: removes,
        ..TenantRules::of_label(b"t")
    };
    let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 64 };
    let mut splitter = Splitter::new();
    let body = Body { protocol, compression: Compression::Identity, bytes: bytes.to_vec().into() };
    splitter.scan(body, &SplitRules::new(&tenant, limits), None).unwrap();
    std::iter::from_fn(|| splitter.next_part()).collect()
}

fn by_tenant(items: Vec<Item>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    items.into_iter().for_each(|item| all.entry(item.tenant).or_default().push(item.encoded));
    all
}

/// Splits `bytes`, and compares each part, as `read` has it, with what `export` has of its tenant.
fn compare<E: Export>(
    export: &E,
    protocol: Protocol,
    bytes: &[u8],
    removes: bool,
    read: impl Fn(&[u8]) -> E,
) -> Result<(), TestCaseError> {
    let mut expected = by_tenant(export.items(removes));
    for part in split(protocol, bytes, removes) {
        let items = read(&part.elements).items(false);
        prop_assert_eq!(part.samples as usize, items.len());
        // What has no items may be a part, too.
        let of_tenant = expected.remove(part.tenant.as_str()).unwrap_or_default();
        let got: Vec<_> = items.into_iter().map(|item| item.encoded).collect();
        prop_assert_eq!(got, of_tenant, "{}", part.tenant.as_str());
    }
    prop_assert!(expected.is_empty(), "nothing came for {:?}", expected.keys());
    Ok(())
}

fn holds<E: Export>(export: &E, removes: bool) -> Result<(), TestCaseError> {
    let decoded = |bytes: &[u8]| E::decode(bytes).unwrap();
    compare(export, Protocol::Otlp(E::SIGNAL), &export.encode_to_vec(), removes, decoded)?;
    // Some things the crate's JSON does not carry.
    let text = serde_json::to_vec(export).unwrap();
    let carried: E = serde_json::from_slice(&text).unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
    compare(&carried, Protocol::OtlpJson(E::SIGNAL), &text, removes, read)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn each_tenant_gets_exactly_its_spans(export in spans(), removes in any::<bool>()) {
        holds(&export, removes)?;
    }

    #[test]
    fn each_tenant_gets_exactly_its_log_records(export in logs(), removes in any::<bool>()) {
        holds(&export, removes)?;
    }

    #[test]
    fn each_tenant_gets_exactly_its_data_points(export in metrics(), removes in any::<bool>()) {
        holds(&export, removes)?;
    }
}
