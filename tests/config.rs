//! Whole configurations: ones in use today, the ones in this repository, and the errors for bad ones.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: where they cannot go on, the test fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tenantry::config::{ConfigMistakes, KEYS, Plan, parse, print_defaults, settings_tables};
use tenantry::model::{Destination, MetadataRule, V2Handling};
use tenantry::tenant::{IdRules, Policy, TenantId};

const SEED: &str = "tests/fixtures/seed-cortex-tenant.yml";
/// Folders of `configs/kubernetes` with a configuration.
const IN_KUBERNETES: [&str; 3] = ["base", "overlays/mimir", "overlays/thanos"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a file with the text that is generated for it. If `UPDATE_DOCS` is set, it writes the file first.
fn is_made(path: &str, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), text).unwrap();
    }
    assert!(read(path) == text, "{path} is out of date: UPDATE_DOCS=1 cargo test --release --test config");
}

fn given(text: &str) -> Result<Plan, ConfigMistakes> {
    parse("f.yml", text, [])
}

fn plan(text: &str) -> Plan {
    given(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The text under `name: |` in a manifest, without its indentation.
fn embedded(manifest: &str, name: &str) -> String {
    let mut lines = manifest.lines().skip_while(|line| line.trim() != format!("{name}: |"));
    let indent = lines.next().unwrap().find(name).unwrap() + 2;
    let inside = lines.take_while(|line| line.trim().is_empty() || line.find(|c| c != ' ') >= Some(indent));
    let text: String = inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
    format!("{}\n", text.trim_end())
}

fn upstream_path(plan: &Plan, tenant: &str) -> String {
    let mut path = Vec::new();
    plan.terms
        .targets
        .of(Destination::Metrics)
        .path_for(&TenantId::new(tenant, plan.tenant.id_rules).unwrap(), &mut path);
    String::from_utf8(path).unwrap()
}

#[test]
fn the_configuration_of_a_cortex_tenant_in_kubernetes_starts_unchanged() {
    let plan = plan(&read(SEED));
    assert_eq!(plan.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(plan.listen_pprof.unwrap().to_string(), "0.0.0.0:7008");
    assert_eq!(plan.listen_metrics.to_string(), "0.0.0.0:9090");
    assert!(plan.metrics_include_tenant && plan.metadata == MetadataRule::Drop && !plan.accept_all);
    assert_eq!(
        (
            &*plan.terms.targets.of(Destination::Metrics).host,
            plan.terms.targets.of(Destination::Metrics).port
        ),
        ("thanos-routing-receiver.monitoring.svc", 19291)
    );
    assert_eq!(
        plan.terms.targets.of(Destination::Metrics).host_header,
        "thanos-routing-receiver.monitoring.svc:19291"
    );
    assert_eq!(upstream_path(&plan, "grafana"), "/api/v1/receive");
    assert_eq!((plan.timeout, plan.idle_timeout), (Duration::from_secs(10), Duration::from_secs(60)));
    assert_eq!(plan.timeout_shutdown, Duration::from_secs(10));
    assert_eq!(plan.concurrency, 1000);
    assert_eq!(plan.tenant.labels, [Box::from(*b"tenant")]);
    assert_eq!(plan.tenant.prefix, "");
    assert!(!plan.tenant.prefix_prefer_source && !plan.tenant.label_remove);
    assert_eq!(plan.terms.tenant_header.inbound(), "THANOS-TENANT");
    assert_eq!(plan.tenant.id_rules, IdRules::Thanos);
    assert_eq!(plan.tenant.default.as_deref(), Some("cortex-tenant-default"));
    assert_eq!((plan.tenant.on_missing, plan.tenant.on_invalid), (Policy::Reject, Policy::Reject));
    assert_eq!(plan.notices, [""; 0]);
}

#[test]
fn it_stands_like_that_in_its_manifest() {
    let manifest = read("tests/fixtures/seed-kubernetes.yml");
    assert_eq!(embedded(&manifest, "cortex-tenant.yml"), read(SEED));
}

#[test]
fn a_typo_in_it_is_told_with_its_line_and_the_key_meant() {
    for (written, typed, told) in [
        (
            "label_remove:",
            "lable_remove:",
            "f.yml:47: tenant.lable_remove: unknown key; did you mean `label_remove`?",
        ),
        ("  label: ", "  lable: ", "f.yml:33: tenant.lable: unknown key; did you mean `label`?"),
        ("\ntenant:", "\ntenants:", "f.yml:31: tenants: unknown key; did you mean `tenant`?"),
        ("\ntarget:", "\ntraget:", "f.yml:6: traget: unknown key; did you mean `target`?"),
        (
            "timeout: 10s",
            "timeout: 10x",
            "f.yml:10: timeout: \"10x\" is not a duration; write it like 10s, 1m30s, 1.5h or 500ms",
        ),
        ("  default:", "default:", "f.yml:53: default: unknown key; `default` belongs under `tenant`"),
    ] {
        let text = read(SEED);
        let line = |found: &str| text.lines().position(|line| line.contains(found.trim_start_matches('\n')));
        assert!(line(written).is_some(), "{written} is there to be mistyped");
        let text = text.replacen(written, typed, 1);
        // A default at another indentation ends the section of the last key.
        let text = text.replace("  accept_all: false\n", "");
        assert_eq!(given(&text).unwrap_err().to_string(), told);
    }
}

#[test]
fn every_key_of_cortex_tenant_means_what_it_meant() {
    let plan = plan(&read("tests/fixtures/cortex-tenant-every-key.yml"));
    assert_eq!(plan.listen.to_string(), "192.0.2.1:8090");
    assert_eq!(plan.listen_pprof.unwrap().to_string(), "127.0.0.1:6060");
    assert_eq!(plan.listen_metrics.to_string(), "192.0.2.1:9100");
    assert!(
        plan.metrics_include_tenant
            && plan.enable_ipv6
            && plan.metadata == MetadataRule::ToDefault
            && plan.log_response_errors
    );
    assert_eq!(
        (
            &*plan.terms.targets.of(Destination::Metrics).host,
            plan.terms.targets.of(Destination::Metrics).port
        ),
        ("mimir.example", 8080)
    );
    assert_eq!(upstream_path(&plan, "a"), "/api/v1/push");
    assert_eq!(plan.log_level, tracing::level_filters::LevelFilter::INFO);
    assert_eq!(plan.timeout, Duration::from_secs(90));
    assert_eq!(plan.idle_timeout, Duration::from_secs(120));
    assert_eq!(plan.timeout_shutdown, Duration::from_millis(1500));
    assert_eq!(plan.max_connection_duration, Some(Duration::from_secs(5400)));
    assert_eq!((plan.concurrency, plan.max_conns_per_host), (2048, 128));
    // Base64 of `writer:s3cret: with "quotes"`.
    let authorization = plan.terms.authorization.as_ref().unwrap().expose();
    assert_eq!(authorization, b"Basic d3JpdGVyOnMzY3JldDogd2l0aCAicXVvdGVzIg==");
    assert_eq!(plan.tenant.labels, [Box::<[u8]>::from(*b"team"), Box::from(*b"namespace")]);
    assert_eq!(plan.tenant.prefix, "eu-");
    assert!(plan.tenant.prefix_prefer_source && plan.tenant.label_remove && plan.accept_all);
    assert_eq!(plan.terms.tenant_header.inbound(), "X-Scope-OrgID");
    assert_eq!(plan.tenant.id_rules, IdRules::Mimir);
    assert_eq!(plan.tenant.default.as_deref(), Some("007"), "not the number 7");
}

#[test]
fn every_key_of_cortex_tenant_can_come_from_the_environment() {
    // The same values as in the file, so that the two plans can be compared.
    let variables = [
        ("LISTEN", "192.0.2.1:8090"),
        ("LISTEN_PPROF", "127.0.0.1:6060"),
        ("LISTEN_METRICS_ADDRESS", "192.0.2.1:9100"),
        ("METRICS_INCLUDE_TENANT", "1"),
        ("TARGET", "mimir.example:8080/api/v1/push"),
        ("TARGET_LOKI", "127.0.0.1:3100"),
        ("ENABLE_IPV6", "t"),
        ("LOG_LEVEL", "info"),
        ("TIMEOUT", "90s"),
        ("IDLE_TIMEOUT", "2m"),
        ("TIMEOUT_SHUTDOWN", "1.5s"),
        ("CONCURRENCY", "2048"),
        ("METADATA", "true"),
        ("LOG_RESPONSE_ERRORS", "TRUE"),
        ("MAX_CONN_DURATION", "90m"),
        ("MAX_CONNS_PER_HOST", "128"),
        ("AUTH_EGRESS_USERNAME", "writer"),
        ("AUTH_EGRESS_PASSWORD", "s3cret: with \"quotes\""),
        ("CA_BUNDLE_FILE", ""),
        ("TLS_CERT_FILE", ""),
        ("TLS_KEY_FILE", ""),
        ("TENANT_LABEL", "team"),
        ("TENANT_LABEL_LIST", "team,namespace"),
        ("TENANT_PREFIX", "eu-"),
        ("TENANT_PREFIX_PREFER_SOURCE", "True"),
        ("TENANT_LABEL_REMOVE", "T"),
        ("TENANT_HEADER", "X-Scope-OrgID"),
        ("TENANT_DEFAULT", "007"),
        ("TENANT_ACCEPT_ALL", "true"),
    ];
    let variables = variables.map(|(name, value)| (format!("CT_{name}").into(), value.into()));
    let by_variables = parse("", "", variables).unwrap();
    let by_file = plan(&read("tests/fixtures/cortex-tenant-every-key.yml"));
    assert_eq!(by_variables.effective(), by_file.effective());
    assert_eq!(by_variables.terms.authorization, by_file.terms.authorization);
}

#[test]
fn the_shipped_default_configuration_is_the_printed_one() {
    is_made("configs/tenantry.yml", &print_defaults());
    assert_eq!(plan(&read("configs/tenantry.yml")).effective(), plan("").effective());
}

#[test]
fn every_shipped_configuration_yields_a_plan() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yml"))
        .collect();
    names.sort();
    assert_eq!(names, ["mimir.yml", "tenantry.yml", "thanos-receive.yml", "victoriametrics.yml"]);
    names.extend(IN_KUBERNETES.map(|name| format!("kubernetes/{name}/tenantry.yml")));
    for name in names {
        let plan =
            given(&read(&format!("configs/{name}"))).unwrap_or_else(|mistakes| panic!("{name}\n{mistakes}"));
        assert_eq!(plan.notices, [""; 0], "{name}");
    }
}

#[test]
fn the_shipped_configurations_fit_their_upstreams() {
    let mimir = plan(&read("configs/mimir.yml"));
    assert_eq!(
        (mimir.terms.tenant_header.inbound(), mimir.tenant.id_rules),
        ("X-Scope-OrgID", IdRules::Mimir)
    );
    assert!(mimir.merge.ha_labels.is_some());
    let thanos = plan(&read("configs/thanos-receive.yml"));
    assert_eq!(
        (thanos.terms.tenant_header.inbound(), thanos.tenant.id_rules),
        ("THANOS-TENANT", IdRules::Thanos)
    );
    assert_eq!(thanos.merge.ha_labels, None);
    let victoria = plan(&read("configs/victoriametrics.yml"));
    assert_eq!(upstream_path(&victoria, "42:7"), "/insert/42:7/prometheus/api/v1/write");
    assert_eq!(victoria.tenant.id_rules, IdRules::VictoriaMetrics);
    assert_eq!(victoria.remote_write_v2, Some(V2Handling::Downgrade));
}

#[test]
fn the_unit_waits_for_what_stopping_may_take() {
    let unit = read("configs/tenantry.service");
    let seconds =
        unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s')).unwrap();
    let plan = plan("timeout_shutdown: 10s");
    assert!(plan.stop_time_max() <= Duration::from_secs(seconds.parse().unwrap()));
}

/// `tests/deploy` checks the manifests as a whole, with kubectl.
#[test]
fn the_manifests_agree_with_the_configurations() {
    let manifest = read("configs/kubernetes/base/deployment.yaml");
    let service = read("configs/kubernetes/base/service.yaml");
    let grace = "terminationGracePeriodSeconds: ";
    let grace = manifest.lines().find_map(|line| line.trim().strip_prefix(grace)).unwrap();
    let grace = Duration::from_secs(grace.parse().unwrap());
    for name in IN_KUBERNETES {
        let plan = plan(&read(&format!("configs/kubernetes/{name}/tenantry.yml")));
        for port in [plan.listen.port(), plan.listen_metrics.port()] {
            assert!(manifest.contains(&format!("containerPort: {port}\n")), "{port}");
            assert!(service.contains(&format!("port: {port}\n")), "{port}");
        }
        assert!(plan.stop_time_max() <= grace);
    }
    assert!(manifest.contains("path: /alive\n"));
    for name in manifest.lines().filter_map(|line| line.trim().strip_prefix("- name: CT_")) {
        assert!(KEYS.iter().any(|key| key.variable() == format!("CT_{name}")), "{name}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    /// Any file gives a plan or a list of mistakes, each on a line that exists.
    #[test]
    fn a_damaged_configuration_is_never_more_than_mistaken(
        damage in proptest::collection::vec(
            (0_usize..2048, "[\\PC\\n]{0,3}|[\\[\\]{}:,&*!|>'\"%@#~-]{1,2}", 0_usize..4),
            1..6,
        ),
    ) {
        let mut chars: Vec<char> = read("tests/fixtures/cortex-tenant-every-key.yml").chars().collect();
        for (at, inserted, removed) in damage {
            let at = at.min(chars.len());
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, inserted.chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(mistakes) = given(&text) {
            let told = mistakes.to_string();
            proptest::prop_assert_eq!(told.lines().count(), mistakes.count());
            for line in told.lines().filter_map(|line| line.strip_prefix("f.yml:")) {
                let number: usize = line.split(':').next().unwrap().parse().unwrap();
                proptest::prop_assert!((1..=text.lines().count() + 1).contains(&number), "{line}");
            }
        }
    }
}

/// Runs the program with these arguments and only these variables.
fn tenantry(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CT_")) {
        command.env_remove(name);
    }
    let variables = variables.iter().copied();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).envs(variables).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_program_checks_a_configuration_and_ends() {
    for args in
        [&["--check-config", "--config", SEED][..], &["-check-config", "-config", SEED], &["--check-config"]]
    {
        let output = tenantry(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn the_program_tells_every_mistake_and_ends_with_64() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("bad.yml");
    std::fs::write(&path, read(SEED).replace("  label: ", "  lable: ").replace("1000", "-1")).unwrap();
    let file = path.to_str().unwrap();
    // With and without --check-config, before anything is bound.
    for args in [&["--check-config", "-c", file][..], &["-config", file]] {
        let output = tenantry(args, &[("CT_TIMEOUT", "soon")]);
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(stdout(&output), "");
        let told = stderr(&output);
        for line in [
            format!("{file}:18: concurrency: \"-1\" is negative\n"),
            format!("{file}:33: tenant.lable: unknown key; did you mean `label`?\n"),
            "CT_TIMEOUT (environment): timeout: \"soon\" is not a duration".to_owned(),
        ] {
            assert!(told.contains(&line), "{line}\n{told}");
        }
    }
}

#[test]
fn the_program_warns_of_what_is_hardly_meant() {
    let output = tenantry(&["--check-config"], &[("CT_TENANT_LABLE", "x")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("did you mean CT_TENANT_LABEL?"), "{}", stderr(&output));
}

#[test]
fn the_program_prints_the_defaults() {
    let output = tenantry(&["--print-default-config"], &[("CT_TIMEOUT", "1s")]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), print_defaults());
}

#[test]
fn the_program_knows_its_arguments() {
    let output = tenantry(&["--confg", "x"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--config"), "{}", stderr(&output));
    let output = tenantry(&["--check-config", "--config", "tests/fixtures/none.yml"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("tests/fixtures/none.yml: cannot be read: "), "{}", stderr(&output));
}

#[test]
fn the_settings_page_is_made_from_the_keys() {
    const PAGE: &str = "configs/README.md";
    let page = read(PAGE);
    let (begin, end) = ("<!-- generated from the keys -->\n\n", "<!-- end of what is generated -->\n");
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    is_made(PAGE, &format!("{before}{begin}{}{end}{after}", settings_tables()));
}
