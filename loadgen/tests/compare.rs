//! `loadgen compare` against contenders that do what they should and contenders that don't, and the report of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::compare::{FailureKind, Measure, Results};
use loadgen::sink::{Arrival, Reply, Sink, SinkConfig};
use tempfile::TempDir;

/// What the fakes below listen at: this very program is started again to be one of them.
const FAKE_LISTEN: &str = "LOADGEN_TEST_FAKE_LISTEN";

/// Tenantry's configuration, the one that all contenders here that are Tenantry have.
const TENANTRY: &str = "listen: {listen}\nlisten_metrics_address: {metrics}\ntarget: http://{sink}/api/v1/push\n\
                        tenant:\n  label: tenant\n";

/// A contender that splits and proves itself.
const GOOD: &str = "
  - name: tenantry
    command: ['{loadgen}', server, --config, '{dir}/t.yml']
    version: ['{loadgen}', --version]
    files: { t.yml: t.template }
    ready: http://{listen}/alive
";

struct Comparison {
    dir: TempDir,
}

impl Comparison {
    fn new(head: &str, contenders: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t.template"), TENANTRY).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let text = format!("{head}\ncontenders:{contenders}");
        fs::write(dir.path().join("try.yml"), text).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `loadgen compare` over it, with directories for its contenders below ours.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("compare").arg("--config").arg(self.path("try.yml")).arg("-o").arg(self.path("out.json"));
        command.env("TMPDIR", self.path("tmp"));
        command
    }

