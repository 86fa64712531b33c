//! Computes the plan after a reload from the running plan and the one just read. Pure.
//!
//! Design constraints:
//!
//! * Settings that can change at run time change at once, all together. The others (ports, threads, and everything
//!   sized at startup) keep their values, and are reported by name.
//! * A setting that is added must be handled here: plans are destructured field by field, without `..`.
//! * A sender's retry may arrive after a reload. Receipts recognize what was already delivered, so they outlive the
//!   reload, unless it sends data to another place: data delivered to the old place is not in the new one.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::auth::AuthFile;
use super::bounds::{Bounds, Fault};
use super::credentials::{CredentialKey, Credentials};
use super::mistake::Mistake;
use super::plan::{Limits, Plan, Spool, Terms, Tracing};
use super::setting::Effective;
use super::spool;
use super::tls::Tls;
use super::upstreams::{self, Upstreams};
use super::{ConfigMistakes, Target};
use crate::model::{Destination, PerDestination};

/// The outcome of a reload.
#[derive(Debug)]
pub struct Adopted {
    /// The plan in effect from now on.
    pub plan: Plan,
    /// The settings that changed. The content of a file that a setting refers to counts as the setting's value.
    pub changed: Vec<&'static str>,
    /// The settings whose new values wait for the next start.
    pub until_restart: Vec<&'static str>,
    /// Whether series may now belong to other tenants.
    pub moves_tenants: bool,
}

/// Combines the `running` plan with the one just `read`.
///
/// # Errors
/// The result is checked like a fresh plan. Settings that are valid in the file may be invalid in combination with
/// those that wait for a restart. Then nothing changes.
pub fn adopt(running: &Plan, read: Plan) -> Result<Adopted, ConfigMistakes> {
    let mut kept = Kept::default();
    let upstreams = adopt_upstreams(running, &read)?;
    if upstreams.waits {
        kept.0.push("upstreams");
    }
    let read = Plan { upstreams: Arc::new(upstreams.upstreams), ..read };
    let plan = merge(running, read, &mut kept);
    check(&plan, &kept)?;
    let mut changed: Vec<_> = plan
        .effective
        .0
        .iter()
        .filter(|shown| !running.effective.0.contains(shown))
        .map(|(key, _)| *key)
        .collect();
    let differs = |to| plan.terms.targets.of(to) != running.terms.targets.of(to);
    let auth_changes = plan.auth.changed(&running.auth);
    let auth_differs = |file| auth_changes.contains(&file);
    // Changes of masked values and of other files do not show in the effective settings.
    let hidden = [
        (
            secret_key(&plan.credentials, &running.credentials),
            plan.terms.authorization != running.terms.authorization,
        ),
        ("upstream.headers", plan.terms.headers != running.terms.headers),
        ("auth.egress.tls_config", plan.tls.differs_out(&running.tls)),
        ("auth.ingress.tls_config", plan.tls.differs_in(&running.tls)),
        ("auth.ingress.web_config_file", auth_differs(AuthFile::Web)),
        ("auth.ingress.tokens_file", auth_differs(AuthFile::Tokens)),
        ("auth.ingress.jwt", auth_differs(AuthFile::Jwks)),
        ("access", auth_differs(AuthFile::Access)),
        ("auth.admin", !plan.admin_auth.changed(&running.admin_auth).is_empty()),
        ("tenant.map", plan.tenant.map != running.tenant.map),
        ("upstreams", upstreams.changed),
    ];
    let targets = Destination::ALL.map(|to| (to.key(), differs(to)));
    for (key, differs) in hidden.into_iter().chain(targets) {
        let is_within =
            |shown: &&str| shown.strip_prefix(key).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        if differs && !changed.iter().any(is_within) {
            changed.push(key);
        }
    }
    let moves_tenants = plan.tenant != running.tenant || plan.tenant_otlp != running.tenant_otlp;
    Ok(Adopted { plan, changed, until_restart: kept.0, moves_tenants })
}

fn adopt_upstreams(running: &Plan, read: &Plan) -> Result<upstreams::adopt::Adopted, ConfigMistakes> {
    let adopted = upstreams::adopt::adopt(&running.upstreams, Upstreams::clone(&read.upstreams));
    adopted.map_err(|text| {
        let mistake = match read.origins.find("upstreams") {
            Some((key, origin)) => Mistake::of(key, origin, text),
            None => Mistake::in_file(text),
        };
        ConfigMistakes::new(&read.origins.file, vec![mistake])
    })
}

/// The setting that the secret for the target is in.
fn secret_key(new: &Credentials, old: &Credentials) -> &'static str {
    match new.key().or(old.key()) {
        Some(CredentialKey::PasswordFile) => "auth.egress.password_file",
        Some(CredentialKey::BearerToken) => "auth.egress.bearer_token",
        Some(CredentialKey::BearerTokenFile) => "auth.egress.bearer_token_file",
        Some(CredentialKey::Username | CredentialKey::Password) | None => "auth.egress.password",
    }
}

