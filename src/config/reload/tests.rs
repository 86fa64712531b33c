use super::*;
use crate::model::MetadataRule;

fn plan(text: &str) -> Plan {
    crate::config::parse("f", text, []).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

fn reload(before: &str, after: &str) -> Adopted {
    adopt(&plan(before), plan(after)).unwrap_or_else(|mistakes| panic!("{after}\n{mistakes}"))
}

#[test]
fn unchanged_settings_are_not_reported_and_keep_their_terms() {
    let text = "auth: {egress: {username: u, password: p}}\ntenant: {prefix: a-}";
    let running = plan(text);
    let adopted = adopt(&running, plan(text)).unwrap();
    assert_eq!((&adopted.changed[..], &adopted.until_restart[..]), (&[][..], &[][..]));
    assert!(Arc::ptr_eq(&adopted.plan.terms, &running.terms));
    assert!(!adopted.moves_tenants);
    assert_eq!(adopted.plan.effective(), running.effective());
}

#[test]
fn reloadable_settings_change_at_once() {
    let adopted = reload(
        "",
        "timeout: 3s\nretry_after_max: 5s\nmetadata: route\ntenant: {prefix: a-, header: X-Tenant}\n\
         merge: {linger: 5ms}\n\
         log_level: info\nupstream: {pass_headers: [X-A]}\nremote_write_v2_require_written: true\n\
         limits: {body_bytes_max: 1Mi}\ntarget: 127.0.0.1:9090/else",
    );
    let plan = &adopted.plan;
    assert_eq!((plan.timeout.as_secs(), plan.merge.linger.as_millis()), (3, 5));
    assert_eq!(plan.retry_after_max.as_secs(), 5);
    assert_eq!((plan.metadata, &*plan.tenant.prefix), (MetadataRule::Route, "a-"));
    assert_eq!((plan.terms.tenant_header.inbound(), plan.limits.body_bytes_max), ("X-Tenant", 1 << 20));
    let mut changed = adopted.changed;
    changed.sort_unstable();
    assert_eq!(
        changed,
        [
            "limits.body_bytes_max",
            "log_level",
            "merge.linger",
            "metadata",
            "remote_write_v2_require_written",
            "retry_after_max",
            "target",
            "tenant.header",
            "tenant.prefix",
            "timeout",
            "upstream.pass_headers",
        ]
    );
    assert_eq!(adopted.until_restart, [""; 0]);
    assert!(adopted.moves_tenants);
}

#[test]
fn settings_that_need_a_restart_keep_their_values_and_are_named() {
    let adopted = reload(
        "listen: :1",
        "listen: :2\nlisten_metrics_address: :3\nlisten_pprof: :4\nmetrics_include_tenant: true\n\
         enable_ipv6: true\nmax_conns_per_host: 7\nconcurrency: 8\ncores: 3\ndriver: epoll\nlog_format: json\n\
         resolve_interval: 1s\nlimits: {in_flight_bytes_max: 1Gi, connections_max: 5, tenants_max: 6}\n\
         target: other:1/x\ntarget_loki: other:2",
    );
    let mut kept = adopted.until_restart;
    kept.sort_unstable();
    assert_eq!(
        kept,
        [
            "concurrency",
            "cores",
            "driver",
            "enable_ipv6",
            "limits.connections_max",
            "limits.in_flight_bytes_max",
            "limits.tenants_max",
            "listen",
            "listen_metrics_address",
            "listen_pprof",
            "log_format",
            "max_conns_per_host",
            "metrics_include_tenant",
            "resolve_interval",
            "target",
            "target_loki",
        ]
    );
    assert_eq!(adopted.changed, [""; 0]);
    assert_eq!(adopted.plan.effective(), plan("listen: :1").effective());
    assert_eq!(adopted.plan.listen.port(), 1);
    assert_eq!(&*adopted.plan.terms.targets.of(Destination::Metrics).host, "127.0.0.1");
}

#[test]
fn the_tls_of_a_target_that_waits_stays_that_of_the_old_one() {
    let with =
        |target: &str, tls: &str| format!("target: {target}\nauth: {{egress: {{tls_config: {{{tls}}}}}}}");
    let before = with("https://127.0.0.1:81", "server_name: old");
    let adopted = reload(&before, &with("https://127.0.0.1:82", "insecure_skip_verify: true"));
    assert_eq!(adopted.until_restart.first(), Some(&"target"));
    assert!(!adopted.plan.tls.is_insecure());
    let again = adopted.plan.read_files_again();
    assert!(again.plan.is_none(), "{again:?}");
}

#[test]
fn the_coding_of_a_target_waits_with_it() {
    let with = |key: &str, target: &str| format!("{key}: {target}\n{key}_coding: zstd");
    for (key, destination) in [
        ("target_otlp_metrics", Destination::OtlpMetrics),
        ("target_otlp_logs", Destination::OtlpLogs),
        ("target_otlp_traces", Destination::OtlpTraces),
    ] {
        let before = format!("{key}: 127.0.0.1:81\n{key}_coding: gzip");
        let coding_key = format!("{key}_coding");
        let waits = reload(&before, &with(key, "127.0.0.1:82"));
        assert_eq!(waits.plan.terms.codings.of(destination), plan(&before).terms.codings.of(destination));
        let mut until_restart = waits.until_restart;
        until_restart.sort_unstable();
        assert_eq!(until_restart, [key, &coding_key]);
        assert_eq!(waits.changed, [""; 0]);
        assert_eq!(waits.plan.effective(), plan(&before).effective());
        let stays = with(key, "127.0.0.1:81/new");
        let adopted = reload(&before, &stays);
        assert_eq!(adopted.plan.terms.codings.of(destination), plan(&stays).terms.codings.of(destination));
        assert_eq!(adopted.until_restart, [""; 0]);
    }
}

/// The mistakes of a reload from `before` to `after`.
fn refused(before: &str, after: &str) -> Vec<String> {
    let told = adopt(&plan(before), plan(after)).unwrap_err().to_string();
    told.lines().map(str::to_owned).collect()
}

#[test]
fn settings_valid_only_after_a_restart_are_refused_with_their_lines() {
    let told = refused(
        "limits: {in_flight_bytes_max: 73Mi}",
        "timeout: 3s\nlimits:\n  in_flight_bytes_max: 1Gi\n  inflated_bytes_max: 128Mi\n",
    );
    let expected = "f:4: limits.inflated_bytes_max: limits.in_flight_bytes_max must be at least 142622720, so \
                    that one request of the largest size fits: limits.head_bytes_max, limits.body_bytes_max and \
                    limits.inflated_bytes_max together; until the next start limits.in_flight_bytes_max stays 73Mi";
    assert_eq!(told, [expected]);
    for key in ["body_bytes_max", "head_bytes_max"] {
        let told = refused(
            "limits: {in_flight_bytes_max: 73Mi}",
            &format!("limits:\n  in_flight_bytes_max: 1Gi\n  {key}: 20Mi\n"),
        );
        assert!(told.len() == 1 && told[0].starts_with(&format!("f:3: limits.{key}: ")), "{told:#?}");
    }
    // A setting removed from the file is back at its default. The only line to report is that of the setting that
    // waits.
    let told = refused(
        "limits: {in_flight_bytes_max: 20Mi, inflated_bytes_max: 10Mi}",
        "limits: {in_flight_bytes_max: 1Gi}",
    );
    assert!(told.len() == 1 && told[0].starts_with("f:1: limits.in_flight_bytes_max: "), "{told:#?}");
}

#[test]
fn the_spool_waits_for_a_restart() {
    let adopted = reload("spool: {dir: a}", "spool: {dir: b, when: always}");
    assert_eq!(adopted.until_restart, ["spool.dir", "spool.when"]);
    assert_eq!(adopted.plan.spool.unwrap().dir, std::path::Path::new("a"));
    assert!(reload("", "spool: {dir: b}").plan.spool.is_none(), "none is opened");
    assert_eq!(reload("spool: {dir: a}", "spool: {dir: a}").until_restart, [""; 0]);
}

#[test]
fn settings_that_fit_the_kept_ones_are_adopted() {
    let adopted = reload("limits: {in_flight_bytes_max: 1Gi}", "limits: {in_flight_bytes_max: 73Mi}");
    assert_eq!(adopted.until_restart, ["limits.in_flight_bytes_max"]);
    assert_eq!(adopted.plan.limits.in_flight_bytes_max, 1 << 30);
}

#[test]
fn new_credentials_are_new_terms_at_the_same_place() {
    let with = |password| format!("auth: {{egress: {{username: u, password: {password}}}}}");
    let adopted = reload(&with("one"), &with("two"));
    assert_eq!(adopted.changed, ["auth.egress.password"]);
    assert_eq!(adopted.plan.terms.place, 0);
    assert_ne!(adopted.plan.terms.authorization, plan(&with("one")).terms.authorization);
}

#[test]
fn another_query_is_reported_without_its_value() {
    let with = |key: &str, token: &str| format!("{key}: http://127.0.0.1:81/?token={token}");
    for key in ["target", "target_loki"] {
        let adopted = reload(&with(key, "one"), &with(key, "two"));
        assert_eq!(adopted.changed, [key]);
        assert!(!adopted.plan.effective().contains("two"));
    }
}

#[test]
fn another_path_or_header_is_another_place() {
    for after in ["target: 127.0.0.1:9090/b", "tenant: {header: X-B}"] {
        let first = reload("target: 127.0.0.1:9090", after).plan;
        assert_eq!(first.terms.place, 1, "{after}");
        assert_eq!(adopt(&first, plan(after)).unwrap().plan.terms.place, 1, "{after}");
    }
}

#[test]
fn a_map_with_other_content_is_a_change() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("tenant: {{map: {}}}", file.path().display());
    std::fs::write(file.path(), "- {exact: a, tenant: b}\n").unwrap();
    let running = plan(&text);
    assert_eq!(adopt(&running, plan(&text)).unwrap().changed, [""; 0]);
    std::fs::write(file.path(), "- {exact: a, tenant: c}\n").unwrap();
    let adopted = adopt(&running, plan(&text)).unwrap();
    assert_eq!((adopted.changed, adopted.moves_tenants), (vec!["tenant.map"], true));
}
