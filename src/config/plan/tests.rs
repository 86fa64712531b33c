use super::*;
use crate::config::{Target, TenantHeader};
use crate::log::LogFormat;
use crate::model::{Compression, TargetCoding};
use crate::tenant::{IdRules, NamedBy, Policy};

fn given(text: &str) -> Result<Plan, Vec<String>> {
    crate::config::parse("f", text, [])
        .map_err(|mistakes| mistakes.to_string().lines().map(str::to_owned).collect())
}

fn plan(text: &str) -> Plan {
    given(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:#?}"))
}

/// `text` has exactly one mistake, at `place`, and its text contains `said`.
#[track_caller]
fn refused(text: &str, place: &str, said: &str) {
    let mistakes = given(text).unwrap_err();
    let [mistake] = &mistakes[..] else { panic!("{text}\n{mistakes:#?}") };
    assert!(mistake.starts_with(&format!("{place}: ")) && mistake.contains(said), "{text}\n{mistake}");
}

#[test]
fn every_setting_reaches_the_plan() {
    let plan = plan(
        "listen: :1\nlisten_metrics_address: 127.0.0.1:2\nlisten_pprof: 127.0.0.1:3\n\
         metrics_include_tenant: true\nlog_level: debug\nlog_format: json\nlog_response_errors: true\n\
         target: http://h:4/{tenant}/x\nenable_ipv6: true\nresolve_interval: 5s\n\
         auth: {egress: {username: u, password: p}}\n\
         timeout: 6s\nidle_timeout: 7s\ntimeout_shutdown: 8s\nconcurrency: 9\n\
         retry_after_max: 26s\n\
         max_connection_duration: 10s\n\
         max_conns_per_host: 11\nmetadata: true\ncores: 12\ndriver: epoll\n\
         remote_write_v2_require_written: true\nupstream: {pass_headers: [X-A, X-B]}\n\
         tenant:\n  label_list: [a, b]\n  prefix: p-\n  prefix_prefer_source: true\n  label_remove: true\n\
         \x20 header: X-T\n  default: d\n  accept_all: true\n  id_rules: mimir\n  on_missing: drop\n\
         \x20 on_invalid: drop\n\
         merge:\n  inflight_max: 13\n  linger: 14ms\n  fragments_max: 15\n  inflated_bytes_max: 16Ki\n\
         \x20 ha_cluster_label: c\n  ha_replica_label: r\n\
         receipts: {keep: 24s, bytes_max: 25Ki}\n\
         limits:\n  head_bytes_max: 17Ki\n  body_bytes_max: 18Ki\n  inflated_bytes_max: 19Ki\n\
         \x20 in_flight_bytes_max: 20Mi\n  connections_max: 21\n  tenants_max: 22\n\
         \x20 tenant_share_percent: 25\n\x20 slow_share_percent: 10\n\
         \x20 tenants_per_request_max: 23\n",
    );
    let secs = Duration::from_secs;
    assert_eq!(plan.listen.to_string(), "[::]:1");
    assert_eq!(plan.listen_metrics.to_string(), "127.0.0.1:2");
    assert_eq!(plan.listen_pprof.unwrap().to_string(), "127.0.0.1:3");
    assert!(plan.metrics_include_tenant && plan.log_response_errors && plan.enable_ipv6);
    assert!(plan.metadata == MetadataRule::ToDefault && plan.accept_all);
    assert!(plan.remote_write_v2_require_written);
    assert_eq!(plan.pass_headers, [Box::from("X-A"), Box::from("X-B")]);
    assert_eq!((plan.log_level, plan.log_format), (LevelFilter::DEBUG, LogFormat::Json));
    assert_eq!(*plan.terms.targets.of(Destination::Metrics), Target::parse("http://h:4/{tenant}/x").unwrap());
    assert_eq!(plan.resolve_interval, secs(5));
    assert_eq!(plan.terms.authorization.as_ref().unwrap().expose(), b"Basic dTpw");
    assert_eq!((plan.timeout, plan.idle_timeout, plan.timeout_shutdown), (secs(6), secs(7), secs(8)));
    assert_eq!(plan.retry_after_max, secs(26));
    assert_eq!(plan.max_connection_duration, Some(secs(10)));
    assert_eq!((plan.concurrency, plan.max_conns_per_host), (9, 11));
    assert_eq!((plan.cores, plan.driver), (NonZeroUsize::new(12), DriverChoice::Epoll));
    let tenant = TenantRules {
        named_by: NamedBy::Label,
        labels: vec![Box::from(*b"a"), Box::from(*b"b")],
        prefix: "p-".into(),
        prefix_prefer_source: true,
        label_remove: true,
        default: Some("d".into()),
        id_rules: IdRules::Mimir,
        on_missing: Policy::Drop,
        on_invalid: Policy::Drop,
        map: None,
        allow: None,
    };
    // A quarter of 9 requests, rounded up.
    assert_eq!(plan.tenant_share(), Share { parts_max: 3, bytes_max: (20 << 20) / 100 * 25 });
    assert_eq!(plan.tenant, tenant);
    assert_eq!(plan.terms.tenant_header, TenantHeader::Name("X-T".into()));
    let merge = Merge {
        inflight_max: Some(13),
        linger: Duration::from_millis(14),
        fragments_max: 15,
        inflated_bytes_max: 16 << 10,
        ha_labels: Some(HaLabels { cluster: Box::from(*b"c"), replica: Box::from(*b"r") }),
    };
    assert_eq!(plan.merge, merge);
    let limits = Limits {
        head_bytes_max: 17 << 10,
        body_bytes_max: 18 << 10,
        inflated_bytes_max: 19 << 10,
        in_flight_bytes_max: 20 << 20,
        tenant_share_percent: 25,
        slow_share_percent: 10,
        connections_max: NonZeroUsize::new(21),
        tenants_max: 22,
        tenants_per_request_max: 23,
    };
    assert_eq!(plan.limits, limits);
    assert_eq!(plan.receipts, Receipts { keep: Duration::from_secs(24), bytes_max: 25 << 10 });
}

#[test]
fn the_time_to_stop_is_the_sum_of_a_requests_waits() {
    let plan = plan("timeout: 4s\ntimeout_shutdown: 3s");
    assert_eq!(plan.request_time_max(), Duration::from_secs(28));
    assert_eq!(plan.stop_time_max(), Duration::from_secs(3 + 28 + 5));
}

#[test]
fn the_new_settings_have_their_defaults() {
    let plan = plan("");
    let merge = Merge {
        inflight_max: None,
        linger: Duration::ZERO,
        fragments_max: 64,
        inflated_bytes_max: 1 << 20,
        ha_labels: Some(HaLabels { cluster: Box::from(*b"cluster"), replica: Box::from(*b"__replica__") }),
    };
    let limits = Limits {
        head_bytes_max: 16 << 10,
        body_bytes_max: 8 << 20,
        inflated_bytes_max: 64 << 20,
        in_flight_bytes_max: 512 << 20,
        tenant_share_percent: 50,
        slow_share_percent: 25,
        connections_max: None,
        tenants_max: 10_000,
        tenants_per_request_max: 4096,
    };
    assert_eq!(plan.tenant_share(), Share { parts_max: 256, bytes_max: (512 << 20) / 100 * 50 });
    assert_eq!(plan.slow_share(), Share { parts_max: 128, bytes_max: (512 << 20) / 100 * 25 });
    assert_eq!((plan.tenant_connections_max(), plan.slow_connections_max()), (32, 16));
    assert_eq!((plan.merge, plan.limits), (merge, limits));
    assert_eq!(plan.receipts, Receipts { keep: Duration::from_secs(300), bytes_max: 16 << 20 });
    assert_eq!((plan.cores, plan.driver), (None, DriverChoice::Auto));
    assert_eq!(plan.resolve_interval, Duration::from_secs(10));
    assert_eq!(plan.retry_after_max, Duration::from_secs(60));
    assert_eq!((plan.tenant.on_missing, plan.tenant.on_invalid), (Policy::Reject, Policy::Reject));
}

#[test]
fn id_rules_follow_the_header_unless_they_are_set() {
    for (text, rules) in [
        ("", IdRules::Mimir),
        ("tenant: {header: x-scope-ORGID}", IdRules::Mimir),
        ("tenant: {header: THANOS-TENANT}", IdRules::Thanos),
        ("tenant: {header: THANOS-TENANT, id_rules: mimir}", IdRules::Mimir),
        ("tenant: {id_rules: thanos}", IdRules::Thanos),
        ("tenant: {id_rules: victoriametrics}", IdRules::VictoriaMetrics),
        ("tenant: {header: accountid+PROJECTID}", IdRules::VictoriaMetrics),
        ("tenant: {header: AccountID+ProjectID, id_rules: victoriametrics}", IdRules::VictoriaMetrics),
        ("tenant: {header: AccountID}", IdRules::Thanos),
    ] {
        assert_eq!(plan(text).tenant.id_rules, rules, "{text}");
    }
    refused(
        "tenant: {header: AccountID+ProjectID, id_rules: thanos}",
        "f:1: tenant.id_rules",
        "wants tenant.id_rules victoriametrics",
    );
    refused(
        "tenant: {header: AccountID+ProjectID, prefix_prefer_source: true}",
        "f:1: tenant.prefix_prefer_source",
        "is no number",
    );
    refused(
        "tenant: {header: AccountID+ProjectID, default: a}",
        "f:1: tenant.default",
        "rules of victoriametrics",
    );
    refused("tenant: {header: AccountID+ProjectID, prefix: a-}", "f:1: tenant.prefix", "can begin with");
    plan("tenant: {header: AccountID+ProjectID, prefix: '7:', default: '0'}");
}

#[test]
fn the_label_list_replaces_the_label() {
    assert_eq!(plan("tenant: {label: a}").tenant.labels, [Box::from(*b"a")]);
    assert_eq!(plan("tenant: {label: a, label_list: []}").tenant.labels, [Box::from(*b"a")]);
    let both = plan("tenant: {label: a, label_list: [b]}");
    assert_eq!(both.tenant.labels, [Box::from(*b"b")]);
    assert_eq!(both.notices, ["tenant.label is ignored, because tenant.label_list is set"]);
    assert_eq!(plan("tenant: {label: '', label_list: [b]}").notices, [""; 0], "an empty label is not set");
    refused("tenant: {label_list: [a, '']}", "f:1: tenant.label_list", "is empty");
    refused("tenant: {label_list: [a, b, a]}", "f:1: tenant.label_list", "\"a\" is listed twice");
    refused("tenant: {label_list: [a, [b]]}", "f:1: tenant.label_list", "an item of the list wants a single");
}

#[test]
fn attributes_name_tenants_in_otlp_and_are_the_labels_unless_they_are_set() {
    let labels = plan("tenant: {label_list: [a, b], label_remove: true, prefix: p-}");
    assert_eq!(labels.tenant_otlp.labels, [Box::from(*b"a"), Box::from(*b"b")]);
    assert!(!labels.removes_label(Destination::OtlpLogs) && labels.removes_label(Destination::Metrics));
    let own =
        plan("tenant: {label: a, attributes: [k8s.namespace.name, t], attribute_remove: true, prefix: p-}");
    assert_eq!(own.tenant.labels, [Box::from(*b"a")]);
    assert_eq!(
        own.tenant_rules(Destination::OtlpTraces).labels,
        [Box::from(*b"k8s.namespace.name"), (*b"t").into()]
    );
    assert_eq!(own.tenant_rules(Destination::Logs).labels, [Box::from(*b"a")]);
    assert!(own.removes_label(Destination::OtlpTraces) && !own.removes_label(Destination::Metrics));
    assert_eq!(own.tenant_otlp.resolve(Some(b"x"), None).unwrap().as_str(), "p-x");
    refused("tenant: {attributes: [a, a]}", "f:1: tenant.attributes", "listed twice");
    refused("tenant: {attributes: [a, '']}", "f:1: tenant.attributes", "an attribute's name is empty");
    let coded = plan("target_otlp_logs_coding: gzip");
    assert_eq!(*coded.terms.codings.of(Destination::OtlpLogs), TargetCoding::Always(Compression::Gzip));
    assert_eq!(*coded.terms.codings.of(Destination::OtlpTraces), TargetCoding::AsReceived);
    refused("target_otlp_logs_coding: br", "f:1: target_otlp_logs_coding", "none of as-received, gzip");
}

#[test]
fn a_target_that_is_our_own_address_is_refused() {
    for key in ["target", "target_loki"] {
        for scheme in ["", "http://", "https://"] {
            let own = format!("listen: 127.0.0.1:81\n{key}: {scheme}127.0.0.1:81");
            refused(&own, &format!("f:2: {key}"), "our own listen address");
        }
    }
}

/// A folder with a certificate for `localhost`, its key, and the authority that issued it.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = testkit::pki::Authority::new("ca").unwrap();
    let issued = authority.issue(&testkit::pki::Wanted::server(&["localhost"])).unwrap();
    for (name, text) in
        [("ca.pem", authority.certificate()), ("cert.pem", issued.certificate), ("key.pem", issued.key)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn empty_tls_settings_mean_plain_http_and_the_roots_of_the_system() {
    let plan = plan(
        "target_loki: 127.0.0.1:3100\nauth:\n  egress:\n    tls_config:\n      ca_bundle_file: ''\n\
          \x20 ingress:\n    tls_config:\n      cert_file:\n      key_file: ''\n",
    );
    assert!(plan.tls.ingress.is_none() && plan.tls.upstream.iter().all(Option::is_none));
    assert_eq!(plan.watched_files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_files_of_tls_are_read_with_the_configuration() {
    let folder = certificates();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "target: https://h:1/x\ntarget_loki: http://h:1/y\nauth:\n  egress: {{tls_config: {{ca_bundle_file: '{}'}}}}\n\
         \x20 ingress: {{tls_config: {{cert_file: '{}', key_file: '{}'}}}}\n",
        at("ca.pem"),
        at("cert.pem"),
        at("key.pem"),
    );
    let running = plan(&text);
    assert!(running.tls.ingress.is_some());
    assert!(running.tls.upstream.of(Destination::Metrics).is_some());
    assert!(running.tls.upstream.of(Destination::Logs).is_none(), "http:// stays plain");
    assert_eq!(running.watched_files().len(), 3);
    assert!(running.read_files_again().plan.is_none(), "nothing has changed");

    let renewed = certificates();
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(renewed.path().join(name), folder.path().join(name)).unwrap();
    }
    let after = running.read_files_again();
    assert!(after.security.changed && after.security.mistakes.is_empty() && after.secrets.is_quiet());
    let after = after.plan.unwrap();
    let same = |a: &Plan, b: &Plan, destination: Destination| {
        let of = |plan: &Plan| plan.tls.upstream.of(destination).clone().map(|tls| Arc::as_ptr(&tls));
        of(a) == of(b)
    };
    assert!(same(&running, &after, Destination::Metrics), "pools keep their connections");
    let ingress = |plan: &Plan| Arc::as_ptr(plan.tls.ingress.as_ref().unwrap());
    assert_ne!(ingress(&running), ingress(&after));

    std::fs::write(folder.path().join("key.pem"), "no key").unwrap();
    let mistakes = running.read_files_again().security.mistakes;
    assert_eq!(mistakes, [format!("{}: contains no private key", at("key.pem"))]);
}

#[test]
fn mistakes_in_the_files_of_tls_are_reported_at_the_settings_that_name_them() {
    let folder = certificates();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ca) = (at("cert.pem"), at("key.pem"), at("ca.pem"));
    let ingress = |text: &str| format!("auth:\n  ingress:\n    tls_config:\n{text}");
    refused(
        &ingress(&format!("      cert_file: {cert}")),
        "f:4: auth.ingress.tls_config.cert_file",
        "set both or none",
    );
    refused(
        &ingress(&format!("      key_file: {key}")),
        "f:4: auth.ingress.tls_config.key_file",
        "set both or none",
    );
    refused(
        &ingress(&format!("      cert_file: {cert}\n      key_file: {ca}")),
        "f:5: auth.ingress.tls_config.key_file",
        "contains no private key",
    );
    let pair = format!("      cert_file: {cert}\n      key_file: {key}\n");
    refused(
        &ingress(&format!("{pair}      client_auth: require")),
        "f:6: auth.ingress.tls_config.client_auth",
        "needs client_ca_file",
    );
    refused(
        &ingress(&format!("{pair}      cipher_suites: [TLS_NONE]")),
        "f:6: auth.ingress.tls_config.cipher_suites",
        "TLS_NONE",
    );
    refused(
        &ingress(&format!("{pair}      more_certificates: ['{cert}:/none']")),
        "f:6: auth.ingress.tls_config.more_certificates",
        "/none can't be read",
    );
    refused(
        &ingress("      client_auth: require"),
        "f:4: auth.ingress.tls_config.client_auth",
        "has no effect without auth.ingress.tls_config.cert_file",
    );
    refused(
        &ingress(&format!("      client_ca_file: {ca}")),
        "f:4: auth.ingress.tls_config.client_ca_file",
        "has no effect without auth.ingress.tls_config.cert_file",
    );
    refused(
        &ingress(&format!("{pair}      min_version: SSL3")),
        "f:6: auth.ingress.tls_config.min_version",
        "SSL3",
    );
    refused(
        &ingress(&format!("{pair}      more_certificates: [x]")),
        "f:6: auth.ingress.tls_config.more_certificates",
        "CERT_FILE:KEY_FILE",
    );
    refused(
        "target: https://h/\nauth: {egress: {tls_config: {ca_bundle_file: /none}}}",
        "f:2: auth.egress.tls_config.ca_bundle_file",
        "/none can't be read",
    );
}

#[test]
fn mistakes_of_the_map_are_reported_with_its_own_lines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "- {exact: a, tenant: b}\n- {exact: a, drop: true}\n- {regex: '(', tenant: c}\n",
    )
    .unwrap();
    let name = file.path().display().to_string();
    let mistakes = given(&format!("tenant: {{map: {name}}}\ncores: x")).unwrap_err();
    let places: Vec<_> =
        ["f:2: cores: ", &format!("{name}:2: "), &format!("{name}:3: ")].map(str::to_owned).into();
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    for (mistake, place) in mistakes.iter().zip(places) {
        assert!(mistake.starts_with(&place), "{mistake}");
    }
    refused("tenant: {map: /none}", "f:1: tenant.map", "cannot be read");
    let sound = "- {exact: a, tenant: b}";
    std::fs::write(file.path(), sound).unwrap();
    let plan = plan(&format!("tenant: {{map: {name}, allow: [b, c*]}}"));
    assert_eq!(plan.tenant.resolve(Some(b"a"), None).unwrap().as_str(), "b");
    assert!(plan.tenant.resolve(Some(b"d"), None).is_err());
}