/// Checks the resulting plan. Its origins are those of the plan just read.
fn check(plan: &Plan, kept: &Kept) -> Result<(), ConfigMistakes> {
    let holds = |key: &str| !kept.0.contains(&key);
    let told = |fault: Fault| {
        let stay = |key: &&&str| !holds(key);
        let waits: Vec<_> = fault.keys().iter().filter(stay).map(|key| plan.effective.stays(key)).collect();
        let more = match waits.is_empty() {
            true => String::new(),
            false => format!("; until the next start {}", waits.join(", ")),
        };
        fault.and(&more).mistake(&plan.origins, holds)
    };
    let mistakes: Vec<_> = Bounds::planned(plan).faults().into_iter().filter_map(told).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(ConfigMistakes::new(&plan.origins.file, mistakes)) }
}

/// The settings that keep their values although other values were read.
#[derive(Default)]
struct Kept(Vec<&'static str>);

impl Kept {
    fn keep<T: PartialEq + Clone>(&mut self, key: &'static str, running: &T, read: &T) -> T {
        if running != read {
            self.0.push(key);
        }
        running.clone()
    }

    /// Names the settings of credentials and headers that differ from those read.
    fn keep_secrets(&mut self, running: &Plan, read: &Terms, credentials: &Credentials, shown: &Effective) {
        let differs = |key: &&str| running.effective.get(key) != shown.get(key);
        self.0.extend(SECRETS.into_iter().filter(differs));
        let hidden = [
            (
                secret_key(credentials, &running.credentials),
                read.authorization != running.terms.authorization,
            ),
            ("upstream.headers", read.headers != running.terms.headers),
        ];
        for (key, differs) in hidden {
            if differs && !self.0.contains(&key) {
                self.0.push(key);
            }
        }
    }
}

/// The settings of credentials and headers for the target.
const SECRETS: [&str; 6] = [
    "auth.egress.username",
    "auth.egress.password",
    "auth.egress.password_file",
    "auth.egress.bearer_token",
    "auth.egress.bearer_token_file",
    "upstream.headers",
];

fn merge(running: &Plan, read: Plan, kept: &mut Kept) -> Plan {
    let Plan {
        listen,
        listen_metrics,
        listen_pprof,
        metrics_include_tenant,
        metrics_tenant_idle,
        metrics_tenant_histograms_max,
        log_level,
        log_format,
        log_response_errors,
        access_log,
        tracing,
        terms,
        credentials,
        upstreams,
        tls,
        auth,
        admin_auth,
        security,
        security_files,
        enable_ipv6,
        timeout,
        idle_timeout,
        retry_after_max,
        timeout_shutdown,
        max_connection_duration,
        max_conns_per_host,
        concurrency,
        metadata,
        remote_write_v2,
        remote_write_v2_require_written,
        pass_headers,
        loki_label_remove,
        accept_all,
        tenant,
        tenant_otlp,
        cores,
        driver,
        merge,
        receipts,
        spool,
        limits,
        resolve_interval,
        notices,
        effective,
        origins,
    } = read;
    let mut security = security;
    let mut security_files = security_files;
    let (terms, credentials, waits) = merge_terms(running, &terms, credentials, &effective, kept);
    if waits {
        // The files of TLS are read again while the target waits. They must be those of the old one.
        security.tls.egress = running.security.tls.egress.clone();
        security_files.extend(running.security_files.iter().cloned());
    }
    let tls = merge_tls(running, tls, waits);
    Plan {
        listen: kept.keep("listen", &running.listen, &listen),
        listen_metrics: kept.keep("listen_metrics_address", &running.listen_metrics, &listen_metrics),
        listen_pprof: kept.keep("listen_pprof", &running.listen_pprof, &listen_pprof),
        metrics_include_tenant: kept.keep(
            "metrics_include_tenant",
            &running.metrics_include_tenant,
            &metrics_include_tenant,
        ),
        metrics_tenant_idle,
        metrics_tenant_histograms_max,
        log_level,
        log_format: kept.keep("log_format", &running.log_format, &log_format),
        log_response_errors,
        access_log,
        tracing: Tracing {
            endpoint: kept.keep("tracing.otlp.endpoint", &running.tracing.endpoint, &tracing.endpoint),
            one_in: tracing.one_in,
        },
        tls,
        auth,
        admin_auth,
        security,
        security_files,
        terms,
        credentials,
        upstreams,
        enable_ipv6: kept.keep("enable_ipv6", &running.enable_ipv6, &enable_ipv6),
        timeout,
        idle_timeout,
        retry_after_max,
        timeout_shutdown,
        max_connection_duration,
        max_conns_per_host: kept.keep("max_conns_per_host", &running.max_conns_per_host, &max_conns_per_host),
        concurrency: kept.keep("concurrency", &running.concurrency, &concurrency),
        metadata,
        remote_write_v2,
        remote_write_v2_require_written,
        pass_headers,
        loki_label_remove,
        accept_all,
        tenant,
        tenant_otlp,
        cores: kept.keep("cores", &running.cores, &cores),
        driver: kept.keep("driver", &running.driver, &driver),
        merge,
        receipts,
        spool: keep_spool(running, spool, &effective, kept),
        limits: merge_limits(&running.limits, limits, kept),
        resolve_interval: kept.keep("resolve_interval", &running.resolve_interval, &resolve_interval),
        notices,
        effective: merge_effective(&running.effective, effective, kept),
        origins,
    }
}

/// Merges the terms. Name lookups and connections are bound to a target's host and port from startup on. A new host or
/// port therefore waits for a restart, and the whole target with it. A new path does not. Also returns whether a target
/// waits.
fn merge_terms(
    running: &Plan,
    read: &Terms,
    credentials: Credentials,
    effective: &Effective,
    kept: &mut Kept,
) -> (Arc<Terms>, Credentials, bool) {
    let at = |target: &Target| (target.host.clone(), target.port);
    let mut waits = false;
    let targets = PerDestination::new(|destination| {
        let key = destination.key();
        let (old, new) = (running.terms.targets.of(destination), read.targets.of(destination));
        if at(old) == at(new) {
            return new.clone();
        }
        waits = true;
        kept.keep(key, old, new)
    });
    let Terms { targets: _, codings, tenant_header, authorization, headers, place } = read.clone();
    let mut terms = Terms { targets, codings, tenant_header, authorization, headers, place };
    let mut credentials = credentials;
    // The secrets of the new target must not reach the old one.
    if waits {
        kept.keep_secrets(running, &terms, &credentials, effective);
        terms.authorization.clone_from(&running.terms.authorization);
        terms.headers.clone_from(&running.terms.headers);
        credentials.clone_from(&running.credentials);
    }
    let terms = terms.after(&running.terms);
    let terms = if terms == *running.terms { Arc::clone(&running.terms) } else { Arc::new(terms) };
    (terms, credentials, waits)
}

/// Merges the TLS. If a target waits for a restart, the TLS of all targets waits with it: one section has it for all.
fn merge_tls(running: &Plan, read: Tls, waits: bool) -> Tls {
    let upstream = if waits { running.tls.upstream.clone() } else { read.upstream };
    Tls { upstream, ..read }.after(&running.tls)
}

/// The spool's files are opened when the server starts, and its limits with them.
fn keep_spool(running: &Plan, read: Option<Spool>, shown: &Effective, kept: &mut Kept) -> Option<Spool> {
    if running.spool != read {
        let differs = |key: &&str| running.effective.get(key) != shown.get(key);
        kept.0.extend(spool::PATHS.into_iter().filter(differs));
    }
    running.spool.clone()
}

fn merge_limits(running: &Limits, read: Limits, kept: &mut Kept) -> Limits {
    let Limits {
        head_bytes_max,
        body_bytes_max,
        inflated_bytes_max,
        in_flight_bytes_max,
        tenant_share_percent,
        slow_share_percent,
        connections_max,
        tenants_max,
        tenants_per_request_max,
    } = read;
    Limits {
        head_bytes_max,
        body_bytes_max,
        inflated_bytes_max,
        in_flight_bytes_max: kept.keep(
            "limits.in_flight_bytes_max",
            &running.in_flight_bytes_max,
            &in_flight_bytes_max,
        ),
        tenant_share_percent,
        slow_share_percent,
        connections_max: kept.keep("limits.connections_max", &running.connections_max, &connections_max),
        tenants_max: kept.keep("limits.tenants_max", &running.tenants_max, &tenants_max),
        tenants_per_request_max,
    }
}

/// Settings that keep their values are shown with these values, not with those read.
fn merge_effective(running: &Effective, read: Effective, kept: &Kept) -> Effective {
    let shown = |(key, value): (&'static str, String)| {
        let stays =
            kept.0.contains(&key).then(|| running.0.iter().find(|(known, _)| *known == key)).flatten();
        (key, stays.map_or(value, |(_, stays)| stays.clone()))
    };
    Effective(read.0.into_iter().map(shown).collect())
}

#[cfg(test)]
mod tests {
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
        let with = |target: &str, tls: &str| {
            format!("target: {target}\nauth: {{egress: {{tls_config: {{{tls}}}}}}}")
        };
        let before = with("https://127.0.0.1:81", "server_name: old");
        let adopted = reload(&before, &with("https://127.0.0.1:82", "insecure_skip_verify: true"));
        assert_eq!(adopted.until_restart.first(), Some(&"target"));
        assert!(!adopted.plan.tls.is_insecure());
        let again = adopted.plan.read_files_again();
        assert!(again.plan.is_none(), "{again:?}");
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
}
