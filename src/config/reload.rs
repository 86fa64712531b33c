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
/// port therefore waits for a restart, and the whole target with it. A new path does not. The coding of a target that
/// waits waits with it: the old one may not take the new coding. Also returns whether a target waits.
fn merge_terms(
    running: &Plan,
    read: &Terms,
    credentials: Credentials,
    effective: &Effective,
    kept: &mut Kept,
) -> (Arc<Terms>, Credentials, bool) {
    let at = |target: &Target| (target.host.clone(), target.port);
    let mut waits = false;
    let Terms { targets: _, mut codings, tenant_header, authorization, headers, place } = read.clone();
    let targets = PerDestination::new(|destination| {
        let key = destination.key();
        let (old, new) = (running.terms.targets.of(destination), read.targets.of(destination));
        if at(old) == at(new) {
            return new.clone();
        }
        waits = true;
        if let Some(key) = coding_key(destination) {
            let coding = codings.of_mut(destination);
            *coding = kept.keep(key, running.terms.codings.of(destination), coding);
        }
        kept.keep(key, old, new)
    });
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

/// The setting of how what goes to a target is coded, if it has one.
fn coding_key(destination: Destination) -> Option<&'static str> {
    match destination {
        Destination::Metrics | Destination::Logs => None,
        Destination::OtlpMetrics => Some("target_otlp_metrics_coding"),
        Destination::OtlpLogs => Some("target_otlp_logs_coding"),
        Destination::OtlpTraces => Some("target_otlp_traces_coding"),
    }
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
mod tests;