#[test]
fn authentication_needs_name_and_password() {
    refused("auth: {egress: {username: u}}", "f:1: auth.egress.username", "password is not");
    refused("auth: {egress: {password: p}}", "f:1: auth.egress.password", "username is not");
    refused("auth: {egress: {username: 'a:b', password: p}}", "f:1: auth.egress.username", "a colon");
    refused("auth: {egress: {username: \"a\\r\\n\", password: p}}", "f:1: auth.egress.username", "line ends");
    refused("auth: {egress: {username: a, password: \"p\\n\"}}", "f:1: auth.egress.password", "line ends");
    // Reported once: the other setting only appears to be missing.
    refused("auth: {egress: {username: u, password: [p]}}", "f:1: auth.egress.password", "a single value");
    let with_colon = plan("auth: {egress: {username: u, password: 'a:b'}}");
    assert_eq!(with_colon.terms.authorization.as_ref().unwrap().expose(), b"Basic dTphOmI=");
}

#[test]
fn the_default_tenant_is_valid_with_its_prefix() {
    assert_eq!(plan("tenant: {default: d, prefix: p-}").tenant.default.as_deref(), Some("d"));
    refused("tenant: {default: a b}", "f:1: tenant.default", "rules of mimir");
    refused("tenant: {default: a/b, header: THANOS-TENANT}", "f:1: tenant.default", "rules of thanos");
    plan("tenant: {default: 'a:b', header: THANOS-TENANT}");
    refused("tenant: {default: 'a:b'}", "f:1: tenant.default", "':'");
    refused("tenant: {default: ..}", "f:1: tenant.default", "reserved");
    refused("tenant: {prefix: ., default: .}", "f:1: tenant.default", "reserved");
    let long = "x".repeat(149);
    plan(&format!("tenant: {{default: {long}, prefix: p}}"));
    refused(&format!("tenant: {{default: {long}, prefix: pp}}"), "f:1: tenant.default", "151 bytes");
    // A prefix that makes every ID invalid is reported at the prefix.
    refused("tenant: {default: d, prefix: a/}", "f:1: tenant.prefix", "no tenant ID can begin with \"a/\"");
    plan("tenant: {prefix: .}");
}

