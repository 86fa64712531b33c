//! /metrics, in the OpenMetrics text format.
//!
//! New names are `tenantry_…` with base units. The old ones are cortex-tenant's, so that dashboards go on working: its
//! counters lack the suffix `_total`, which OpenMetrics demands of counters. They are exposed as of unknown type,
//! under their exact names; `rate()` asks for no type.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::process::{Process, thread_cpu_seconds};
use crate::metrics::{
    CoreMetrics, Distribution, Histogram, Metrics, Rejection, TenantMetrics, UpstreamClass,
};
use crate::queue::commons::Commons;

/// Writes /metrics.
#[derive(Debug)]
pub(super) struct Exposition {
    registry: Registry,
}

#[derive(Debug)]
struct Cores {
    metrics: Arc<Metrics>,
    commons: Arc<Commons>,
    driver: &'static str,
}

impl Exposition {
    pub(super) fn new(metrics: Arc<Metrics>, commons: Arc<Commons>, driver: &'static str) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Cores { metrics, commons, driver }));
        Self { registry }
    }

    /// All metrics as they are now.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Collector for Cores {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder, cores: self.metrics.cores() };
        self.old_names(&mut page)?;
        inbound(&mut page)?;
        outbound(&mut page)?;
        self.by_core(&mut page)?;
        self.process(&mut page)
    }
}

impl Cores {
    /// cortex-tenant's names. Its `streams` are those of Loki, of which there are none yet.
    fn old_names(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let batches = page.sum(|c| c.batch_bytes.read().count());
        let bytes = page.total(|c| &c.batch_bytes);
        let tenants = self.metrics.tenants();
        let tenants = by_label(&tenants);
        for kind in ["timeseries", "streams"] {
            let ours = kind == "timeseries";
            let name = |what: &str| format!("cortex_tenant_{kind}_{what}");
            page.unknown(&name("batches_received"), "Batches received.", if ours { batches } else { 0 })?;
            let empty =
                Distribution { sum: 0.0, buckets: bytes.buckets.iter().map(|&(b, _)| (b, 0)).collect() };
            let help = "Sizes of batches received, in bytes, as they came.";
            page.histogram(&name("batches_received_bytes"), help, if ours { &bytes } else { &empty })?;
            let tenants = if ours { &tenants[..] } else { &[] };
            page.tenants(&name("received"), "Series received.", tenants, |t| t.series.get())?;
            page.tenants(&name("requests"), "Upstream requests.", tenants, |t| t.requests.get())?;
            let help = "Upstream requests without an answer.";
            page.tenants(&name("request_errors"), help, tenants, |t| t.request_errors.get())?;
            page.durations(&name("request_duration_milliseconds"), tenants)?;
        }
        let help = "Samples and histograms received, by tenant.";
        page.encoder.encode_descriptor("tenantry_tenant_samples", help, None, MetricType::Counter).and_then(
            |mut family| {
                for (label, parts) in &tenants {
                    let samples = parts.iter().map(|t| t.samples.get()).sum::<u64>();
                    ConstCounter::new(samples).encode(family.encode_family(&[("tenant", *label)])?)?;
                }
                Ok(())
            },
        )
    }

    fn by_core(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        page.by_core("tenantry_connections_open", "Inbound connections open.", |c| c.connections_open.get())?;
        page.by_core("tenantry_lanes", "Tenants' lanes.", |c| c.lanes.get())?;
        page.by_core("tenantry_lane_waiting_fragments", "Fragments waiting in lanes.", |c| {
            c.lanes_waiting.get()
        })?;
        let help = "Upstream connections open and idle.";
        page.by_core("tenantry_upstream_connections_idle", help, |c| c.upstream_idle.get())?;
        let mut family = page.encoder.encode_descriptor(
            "tenantry_core_cpu_seconds",
            "CPU time of each core's thread.",
            None,
            MetricType::Counter,
        )?;
        for (k, core) in page.cores.iter().enumerate() {
            let seconds = thread_cpu_seconds(core.thread()).unwrap_or_default();
            ConstCounter::new(seconds).encode(family.encode_family(&[("core", k.to_string())])?)?;
        }
        let rings = page.sum(|c| c.doorbells_rung.get());
        page.counter("tenantry_doorbells_rung", "Times that a core woke another.", rings)
    }

    fn process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let bytes = self.commons.bytes.in_flight();
        page.gauge("tenantry_in_flight_bytes", "Bytes of requests in flight.", bytes as f64)?;
        let requests = self.commons.requests.in_flight();
        page.gauge("tenantry_requests_in_flight", "Push requests in flight.", requests as f64)?;
        let mut info =
            page.encoder.encode_descriptor("tenantry_build_info", "What runs.", None, MetricType::Gauge)?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("driver", self.driver)];
        ConstGauge::new(1u64).encode(info.encode_family(&labels)?)?;
        let process = Process::read();
        let cpu = ConstCounter::new(process.cpu_seconds);
        cpu.encode(page.encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time.",
            None,
            cpu.metric_type(),
        )?)?;
        page.gauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes as f64)?;
        page.gauge("process_open_fds", "Open descriptors.", process.open_descriptors as f64)?;
        page.gauge("process_max_fds", "Limit of open descriptors.", process.descriptors_max as f64)?;
        page.gauge("process_start_time_seconds", "Start, in seconds since 1970.", process.start_seconds)
    }
}

