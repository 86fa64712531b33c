//! A real Prometheus as the sender: what it counts as sent is stored by the upstream under the right tenants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::client::Response;
use support::server::free_port;
use support::upstream::Received;
use support::{Client, Driver, Reply, Server, Upstream, on_both, on_both_at_once};

/// A running Prometheus. Dropping it kills it.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Prometheus counts of its remote write.
#[derive(Debug, PartialEq, Clone, Copy)]
struct Counts {
    sent: u64,
    failed: u64,
    retried: u64,
    pending: u64,
}

impl Prometheus {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_port();
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address, _directory: directory }
    }

    fn counts(&self) -> Option<Counts> {
        let text = get(self.address, "/metrics")?;
        let read = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name) && !l.starts_with('#'))?;
            line.rsplit_once(' ')?.1.parse::<f64>().ok().map(|v| v as u64)
        };
        Some(Counts {
            sent: read("prometheus_remote_storage_samples_total{")?,
            failed: read("prometheus_remote_storage_samples_failed_total{")?,
            retried: read("prometheus_remote_storage_samples_retried_total{")?,
            pending: read("prometheus_remote_storage_samples_pending{")?,
        })
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    std::net::TcpStream::connect(address).ok()?;
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
    let response: Response = client.response();
    (response.status == 200).then(|| response.text())
}

/// An exporter with one metric, whose label names its team.
fn exporter(team: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0u8; 4_096]);
            let lines: String =
                (0..200).map(|i| format!("team_value{{team=\"{team}\",n=\"{i}\"}} {i}\n")).collect();
            let body = format!("# HELP team_value A value.\n# TYPE team_value gauge\n{lines}");
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

/// How many samples the upstream has. Each must be under its tenant.
fn stored(received: &[Received]) -> u64 {
    let mut samples = 0;
    for request in received {
        for series in request.request().timeseries {
            let label = |name: &str| support::remote_write::label(&series, name);
            assert_eq!(label("tenant").as_deref(), Some(request.tenant()), "misplaced");
            if let Some(team) = label("team") {
                assert_eq!(team, request.tenant(), "a series of another team's exporter");
            }
            samples += series.samples.len() as u64;
        }
    }
    samples
}

/// Waits until Prometheus has sent samples of several scrapes, and all that it has sent are stored.
fn settle(prometheus: &Prometheus, upstream: &Upstream) -> (Counts, u64) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut last = None;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        let Some(before) = prometheus.counts() else { continue };
        let stored = stored(&upstream.received());
        // Nothing was sent between two equal readings, so the count in between belongs to both.
        if prometheus.counts() == Some(before) && before.sent > 1_500 && before.sent == stored {
            return (before, stored);
        }
        last = Some((before, stored));
    }
    panic!("what Prometheus counts as sent is not what is stored: {last:?}");
}

/// Whether Prometheus is installed. Under CI it must be.
fn has_prometheus() -> bool {
    let found = Command::new("prometheus").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var("CI").is_err(), "under CI, Debian's package prometheus must be installed");
        eprintln!("SKIPPED: there is no `prometheus` here (apt-get install prometheus)");
    }
    found
}

/// A configuration with two jobs, each with a label of its own. Samples and metadata are sent within a second.
fn two_jobs(push: &str) -> String {
    let [payments, search] = [exporter("payments"), exporter("search")];
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         remote_write:\n- url: {push}\n  metadata_config: {{ send: true, send_interval: 2s }}\n  \
         queue_config: {{ batch_send_deadline: 1s }}\n\
         scrape_configs:\n\
         - job_name: payments\n  static_configs: [{{ targets: ['{payments}'], labels: {{ tenant: payments }} }}]\n\
         - job_name: search\n  static_configs: [{{ targets: ['{search}'], labels: {{ tenant: search }} }}]\n"
    )
}

#[test]
fn what_prometheus_counts_as_sent_is_stored_under_its_tenant() {
    if !has_prometheus() {
        return;
    }
    on_both(|driver: Driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let prometheus = Prometheus::start(&two_jobs(&format!("http://{}/push", server.address)));
        let (counts, stored) = settle(&prometheus, &upstream);
        eprintln!("{counts:?}, {stored} stored");
        assert_eq!((counts.failed, counts.retried), (0, 0), "{counts:?}");
        for tenant in ["payments", "search"] {
            assert!(stored_of(&upstream, tenant) > 400, "{tenant}");
        }
        let refused = server.metric("tenantry_replies_total", "code=\"4")
            + server.metric("tenantry_replies_total", "code=\"5");
        assert_eq!(refused, 0.0, "metadata was answered with 2xx, too");
        assert!(server.metric("tenantry_metadata_dropped_total", "") > 0.0, "metadata was sent");
    });
}

/// The samples of `up` that were stored: whose, the time of their scrape, and how much later they came.
type Arrivals = Arc<Mutex<Vec<(String, i64, Duration)>>>;