#[test]
fn listeners_do_not_share_an_address() {
    refused("listen: :9090\ntarget: h:1", "f:1: listen", "0.0.0.0:9090 is taken by listen");
    refused("listen_metrics_address: 127.0.0.1:8081", "f:1: listen_metrics_address", "taken by listen");
    refused("listen_pprof: 0.0.0.0:8081", "f:1: listen_pprof", "127.0.0.1:8081 is taken by listen");
    refused("listen_pprof: 127.0.0.1:9090", "f:1: listen_pprof", "taken by listen_metrics_address");
    plan("listen: 127.0.0.1:0\nlisten_metrics_address: 127.0.0.1:0\nlisten_pprof: 127.0.0.1:0");
    plan("listen: 127.0.0.2:9090\nlisten_metrics_address: 127.0.0.1:9090");
}

#[test]
fn a_target_that_is_ourselves_is_refused() {
    refused("target: http://127.0.0.1:8081/push", "f:1: target", "loop forever");
    refused("target: localhost:8081", "f:1: target", "loop forever");
    refused("listen: 0.0.0.0:7\ntarget: http://127.0.0.9:7/", "f:2: target", "loop forever");
    refused("listen: 127.0.0.1:9090\nlisten_metrics_address: :1", "f:1: listen", "loop forever");
    refused(
        "tracing: {otlp: {endpoint: 'localhost:8081'}}",
        "f:1: tracing.otlp.endpoint",
        "our own listen address",
    );
    plan("listen: 127.0.0.2:7\ntarget: http://127.0.0.1:7/");
    plan("target: http://127.0.0.1:8082/push");
}

