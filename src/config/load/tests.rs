use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::config::{KEYS, TenantHeader};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::model::MetadataRule;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn given(text: &str, variables: Variables<'_>) -> Result<Plan, ConfigMistakes> {
    parse("f.yml", text, variables.iter().map(|(name, value)| (name.into(), value.into())))
}

fn plan(text: &str, variables: Variables<'_>) -> Plan {
    given(text, variables).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

fn mistakes(text: &str, variables: Variables<'_>) -> Vec<String> {
    given(text, variables).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn defaults() -> String {
    let config = Config::read(&mut Sources::new(KEYS, "", []));
    config.effective().to_string()
}

#[test]
fn the_defaults_are_those_of_cortex_tenant() {
    let plan = plan("", &[]);
    assert_eq!(plan.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(plan.listen_metrics.to_string(), "0.0.0.0:9090");
    assert_eq!(plan.listen_pprof, None);
    assert!(!plan.metrics_include_tenant && !plan.log_response_errors && !plan.enable_ipv6);
    assert_eq!(plan.log_level, LevelFilter::WARN);
    let [target, loki, ..] = crate::model::Destination::ALL.map(|to| plan.terms.targets.of(to));
    assert_eq!((&*target.host, target.port), ("127.0.0.1", 9090));
    assert_eq!((&*loki.host, loki.port), ("127.0.0.1", 3100));
    assert_eq!(plan.terms.authorization, None);
    assert_eq!(plan.timeout, Duration::from_secs(10));
    assert_eq!(plan.idle_timeout, Duration::from_secs(60));
    assert_eq!(plan.timeout_shutdown, Duration::ZERO);
    assert_eq!(plan.max_connection_duration, None);
    assert_eq!((plan.max_conns_per_host, plan.concurrency), (64, 512));
    assert!(plan.metadata == MetadataRule::Drop && !plan.accept_all);
    assert_eq!(plan.tenant.labels, [Box::from(*b"__tenant__")]);
    assert_eq!((&*plan.tenant.prefix, plan.tenant.default), ("", None));
    assert!(!plan.tenant.prefix_prefer_source && !plan.tenant.label_remove);
    assert_eq!(plan.terms.tenant_header, TenantHeader::Name("X-Scope-OrgID".into()));
    assert_eq!(plan.limits.body_bytes_max, 8 << 20);
    assert_eq!(plan.notices, [""; 0]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = "timeout: 20s\nconcurrency: 7\nmetadata: true\ntenant:\n  label: a\n  default: d\n";
    let plan = plan(
        file,
        &[
            ("CT_TIMEOUT", "5s"),
            ("CT_METADATA", "F"),
            ("CT_TENANT_LABEL_LIST", "x, y"),
            ("CT_CONCURRENCY", ""),
        ],
    );
    assert_eq!(plan.timeout, Duration::from_secs(5));
    assert_eq!(plan.concurrency, 7, "an empty variable is not set");
    assert_eq!(plan.metadata, MetadataRule::Drop);
    assert_eq!(plan.tenant.labels, [Box::from(*b"x"), Box::from(*b"y")]);
    assert_eq!(plan.tenant.default.as_deref(), Some("d"));
}

#[test]
fn zero_and_empty_are_the_default_where_they_were_for_cortex_tenant() {
    let zeros = "listen: ''\nlisten_metrics_address: \"\"\ntarget: ''\ntarget_loki: ''\nlog_level: ''\n\
                 timeout: 0\nidle_timeout: 0s\nconcurrency: 0\nmax_conns_per_host: 0\nlisten_pprof:\n\
                 tenant:\n  label: ''\n  header: ~\n  label_list: []\n  default:\nauth:\n";
    let mut sources = Sources::new(KEYS, zeros, []);
    let config = Config::read(&mut sources);
    assert_eq!(sources.mistakes, []);
    assert_eq!(config.effective().to_string(), defaults());
}

#[test]
fn zero_is_refused_where_it_would_be_ambiguous() {
    let told = mistakes(
        "resolve_interval: 0s\nmerge:\n  inflight_max: 0\n  fragments_max: 0\n\
         limits:\n  body_bytes_max: 0\n",
        &[("CT_LIMITS_TENANTS_MAX", "0")],
    );
    assert_eq!(
        told,
        [
            "f.yml:1: resolve_interval: must be more than 0; write it like 10s",
            "f.yml:3: merge.inflight_max: must be at least 1; the default is auto",
            "f.yml:4: merge.fragments_max: must be at least 1, which means never to merge; the default is 64",
            "f.yml:6: limits.body_bytes_max: must be at least 1; the default is 8Mi",
            "CT_LIMITS_TENANTS_MAX (environment): limits.tenants_max: must be at least 1; the default is 10000",
        ]
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let told = mistakes(
        "listen: 8080\ntimeout: 10\ntenant:\n  lable: x\n  header: Host\n  label_remove: maybe\n\
         \x20 default: [a]\n\
         concurrency: many\ntarget: ftp://h/\nlimits: 5\n",
        &[("CT_METADATA", "yes"), ("CT_CORES", "-1")],
    );
    let expected = [
        "f.yml:1: listen: \"8080\" is not an address with a port; ",
        "f.yml:2: timeout: \"10\" has no unit; write 10s for seconds, ",
        "f.yml:4: tenant.lable: unknown key; did you mean `label`?",
        "f.yml:5: tenant.header: Host has a meaning of its own ",
        "f.yml:6: tenant.label_remove: \"maybe\" is neither true nor false",
        "f.yml:7: tenant.default: wants a single value, not a list",
        "f.yml:8: concurrency: \"many\" is not a whole number",
        "f.yml:9: target: \"ftp\" is not a scheme we know; ",
        "f.yml:10: limits: is a section: wants keys indented under it, not a single value",
        "CT_CORES (environment): cores: \"-1\" is negative",
        "CT_METADATA (environment): metadata: \"yes\" is none of false, true and route",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn a_key_given_twice_is_a_mistake() {
    let told = mistakes("timeout: 1s\ntenant:\n  label: a\n  label: b\ntimeout: 2s\ntenant: {}\n", &[]);
    assert_eq!(
        told,
        [
            "f.yml:4: tenant.label: given twice, first on line 3; keep one of the two",
            "f.yml:5: timeout: given twice, first on line 1; keep one of the two",
            "f.yml:6: tenant: given twice, first on line 2; keep one of the two",
        ]
    );
}

#[test]
fn anything_but_a_mapping_is_reported() {
    assert_eq!(mistakes("- a\n", &[]), ["f.yml:1: wants keys with values (`listen: …`), not a list"]);
    let told = mistakes("timeout: [\n", &[("CT_TIMEOUT", "x")]);
    assert!(told[0].starts_with("f.yml:1: not YAML: "), "{told:?}");
    assert!(told[1].starts_with("CT_TIMEOUT (environment): timeout: \"x\" is not a duration"), "{told:?}");
}

#[test]
fn a_dotted_name_is_not_the_key_of_that_path() {
    let told = mistakes("tenant.label: x\n", &[]);
    assert_eq!(told, ["f.yml:1: tenant.label: unknown key; write `label`, indented under `tenant:`"]);
}

#[test]
fn an_unknown_variable_similar_to_ours_is_a_notice() {
    let variables = [
        ("CT_TENANT_LABLE", "x"),
        ("CT_SERVICE_HOST", "10.0.0.1"),
        ("CT_PORT", "tcp://10.0.0.1:80"),
        ("TIMEOUT", "x"),
    ];
    let notices = plan("", &variables).notices;
    assert_eq!(notices, ["CT_TENANT_LABLE (environment) is ignored; did you mean CT_TENANT_LABEL?"]);
}

#[test]
fn a_variable_that_is_not_utf8_is_a_mistake_of_its_key() {
    let bytes = || OsString::from_vec(vec![b'a', 0xff]);
    let variables = [("CT_TENANT_DEFAULT".into(), bytes()), ("OTHER".into(), bytes()), (bytes(), "x".into())];
    let told = parse("f.yml", "", variables).unwrap_err().to_string();
    assert_eq!(told, "CT_TENANT_DEFAULT (environment): tenant.default: is not UTF-8 text");
}

#[test]
fn the_effective_configuration_shows_everything_but_the_password() {
    let file = "target: http://h/{tenant}\nauth:\n  egress:\n    username: bob\n    password: hunter2\n\
                tenant:\n  label_list: [a, b]\n  default: \"\"\nlimits:\n  body_bytes_max: 1048576\n";
    let plan = plan(file, &[("CT_IDLE_TIMEOUT", "90s")]);
    let effective = plan.effective();
    for shown in [
        "target=\"http://h/{tenant}\" ",
        " auth.egress.username=bob auth.egress.password=*** ",
        " tenant.label_list=[a, b] ",
        " tenant.default=\"\" ",
        " limits.body_bytes_max=1Mi ",
        " idle_timeout=1m30s ",
        " log_level=warn ",
    ] {
        assert!(effective.contains(shown), "{shown}: {effective}");
    }
    assert_eq!(effective.lines().count(), 1);
    assert!(KEYS.iter().all(|key| effective.contains(&format!("{}=", key.path))));
    let debug = format!("{plan:?}");
    assert!(!effective.contains("hunter2") && !debug.contains("hunter2"));
    // "bob:hunter2" in base64.
    assert!(!debug.contains("Ym9iOmh1bnRlcjI"));
    assert_eq!(plan.terms.authorization.as_ref().unwrap().expose(), b"Basic Ym9iOmh1bnRlcjI=");
    // Without a password there is nothing to hide.
    assert!(super::parse("", "", []).unwrap().effective().contains("auth.egress.password=\"\" "));
}

#[test]
fn a_query_or_a_user_in_a_target_is_never_shown() {
    for key in ["target", "target_loki"] {
        let plan = plan(&format!("{key}: http://h/{{tenant}}?token=hunter2"), &[]);
        let effective = plan.effective();
        assert!(effective.contains(&format!("{key}=\"http://h/{{tenant}}?***\" ")), "{effective}");
        assert!(!effective.contains("hunter2") && !format!("{plan:?}").contains("hunter2"));
        for wrong in [
            "http://u:hunter2@h/",
            "u:hunter2@h/?x=://",
            "h/ ?hunter2",
            "h?hunter2={tenant}",
            "u:hunter2://h@h",
        ] {
            let told = given(&format!("{key}: '{wrong}'"), &[]).unwrap_err().to_string();
            assert!(told.starts_with(&format!("f.yml:1: {key}: ")) && !told.contains("hunter2"), "{told}");
        }
    }
}

#[test]
fn a_password_is_never_in_a_mistake() {
    let file = "auth:\n  egress:\n    username: 'a:b'\n    password: \"hunter2\\n\"\n";
    for (file, variables) in [
        (file, &[][..]),
        ("", &[("CT_AUTH_EGRESS_PASSWORD", "hunter2")][..]),
        ("auth:\n  egress:\n    password: [hunter2]\n", &[]),
    ] {
        let told = given(file, variables).unwrap_err().to_string();
        assert!(told.contains("auth.egress.") && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn files_that_cannot_be_read_are_a_mistake_and_the_environment_is_still_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.yml");
    let told = || load(Some(&path)).unwrap_err().to_string();
    assert!(told().contains("f.yml: cannot be read: "), "{}", told());
    std::fs::write(&path, b"listen: \xff").unwrap();
    assert!(told().ends_with("f.yml: is not UTF-8 text"), "{}", told());
    std::fs::write(&path, "#".repeat(CONFIG_FILE_BYTES_MAX + 1)).unwrap();
    assert!(told().contains("f.yml: is larger than 1048576 bytes"), "{}", told());
    std::fs::write(&path, "#".repeat(CONFIG_FILE_BYTES_MAX)).unwrap();
    assert!(load(Some(&path)).is_ok());
}