fn inbound(page: &mut Page<'_, '_>) -> fmt::Result {
    let counters: [(&str, &str, fn(&CoreMetrics) -> u64); 11] = [
        ("tenantry_connections_accepted", "Inbound connections accepted.", |c| c.connections_accepted.get()),
        ("tenantry_connections_handed_over", "Connections handed to the core with the fewest.", |c| {
            c.connections_handed_over.get()
        }),
        ("tenantry_connections_timed_out", "Connections cut by a deadline.", |c| {
            c.connections_timed_out.get()
        }),
        ("tenantry_requests", "Push requests read.", |c| c.requests.get()),
        ("tenantry_inflated_bytes", "What they inflated to.", |c| c.inflated_bytes.get()),
        ("tenantry_series", "Series received.", |c| c.series.get()),
        ("tenantry_samples", "Samples and histograms received.", |c| c.samples.get()),
        ("tenantry_metadata_dropped", "Metadata entries that went nowhere.", |c| c.metadata_dropped.get()),
        ("tenantry_unknown_fields_dropped", "Unknown fields that no tenant could be given.", |c| {
            c.unknown_fields_dropped.get()
        }),
        ("tenantry_passthrough_requests", "Requests that went on as they came.", |c| c.passthrough.get()),
        ("tenantry_fragments", "Tenants' parts of requests.", |c| c.fragments.get()),
    ];
    for (name, help, read) in counters {
        let total = page.sum(read);
        page.counter(name, help, total)?;
    }
    let dropped = [
        ("missing", page.sum(|c| c.series_dropped_missing.get())),
        ("invalid", page.sum(|c| c.series_dropped_invalid.get())),
    ];
    page.labelled("tenantry_series_dropped", "Series without a usable tenant, left out.", "reason", dropped)?;
    let rejected =
        Rejection::ALL.iter().map(|&r| (r.name(), page.sum(|c| c.rejections(r)))).collect::<Vec<_>>();
    page.labelled("tenantry_rejections", "Requests refused here.", "reason", rejected)?;
    let mut replies = std::collections::BTreeMap::<usize, u64>::new();
    for (status, n) in page.cores.iter().flat_map(CoreMetrics::replies) {
        *replies.entry(status).or_default() += n;
    }
    let replies = replies.into_iter().map(|(status, n)| (status.to_string(), n));
    page.labelled("tenantry_replies", "Replies to senders.", "code", replies)?;
    let duration = page.total(|c| &c.request_duration);
    page.histogram("tenantry_request_duration_seconds", "From a request's head to its answer.", &duration)
}

fn outbound(page: &mut Page<'_, '_>) -> fmt::Result {
    let counters: [(&str, &str, fn(&CoreMetrics) -> u64); 7] = [
        ("tenantry_upstream_requests", "Upstream requests started.", |c| c.upstream_requests.get()),
        ("tenantry_merges", "Upstream requests of several fragments.", |c| c.merges.get()),
        ("tenantry_merged_fragments", "Fragments in those.", |c| c.merged_fragments.get()),
        ("tenantry_upstream_bytes", "Bytes of elements sent.", |c| c.upstream_bytes.get()),
        ("tenantry_upstream_retries", "Requests sent again as their connection was stale.", |c| {
            c.upstream_retries.get()
        }),
        ("tenantry_upstream_connections_opened", "Upstream connections opened.", |c| c.upstream_opened.get()),
        ("tenantry_upstream_connections_reused", "Requests over a connection used before.", |c| {
            c.upstream_reused.get()
        }),
    ];
    for (name, help, read) in counters {
        let total = page.sum(read);
        page.counter(name, help, total)?;
    }
    let outcomes = UpstreamClass::ALL
        .iter()
        .map(|&o| (o.name(), page.sum(|c| c.upstream_outcomes(o))))
        .collect::<Vec<_>>();
    page.labelled("tenantry_upstream_outcomes", "Ends of upstream requests.", "outcome", outcomes)?;
    let wait = page.total(|c| &c.lane_wait);
    page.histogram("tenantry_lane_wait_seconds", "From a request's head until its part is sent.", &wait)
}

/// One tenant label, with the counters of each core that has some.
type Labelled<'a> = (&'a str, Vec<&'a TenantMetrics>);

/// Brings the counters of equal labels together; the list is sorted by label.
fn by_label(tenants: &[(Box<str>, Arc<TenantMetrics>)]) -> Vec<Labelled<'_>> {
    let groups = tenants.chunk_by(|(a, _), (b, _)| a == b);
    groups.filter_map(|g| Some((&*g.first()?.0, g.iter().map(|(_, t)| &**t).collect()))).collect()
}