#[test]
fn invalid_sizes_and_counts_are_refused() {
    refused("limits: {inflated_bytes_max: 4Mi}", "f:1: limits.inflated_bytes_max", "must not be less than");
    refused("limits: {body_bytes_max: 65Mi}", "f:1: limits.body_bytes_max", "must not be less than");
    refused("limits: {in_flight_bytes_max: 72Mi}", "f:1: limits.in_flight_bytes_max", "at least 75513856");
    plan("limits: {in_flight_bytes_max: 73Mi}");
    refused(
        "limits: {inflated_bytes_max: 505Mi}",
        "f:1: limits.inflated_bytes_max",
        "in_flight_bytes_max must",
    );
    refused(
        "limits: {inflated_bytes_max: 4Gi, in_flight_bytes_max: 5Gi}",
        "f:1: limits.inflated_bytes_max",
        "32 bits",
    );
    plan("limits: {inflated_bytes_max: 4294967295, in_flight_bytes_max: 5Gi}");
    refused("limits: {head_bytes_max: 1023}", "f:1: limits.head_bytes_max", "at least 1024");
    refused("merge: {fragments_max: 1001}", "f:1: merge.fragments_max", "more than the 1000");
    refused("cores: 1025", "f:1: cores", "more than the 1024");
    refused("merge: {ha_cluster_label: ''}", "f:1: merge.ha_cluster_label", "set both or none");
    refused("merge: {ha_replica_label: ''}", "f:1: merge.ha_replica_label", "set both or none");
    let none = plan("merge: {ha_cluster_label: '', ha_replica_label: ''}");
    assert_eq!(none.merge.ha_labels, None);
}