/// An upstream that refuses the tenant `payments` while `is_down`.
fn upstream_for_the_patient(is_down: &Arc<AtomicBool>) -> (Upstream, Arrivals) {
    let arrivals = Arrivals::default();
    let (is_down, stored) = (Arc::clone(is_down), Arc::clone(&arrivals));
    let upstream = Upstream::start(move |received| {
        if received.tenant() == "payments" && is_down.load(Ordering::SeqCst) {
            return Reply::new(503, "down for a while");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let is_up = |name: Option<String>| name.as_deref() == Some("up");
        for series in received.request().timeseries {
            if is_up(support::remote_write::label(&series, "__name__")) {
                let mut stored = stored.lock().unwrap();
                for sample in &series.samples {
                    let since = now.saturating_sub(Duration::from_millis(sample.timestamp as u64));
                    stored.push((received.tenant().to_owned(), sample.timestamp, since));
                }
            }
        }
        Reply::ok()
    });
    (upstream, arrivals)
}

/// With a spool, one job's outage does not delay the other job of the same Prometheus, and all of its own samples are
/// there afterwards. `OUTAGE_SECONDS` sets how long it lasts.
#[test]
fn with_a_spool_one_jobs_outage_is_no_other_jobs() {
    if !has_prometheus() {
        return;
    }
    let length = std::env::var("OUTAGE_SECONDS").map_or(12, |text| text.parse().unwrap());
    on_both_at_once(|driver: Driver| {
        let is_down = Arc::new(AtomicBool::new(false));
        let (upstream, arrivals) = upstream_for_the_patient(&is_down);
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("spool: {{dir: {}}}\n", folder.path().display());
        let server = Server::start(driver, upstream.address, &settings);
        let prometheus = Prometheus::start(&two_jobs(&format!("http://{}/push", server.address)));
        let of = |tenant: &str| -> Vec<(i64, Duration)> {
            let all = arrivals.lock().unwrap();
            all.iter().filter(|(whose, ..)| whose == tenant).map(|(_, at, since)| (*at, *since)).collect()
        };
        support::eventually("both jobs send", || of("payments").len() > 2 && of("search").len() > 2);
        is_down.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(length));
        let before = of("payments").len();
        is_down.store(false, Ordering::SeqCst);
        support::eventually("the spool is empty", || {
            of("payments").len() > before && server.metric("tenantry_spool_parts", "") == 0.0
        });
        let counts = prometheus.counts().unwrap();
        assert_eq!((counts.failed, counts.retried), (0, 0), "{counts:?}");
        // A scrape is sent within a second, if there are too few samples to send it before.
        let latest = of("search").into_iter().map(|(_, since)| since).max().unwrap();
        eprintln!("{}: others' samples came {latest:?} after their scrape at most", driver.name());
        assert!(latest < Duration::from_secs(4), "{latest:?}");
        assert!(of("search").len() as u64 >= length - 2, "the other job was scraped all the time");
        let times: Vec<i64> = of("payments").into_iter().map(|(at, _)| at).collect();
        assert!(times.is_sorted(), "in order: {times:?}");
        // Every second's scrape is there.
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(gap < 1_900, "{gap} ms without a sample: {times:?}");
        assert!(times.len() as u64 >= length, "{}", times.len());
    });
}

fn stored_of(upstream: &Upstream, tenant: &str) -> u64 {
    stored(&upstream.of(tenant))
}

/// The example in the README that begins with `first_line`, including that line.
fn readme(first_line: &str) -> String {
    let readme = include_str!("../README.md");
    let start = readme.find(&format!("```yaml\n{first_line}\n")).expect(first_line);
    let block = readme[start..].split_once('\n').unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

/// Runs an example of the README with real ports. `up` of both jobs must arrive under the right tenant.
fn readme_works(prometheus: &str, tenantry: &str) {
    let upstream = Upstream::start(|_| Reply::ok());
    let server = Server::start(Driver::all()[0], upstream.address, tenantry);
    let config = prometheus
        .replace("127.0.0.1:8081", &server.address.to_string())
        .replace("payments:8080", &exporter("payments").to_string())
        .replace("search:8080", &exporter("search").to_string());
    let _prometheus = Prometheus::start(&format!("global: {{ scrape_interval: 1s }}\n{config}"));
    let has = |tenant: &str, metric: &str| {
        upstream.of(tenant).iter().any(|request| request.names().iter().any(|name| name == metric))
    };
    let until = Instant::now() + Duration::from_secs(60);
    while !["payments", "search"].iter().all(|tenant| has(tenant, "up") && has(tenant, "team_value")) {
        assert!(Instant::now() < until, "not all has come: {:?}", upstream.received().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    let tenants: std::collections::BTreeSet<_> =
        upstream.received().iter().map(|request| request.tenant().to_owned()).collect();
    assert_eq!(tenants.iter().collect::<Vec<_>>(), ["payments", "search"]);
    assert_eq!(server.metric("tenantry_replies_total", "code=\"4"), 0.0, "every series has a tenant");
}

#[test]
fn the_readmes_example_works() {
    if has_prometheus() {
        let tenantry = readme("# tenantry.yml");
        let tenant = &tenantry[tenantry.find("tenant:\n").unwrap()..];
        readme_works(&readme("# prometheus.yml"), tenant);
    }
}

#[test]
fn the_readmes_example_for_the_default_label_works() {
    if has_prometheus() {
        let renamed = readme("# prometheus.yml, with tenant.label at its default");
        let jobs = readme("# prometheus.yml");
        let jobs = &jobs[jobs.find("scrape_configs:").unwrap()..];
        readme_works(&format!("{renamed}{jobs}"), "tenant: {}\n");
    }
}