/// The page that is being written.
struct Page<'e, 'c> {
    encoder: DescriptorEncoder<'e>,
    cores: &'c [CoreMetrics],
}

impl Page<'_, '_> {
    fn sum(&self, read: impl Fn(&CoreMetrics) -> u64) -> u64 {
        self.cores.iter().map(read).sum()
    }

    fn total(&self, read: impl Fn(&CoreMetrics) -> &Histogram) -> Distribution {
        let all = Distribution::total(self.cores.iter().map(|c| read(c).read()));
        all.unwrap_or(Distribution { buckets: Vec::new(), sum: 0.0 })
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    fn unknown(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.encoder.encode_descriptor(
            name,
            help,
            None,
            MetricType::Unknown,
        )?)
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Distribution) -> fmt::Result {
        encode(values, self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }

    fn labelled<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(key, label.as_ref())])?)?;
        }
        Ok(())
    }

    fn by_core(&mut self, name: &str, help: &str, read: impl Fn(&CoreMetrics) -> u64) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (k, core) in self.cores.iter().enumerate() {
            ConstGauge::new(read(core)).encode(family.encode_family(&[("core", k.to_string())])?)?;
        }
        Ok(())
    }

    fn tenants(
        &mut self,
        name: &str,
        help: &str,
        tenants: &[Labelled<'_>],
        read: impl Fn(&TenantMetrics) -> u64,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for (label, parts) in tenants {
            let total: u64 = parts.iter().map(|t| read(t)).sum();
            ConstGauge::new(total).encode(family.encode_family(&[("tenant", *label)])?)?;
        }
        Ok(())
    }

    fn durations(&mut self, name: &str, tenants: &[Labelled<'_>]) -> fmt::Result {
        let help = "Durations of upstream requests by status, in milliseconds; code 0 stands for rare ones.";
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (label, parts) in tenants {
            let mut by_code = std::collections::BTreeMap::<u16, Vec<Distribution>>::new();
            for (code, values) in parts.iter().flat_map(|t| t.durations()) {
                by_code.entry(code).or_default().push(values);
            }
            for (code, values) in by_code {
                let code = code.to_string();
                if let Some(total) = Distribution::total(values) {
                    encode(&total, family.encode_family(&[("code", code.as_str()), ("tenant", *label)])?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(values: &Distribution, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    encoder.encode_histogram::<[(&str, &str); 0]>(values.sum, values.count(), &values.buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{IdRules, TenantId};

    fn text() -> String {
        let metrics = Arc::new(Metrics::new(2, 10, true));
        for core in [0, 1] {
            metrics.core(core).batch_bytes.observe(700.0);
            let hostile = TenantId::new("a\"b{}=,#", IdRules::Thanos).unwrap();
            let tenant = metrics.tenant(core, &hostile);
            tenant.received(3, 4);
            tenant.answered(200, 7.0);
            tenant.failed();
        }
        metrics.core(1).rejected(Rejection::Memory);
        Exposition::new(metrics, Commons::new(2, 100, 10, 10), "epoll").text().unwrap()
    }

    #[test]
    fn the_old_names_are_exact_and_summed_over_cores() {
        let text = text();
        let tenant = r#"tenant="a\"b{}=,#""#;
        for line in [
            "cortex_tenant_timeseries_batches_received 2".to_owned(),
            "cortex_tenant_timeseries_batches_received_bytes_sum 1400.0".to_owned(),
            "cortex_tenant_timeseries_batches_received_bytes_bucket{le=\"500.0\"} 0".to_owned(),
            "cortex_tenant_timeseries_batches_received_bytes_bucket{le=\"1000.0\"} 2".to_owned(),
            "cortex_tenant_timeseries_batches_received_bytes_bucket{le=\"+Inf\"} 2".to_owned(),
            format!("cortex_tenant_timeseries_received{{{tenant}}} 6"),
            format!("cortex_tenant_timeseries_requests{{{tenant}}} 4"),
            format!("cortex_tenant_timeseries_request_errors{{{tenant}}} 2"),
            format!(
                "cortex_tenant_timeseries_request_duration_milliseconds_sum{{code=\"200\",{tenant}}} 14.0"
            ),
            "cortex_tenant_streams_batches_received 0".to_owned(),
            "tenantry_rejections_total{reason=\"memory\"} 1".to_owned(),
            "tenantry_rejections_total{reason=\"timeout\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        for name in ["received", "requests", "request_errors", "request_duration_milliseconds"] {
            assert!(text.contains(&format!("# TYPE cortex_tenant_streams_{name} ")), "{name}");
        }
    }

    #[test]
    fn every_name_is_declared_once_and_the_page_ends() {
        let text = text();
        let mut names: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE ")).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(text.ends_with("# EOF\n"));
    }
}