#[test]
fn an_unreadable_value_is_reported_once_and_hides_no_other_mistake() {
    refused(
        "limits: {in_flight_bytes_max: x, inflated_bytes_max: 600Mi}",
        "f:1: limits.in_flight_bytes_max",
        "number of bytes",
    );
    refused("listen: [1]\nlisten_metrics_address: 127.0.0.1:8081", "f:1: listen", "a single value");
    refused("tenant: {header: [x]}", "f:1: tenant.header", "a single value");
}

#[test]
fn probably_unintended_settings_get_a_notice() {
    assert!(plan("metadata: true").notices[0].contains("without tenant.default"));
    assert_eq!(plan("metadata: true\ntenant: {default: d}").notices, [""; 0]);
    assert!(plan("tenant: {accept_all: true}").notices[0].contains("get 204 even for"));
    assert!(plan("remote_write_v2: refuse").notices[0].contains("does not fall back"));
    assert_eq!(plan("remote_write_v2: downgrade").notices, [""; 0]);
}

#[test]
fn headers_that_cannot_be_passed_on_are_refused() {
    refused("upstream: {pass_headers: [X-A, Host]}", "f:1: upstream.pass_headers", "choose another");
    refused(
        "tenant: {header: X-T}\nupstream: {pass_headers: [x-t]}",
        "f:2: upstream.pass_headers",
        "names a tenant",
    );
}