    fn results(&self) -> Results {
        Results::load(&self.path("out.json")).unwrap()
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Processes, other than zombies, whose command line or environment names `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let wanted = dir.to_str().unwrap().to_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let seen = [read("cmdline"), read("environ")].concat();
        let numbered = entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        if numbered && String::from_utf8_lossy(&seen).contains(&wanted) {
            found.push(String::from_utf8_lossy(&read("cmdline")).replace('\0', " "));
        }
    }
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// No test: what the comparison starts as a server that answers 500. Started by hand it ends at once.
#[test]
#[ignore = "a server for another test"]
fn fake_that_answers_500() {
    let Ok(listen) = std::env::var(FAKE_LISTEN) else { return };
    let config = SinkConfig {
        listen: listen.parse().unwrap(),
        script: Some(Arc::new(|_: &Arrival<'_>| Reply::new(500, "out of order"))),
        ..SinkConfig::default()
    };
    let _sink = Sink::start(config).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn who_fails_is_named_with_its_reason_and_has_no_figures() {
    let own = std::env::current_exe().unwrap();
    let contenders = format!(
        "{GOOD}
  # The same under a shell: the processes below it have to count, and to end.
  - name: under-a-shell
    command: [sh, -c, \"'{{loadgen}}' server --config '{{dir}}/t.yml' & wait\"]
    files: {{ t.yml: t.template }}
    ready: http://{{listen}}/alive
  - name: missing
    command: [/nowhere/server]
  - name: ends-early
    command: [sh, -c, 'echo no licence >&2; exit 3']
  - name: never-ready
    command: [sleep, '60']
    ready_seconds: 0.2
  - name: answers-500
    command: ['{own}', --exact, fake_that_answers_500, --ignored]
    environment: {{ {FAKE_LISTEN}: '{{listen}}' }}
    headers: {{ X-Scope-OrgID: a }}
  # A sink takes and counts, and forwards nothing.
  - name: loses
    command: ['{{loadgen}}', sink, --listen, '{{listen}}']
    headers: {{ X-Scope-OrgID: a }}
  - name: loses-and-admits-to-be-late
    command: ['{{loadgen}}', sink, --listen, '{{listen}}']
    headers: {{ X-Scope-OrgID: a }}
    splits: false
    acknowledges: before_delivery
    drain_seconds: 0.3
  # Tenantry again, which sends each tenant's series apart: whole, but not under the one header.
  - name: only-totals
    command: ['{{loadgen}}', server, --config, '{{dir}}/t.yml']
    files: {{ t.yml: t.template }}
    splits: false
",
        own = own.display()
    );
    let head = "seconds: 0.4\nwarm_up_seconds: 0.1\nrounds: 2\n\
                scenarios:\n  - { tenants: [2, 5], series: 200, senders: 2 }";
    let comparison = Comparison::new(head, &contenders);
    let output = comparison.command().output().unwrap();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    let results = comparison.results();
    assert_eq!(results.scenarios.len(), 2, "{out}");
    assert!(!results.interrupted);
    for scenario in &results.scenarios {
        let [tenantry, shell, missing, early, unready, wrong, lossy, late, totals] = &scenario.showings[..]
        else {
            panic!("{out}")
        };
        for good in [tenantry, shell, totals] {
            assert_eq!(good.rounds().len(), 2, "{:?}", good.failure());
            for round in good.rounds() {
                assert!(round.requests > 0 && round.samples == round.requests * 200, "{round:?}");
                assert!(round.cpu_seconds > 0.0 && round.resident_bytes_peak > 1 << 20, "{round:?}");
                assert!(round.upstream_requests > 0 && round.tenant_parts >= round.requests, "{round:?}");
                assert!(
                    round.latency_ms.p50 > 0.0 && round.latency_ms.p50 <= round.latency_ms.max,
                    "{round:?}"
                );
            }
        }
        // The shell alone has some 2 MB and no CPU time to speak of.
        let (alone, below) = (tenantry.rounds()[0], shell.rounds()[0]);
        let cpu = |round: &loadgen::compare::Round| Measure::CPU_PER_REQUEST.of(round);
        assert!(below.resident_bytes_peak > alone.resident_bytes_peak / 2, "{below:?} {alone:?}");
        assert!(cpu(&below) > cpu(&alone) / 10.0, "{below:?} {alone:?}");

        for (showing, kind, words) in [
            (missing, FailureKind::DoesNotStart, ["/nowhere/server", "No such file"]),
            (early, FailureKind::DoesNotStart, ["exit status: 3", "no licence"]),
            (unready, FailureKind::DoesNotStart, ["not ready within 0.2 s", "refused"]),
            (wrong, FailureKind::AnswersWrongly, ["500: out of order", ""]),
            (lossy, FailureKind::LosesSamples, ["tenants differ: team-000: samples are lost (", ""]),
            (late, FailureKind::LosesSamples, ["acknowledged, 0 arrived", ""]),
        ] {
            let failure = showing.failure().expect("it should have failed");
            assert_eq!(failure.kind, kind);
            assert!(words.iter().all(|word| failure.reason.contains(word)), "{failure}");
        }
    }
    for (name, reason) in [
        ("missing", "does not start"),
        ("ends-early", "does not start"),
        ("never-ready", "does not start"),
        ("answers-500", "answers wrongly"),
        ("loses", "does not deliver what it acknowledged"),
    ] {
        assert_eq!(out.matches(&format!("✗ {name} {reason}: ")).count(), 2, "{name}: {out}");
        assert!(!out.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} has a figure: {out}");
    }
    assert_eq!(results.contenders[0].version, Some(format!("loadgen {}", env!("CARGO_PKG_VERSION"))));
    assert_eq!(comparison.left_behind(), Vec::<PathBuf>::new());
    assert_eq!(processes_of(comparison.dir.path()), Vec::<String>::new(), "{out}");
    report_of(&comparison, &results);
}

/// The report of a comparison in which some failed: every contender and failure in each scenario's table, and a chart
/// for each measure, in which those that failed have crosses and no figures.
fn report_of(comparison: &Comparison, results: &Results) {
    let charts = comparison.path("charts");
    let results_at = comparison.path("out.json");
    let args = ["report", results_at.to_str().unwrap(), "--svg", charts.to_str().unwrap()];
    let output = support::loadgen(&args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = fs::read_to_string(comparison.path("out.md")).unwrap();
    let (_, figures) = page.split_once("## Every figure").unwrap();
    for contender in &results.contenders {
        assert!(page.contains(&format!("\n| {} | ", contender.name)), "{}: {page}", contender.name);
    }
    for ((_, name, failure), scenario) in results.failures().zip(figures.split("\n### ").skip(1).cycle()) {
        let row = scenario.lines().find(|line| line.starts_with(&format!("| {name} | ")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the table: {scenario}"));
        assert!(row.contains(&failure.kind.to_string()), "{failure} is not in the table: {row}");
    }
    let good = figures.lines().filter(|line| line.starts_with("| tenantry | "));
    let columns: Vec<usize> = good.map(|row| row.matches(" | ").count()).collect();
    assert_eq!(columns, [Measure::ALL.len(); 2], "{figures}");

    let names = ["cpu-per-request", "requests", "p50", "p99", "peak-rss", "fan-out"];
    for name in names.map(|name| format!("{name}-by-tenants")) {
        assert!(page.contains(&format!("](charts/{name}.svg)")), "{name} is not on the page: {page}");
        let chart = fs::read_to_string(charts.join(format!("{name}.svg"))).unwrap();
        // A median's dot for each of three in two scenarios; of the fourth, which failed, two crosses of two lines.
        assert_eq!(chart.matches("<circle ").count(), 3 * 2, "{name}: {chart}");
        let crosses = chart.lines().filter(|line| line.starts_with("<line ") && line.contains("#B6558D"));
        assert_eq!(crosses.count(), 2 * 2, "{name}: {chart}");
        for contender in &results.contenders {
            assert!(chart.contains(&format!("● {}\n", contender.name)), "{name}: {}", contender.name);
        }
    }
}

/// TLS in and out, each proven like any other; and what is optional and not there is no failure.
#[test]
fn what_tls_costs_is_told() {
    let tls = "{ cert_file: '{dir}/server.pem', key_file: '{dir}/server.pem.key' }";
    let auth = format!(
        "auth: {{ ingress: {{ tls_config: {tls} }}, egress: {{ tls_config: {{ ca_bundle_file: '{{dir}}/ca.pem' }} }} }}"
    );
    let contenders = format!(
        "{GOOD}
  - name: tls
    command: ['{{loadgen}}', server, --config, '{{dir}}/t.yml']
    files: {{ t.yml: tls.template }}
    ready: https://{{listen}}/alive
    tls_in: true
    tls_out: true
    plain: tenantry
  - {{ name: missing, command: [/nowhere/server], optional: true }}
"
    );
    let head = "seconds: 0.4\nwarm_up_seconds: 0\nrounds: 2\n\
                scenarios:\n  - { tenants: 2, series: 500, senders: 2 }";
    let comparison = Comparison::new(head, &contenders);
    let template = TENANTRY.replace("http://", "https://") + &auth;
    fs::write(comparison.path("tls.template"), template).unwrap();
    let output = comparison.command().output().unwrap();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{error}");
    assert!(error.contains("missing is left out: its program is not installed"), "{error}");
    assert!(out.contains("\ntls: CPU × "), "{out}");
    let results = comparison.results();
    let [plain, tls, missing] = &results.scenarios[0].showings[..] else { panic!("{out}") };
    assert_eq!(missing, &loadgen::compare::Showing::LeftOut);
    for (plain, tls) in plain.rounds().iter().zip(tls.rounds()) {
        assert_eq!(plain.tls_seconds, 0.0);
        assert!(tls.tls_seconds > 0.0 && tls.tls_seconds < tls.cpu_seconds, "{tls:?}");
    }
    assert_eq!(tls.rounds().len(), 2);
    assert_eq!(comparison.left_behind(), Vec::<PathBuf>::new());
}

/// A comparison that would take a minute, which has begun to measure.
fn long_comparison() -> (Comparison, Child) {
    let head =
        "seconds: 60\nwarm_up_seconds: 0\nrounds: 1\nscenarios:\n  - { tenants: 2, series: 100, senders: 2 }";
    let comparison = Comparison::new(head, GOOD);
    let child = comparison.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !processes_of(comparison.dir.path()).iter().any(|command| command.contains("server --config")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no contender was started");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    (comparison, child)
}

#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    let (comparison, mut child) = long_comparison();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{out}");
    assert!(out.contains("interrupted"), "{out}");
    assert!(comparison.results().interrupted && comparison.results().scenarios.is_empty());
    assert_eq!(comparison.left_behind(), Vec::<PathBuf>::new());
    assert_eq!(processes_of(comparison.dir.path()), Vec::<String>::new());
}

#[test]
fn its_contenders_end_also_when_it_is_killed() {
    let (comparison, mut child) = long_comparison();
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while !processes_of(comparison.dir.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", processes_of(comparison.dir.path()));
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn failures_can_be_allowed_and_contenders_picked() {
    let head = "seconds: 0.2\nwarm_up_seconds: 0\nrounds: 1\nallow_failure: true\n\
                scenarios:\n  - { tenants: 2, series: 50, senders: 1 }";
    let comparison =
        Comparison::new(head, &format!("{GOOD}\n  - {{ name: missing, command: [/nowhere/server] }}\n"));
    let run = |args: &[&str]| -> Output { comparison.command().args(args).output().unwrap() };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(comparison.results().failures().count(), 1);

    let output = run(&["--only", "tenantry", "--rounds", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let results = comparison.results();
    assert_eq!((results.contenders.len(), results.scenarios[0].showings[0].rounds().len()), (1, 2));

    let output = run(&["--only", "tenantri"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no contender `tenantri`, only tenantry, missing"));
}

#[test]
fn mistakes_are_told() {
    let comparison = Comparison::new("secs: 1\nscenarios: []", GOOD);
    let output = comparison.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("try.yml") && error.contains("secs"), "{error}");

    let other = comparison.path("other.json");
    fs::write(&other, "{}").unwrap();
    support::refuses(&[
        (&["report", "/nowhere.json"], "cannot read /nowhere.json"),
        (&["report", other.to_str().unwrap()], "missing field"),
    ]);
}

/// Each goes to its own path, and all of it is proven.
#[test]
fn formats_of_otlp_can_be_compared() {
    let formats =
        "[otlp-metrics, otlp-metrics-gzip, otlp-logs, otlp-logs-json, otlp-traces, otlp-traces-gzip]";
    let head = format!(
        "seconds: 0.2\nwarm_up_seconds: 0\nrounds: 1\n\
         scenarios:\n  - {{ formats: {formats}, tenants: 3, series: 50, senders: 2 }}"
    );
    let comparison = Comparison::new(&head, &format!("{GOOD}    push_otlp: /otlp\n    formats: {formats}\n"));
    let targets = ["metrics", "logs", "traces"]
        .map(|signal| format!("target_otlp_{signal}: http://{{sink}}/v1/{signal}\n"))
        .concat();
    fs::write(comparison.path("t.template"), format!("{targets}{TENANTRY}")).unwrap();
    let output = comparison.command().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let results = comparison.results();
    assert_eq!(results.scenarios.len(), 6);
    for scenario in &results.scenarios {
        let [round] = scenario.showings[0].rounds() else { panic!("{}", text(&output.stdout)) };
        assert!(round.samples > 0 && round.upstream_requests > 0, "{round:?}");
    }
}

/// The configurations that come with the project are ones that can be run.
#[test]
fn the_projects_own_comparisons_are_sound() {
    let perf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf");
    for (name, scenarios) in [("compare.yml", 20), ("quick.yml", 3), ("formats.yml", 18), ("otlp.yml", 6)] {
        let config = loadgen::compare::Config::load(&perf.join(name)).unwrap();
        assert_eq!(config.scenarios.len(), scenarios, "{name}");
        let names: Vec<&str> = config.contenders.iter().map(|contender| contender.name.as_str()).collect();
        assert_eq!(names, ["tenantry", "tenantry-epoll", "haproxy", "vmagent", "cortex-tenant"], "{name}");
    }
    let tls = loadgen::compare::Config::load(&perf.join("tls.yml")).unwrap();
    let speaks_tls = |name: &str| name.contains("-tls");
    for contender in &tls.contenders {
        assert_eq!(contender.plain.is_some(), speaks_tls(&contender.name), "{}", contender.name);
        assert_eq!(contender.tls_in || contender.tls_out, speaks_tls(&contender.name), "{}", contender.name);
    }
}
