//! Builds the plan: checks each setting, and combinations of settings.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use super::{Limits, Merge, Plan, Receipts};
use crate::config::address::{clash, listen_address};
use crate::config::bounds::Bounds;
use crate::config::excerpt::found;
use crate::config::file::read_file;
use crate::config::header::{TenantHeader, check_passed};
use crate::config::keys::Config;
use crate::config::mistake::{Mistake, Origin};
use crate::config::observe;
use crate::config::security::Security;
use crate::config::setting::{Origins, Setting};
use crate::config::spool::{self, Spool};
use crate::config::target::Target;
use crate::config::tenant_map::read_tenant_map;
use crate::config::value::IdRulesChoice;
use crate::limits::{CORES_MAX, MERGE_FRAGMENTS_MAX};
use crate::model::{HaLabels, MetadataRule, PerDestination};
use crate::tenant::map::{TenantAllow, TenantMap};
use crate::tenant::{IdRules, NamedBy, TenantRules, check_id};

/// Builds a plan from `config`. Mistakes are added to `mistakes`; the plan is valid only if none was added.
pub(in crate::config) fn build(config: &Config, mistakes: &mut Vec<Mistake>) -> Option<Plan> {
    let mut check = Check { config, mistakes };
    check.ceilings();
    check.bounds();
    let listen = check.address(&config.listen);
    let listen_metrics = check.address(&config.listen_metrics_address);
    let listen_pprof = check.pprof();
    let targets = check.targets(listen);
    let pass_headers = check.pass_headers();
    let tenant = check.tenant();
    let attributes = check.attributes();
    let tenant_otlp = tenant.as_ref().zip(attributes).map(|(rules, attributes)| TenantRules {
        named_by: NamedBy::Attribute,
        labels: attributes.unwrap_or_else(|| rules.labels.clone()),
        label_remove: config.tenant_attribute_remove.value,
        ..rules.clone()
    });
    // Mistakes in other settings hide none in the files.
    let known = targets.clone().unwrap_or_else(|| PerDestination::new(|_| Target::unknown()));
    let (security_settings, security) = check.security(&known, tenant.as_ref());
    let terms = check.terms(targets);
    let upstreams = check.upstreams(terms.as_ref(), &security_settings.tls, listen);
    let access_log = check.observed(&config.access_log_status_min, observe::access_log(config));
    let tracing = check.observed(&config.tracing_otlp_endpoint, observe::tracing(config, listen));
    let ha_labels = check.ha_labels();
    let spool = check.spool();
    if let (Some(listen), Some(metrics)) = (listen, listen_metrics) {
        check.addresses_differ(listen, metrics, listen_pprof.flatten());
    }
    let ((terms, credentials), upstreams, security) = (terms?, upstreams?, security?);
    let (tenant, tenant_otlp) = (tenant?, tenant_otlp?);
    let Security { tls, auth, admin_auth, files, notices: security_notices, .. } = security;
    let notices = notices(config).into_iter().chain(security_notices).chain(upstreams.notices()).collect();
    Some(Plan {
        listen: listen?,
        listen_metrics: listen_metrics?,
        listen_pprof: listen_pprof?,
        metrics_include_tenant: config.metrics_include_tenant.value,
        metrics_tenant_idle: config.metrics_tenant_idle.value,
        metrics_tenant_histograms_max: config.metrics_tenant_histograms_max.value,
        log_level: config.log_level.value,
        log_format: config.log_format.value,
        log_response_errors: config.log_response_errors.value,
        access_log: access_log?,
        tracing: tracing?,
        terms: Arc::new(terms),
        upstreams: Arc::new(upstreams),
        credentials,
        tls,
        auth,
        admin_auth,
        security: security_settings,
        security_files: files,
        enable_ipv6: config.enable_ipv6.value,
        timeout: config.timeout.value,
        idle_timeout: config.idle_timeout.value,
        retry_after_max: config.retry_after_max.value,
        timeout_shutdown: config.timeout_shutdown.value,
        max_connection_duration: Some(config.max_connection_duration.value).filter(|age| !age.is_zero()),
        max_conns_per_host: config.max_conns_per_host.value,
        concurrency: config.concurrency.value,
        metadata: config.metadata.value,
        remote_write_v2: config.remote_write_v2.value,
        remote_write_v2_require_written: config.remote_write_v2_require_written.value,
        pass_headers: pass_headers?,
        loki_label_remove: config.tenant_loki_label_remove.value,
        accept_all: config.tenant_accept_all.value,
        tenant,
        tenant_otlp,
        cores: NonZeroUsize::new(config.cores.value),
        driver: config.driver.value,
        merge: merge(config, ha_labels?),
        receipts: Receipts { keep: config.receipts_keep.value, bytes_max: config.receipts_bytes_max.value.0 },
        spool: spool?,
        limits: limits(config),
        resolve_interval: config.resolve_interval.value,
        notices,
        effective: config.effective(),
        origins: Origins { file: String::new(), of: config.origins() },
    })
}

fn merge(config: &Config, ha_labels: Option<HaLabels>) -> Merge {
    Merge {
        inflight_max: config.merge_inflight_max.value.0,
        linger: config.merge_linger.value,
        fragments_max: config.merge_fragments_max.value,
        inflated_bytes_max: config.merge_inflated_bytes_max.value.0,
        ha_labels,
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        head_bytes_max: config.limits_head_bytes_max.value.0,
        body_bytes_max: config.limits_body_bytes_max.value.0,
        inflated_bytes_max: config.limits_inflated_bytes_max.value.0,
        in_flight_bytes_max: config.limits_in_flight_bytes_max.value.0,
        tenant_share_percent: config.limits_tenant_share_percent.value,
        slow_share_percent: config.limits_slow_share_percent.value,
        connections_max: NonZeroUsize::new(config.limits_connections_max.value),
        tenants_max: config.limits_tenants_max.value,
        tenants_per_request_max: config.limits_tenants_per_request_max.value,
    }
}

/// Valid settings that are probably not intended.
fn notices(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    if config.metadata.value == MetadataRule::ToDefault && config.tenant_default.value.is_empty() {
        notices.push(
            "metadata is true, but without tenant.default there is no tenant to send it to: it is dropped"
                .into(),
        );
    }
    if config.remote_write_v2.value.is_none() {
        notices.push(
            "remote_write_v2 is refuse: Prometheus 3 does not fall back to 1.0 on 415, it drops what it sends as 2.0; \
             downgrade takes it"
                .into(),
        );
    }
    if config.auth_egress_insecure_skip_verify.value {
        notices.push(
            "auth.egress.tls_config.insecure_skip_verify is true: anyone on the way to the target can read and change \
             all data"
                .into(),
        );
    }
    if config.tenant_accept_all.value {
        notices.push("tenant.accept_all is true: senders get 204 even for data that was lost".into());
    }
    if !config.tenant_label_list.value.is_empty() && config.tenant_label.origin != Origin::Default {
        notices.push("tenant.label is ignored, because tenant.label_list is set".into());
    }
    notices
}

pub(super) struct Check<'a> {
    pub(super) config: &'a Config,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    /// Reports a mistake in a setting, unless one was already reported and its value is only the default in its place.
    pub(super) fn blame<T>(&mut self, setting: &Setting<T>, text: impl Into<String>) {
        if setting.origin != Origin::Mistaken {
            self.mistakes.push(setting.mistake(text));
        }
    }

    /// Reports two settings that contradict each other, at the one that was set.
    pub(super) fn blame_pair<A, B>(&mut self, first: &Setting<A>, second: &Setting<B>, text: String) {
        match (first.origin, second.origin) {
            (Origin::Mistaken, _) | (_, Origin::Mistaken) => {}
            (Origin::Default, _) => self.blame(second, text),
            _ => self.blame(first, text),
        }
    }

    fn ceilings(&mut self) {
        let config = self.config;
        for (setting, value_max) in [
            (&config.cores, CORES_MAX),
            (&config.merge_fragments_max, MERGE_FRAGMENTS_MAX),
            (&config.limits_tenant_share_percent, 100),
            (&config.limits_slow_share_percent, 100),
        ] {
            if setting.value > value_max {
                self.blame(
                    setting,
                    format!("{} is more than the {value_max} that are possible", setting.value),
                );
            }
        }
    }

    /// Checks the rules of [`bounds`](crate::config::bounds).
    fn bounds(&mut self) {
        let origins = Origins { file: String::new(), of: self.config.origins() };
        let faults = Bounds::written(self.config).faults();
        self.mistakes.extend(faults.into_iter().filter_map(|fault| fault.mistake(&origins, |_| true)));
    }

    fn address(&mut self, setting: &Setting<String>) -> Option<SocketAddr> {
        match listen_address(&setting.value) {
            Ok(address) => Some(address),
            Err(text) => {
                self.blame(setting, text);
                None
            }
        }
    }

    fn pprof(&mut self) -> Option<Option<SocketAddr>> {
        let setting = &self.config.listen_pprof;
        if setting.value.is_empty() { Some(None) } else { self.address(setting).map(Some) }
    }

    /// What was read, unless there is a mistake in `setting`.
    fn observed<T, S>(&mut self, setting: &Setting<S>, read: Result<T, String>) -> Option<T> {
        read.map_err(|text| self.blame(setting, text)).ok()
    }

    fn spool(&mut self) -> Option<Option<Spool>> {
        let config = self.config;
        match spool::spool(config) {
            Ok(spool) => return Some(spool),
            Err(spool::Wrong::Bytes(text)) => self.blame(&config.spool_bytes_max, text),
            Err(spool::Wrong::TenantBytes(text)) => self.blame(&config.spool_tenant_bytes_max, text),
            Err(spool::Wrong::Dir(text)) => self.blame(&config.spool_dir, text),
        }
        None
    }

    /// Two listeners cannot share a port of one address. Port 0 never clashes: the kernel picks a free port each time.
    fn addresses_differ(&mut self, listen: SocketAddr, metrics: SocketAddr, pprof: Option<SocketAddr>) {
        let config = self.config;
        if clash(listen, metrics) {
            let text = format!("{metrics} is taken by listen: give one of the two another port");
            self.blame_pair(&config.listen_metrics_address, &config.listen, text);
        }
        for (other, name) in [(listen, "listen"), (metrics, "listen_metrics_address")] {
            if pprof.is_some_and(|pprof| clash(pprof, other)) {
                self.blame(
                    &config.listen_pprof,
                    format!("{other} is taken by {name}: give one of the two another port"),
                );
            }
        }
    }

    fn pass_headers(&mut self) -> Option<Vec<Box<str>>> {
        let setting = &self.config.upstream_pass_headers;
        let sound = check_passed(&setting.value, &self.config.tenant_header.value);
        sound.map_err(|text| self.blame(setting, text)).ok()?;
        Some(setting.value.iter().map(|name| name.as_str().into()).collect())
    }

    /// The rules for tenant IDs. The two headers of VictoriaMetrics require IDs of two numbers.
    fn id_rules(&mut self) -> Option<IdRules> {
        let config = self.config;
        let header = TenantHeader::parse(&config.tenant_header.value);
        let numbers = header == Ok(TenantHeader::AccountAndProject);
        let rules = match config.tenant_id_rules.value {
            IdRulesChoice::Mimir => IdRules::Mimir,
            IdRulesChoice::Thanos => IdRules::Thanos,
            IdRulesChoice::VictoriaMetrics => IdRules::VictoriaMetrics,
            IdRulesChoice::Auto if numbers => IdRules::VictoriaMetrics,
            IdRulesChoice::Auto if config.tenant_header.value.eq_ignore_ascii_case("X-Scope-OrgID") => {
                IdRules::Mimir
            }
            IdRulesChoice::Auto => IdRules::Thanos,
        };
        if numbers && rules != IdRules::VictoriaMetrics {
            let text = "tenant.header AccountID+ProjectID wants tenant.id_rules victoriametrics, or auto";
            self.blame_pair(&config.tenant_id_rules, &config.tenant_header, text.into());
            return None;
        }
        if rules == IdRules::VictoriaMetrics && config.tenant_prefix_prefer_source.value {
            let text = "an ID that begins with an inbound tenant and a `-` is no number, as tenant.id_rules \
                        victoriametrics demands: switch it off";
            self.blame(&config.tenant_prefix_prefer_source, text);
            return None;
        }
        Some(rules)
    }

    fn tenant(&mut self) -> Option<TenantRules> {
        let config = self.config;
        let id_rules = self.id_rules();
        let labels = self.labels();
        let id_rules = id_rules?;
        let ids_sound = self.ids(id_rules);
        let map = self.map(id_rules);
        let allow = self.allow();
        let rules = TenantRules {
            named_by: NamedBy::Label,
            labels: labels?,
            prefix: config.tenant_prefix.value.clone(),
            prefix_prefer_source: config.tenant_prefix_prefer_source.value,
            label_remove: config.tenant_label_remove.value,
            default: Some(config.tenant_default.value.clone()).filter(|id| !id.is_empty()),
            id_rules,
            on_missing: config.tenant_on_missing.value,
            on_invalid: config.tenant_on_invalid.value,
            map: map?,
            allow: allow?,
        };
        ids_sound.then_some(rules)
    }

    /// Reads the file of `tenant.map`. Its mistakes are reported with the lines of that file.
    fn map(&mut self, id_rules: IdRules) -> Option<Option<Arc<TenantMap>>> {
        let setting = &self.config.tenant_map;
        let file = setting.value.as_str();
        if file.is_empty() {
            return Some(None);
        }
        match read_file(Path::new(file)) {
            Ok(text) => match read_tenant_map(file, &text, id_rules) {
                Ok(map) => return Some(Some(Arc::new(map))),
                Err(mistakes) => self.mistakes.extend(mistakes.elsewhere()),
            },
            Err(text) => self.blame(setting, format!("{} {text}", found(file))),
        }
        None
    }

    fn allow(&mut self) -> Option<Option<Arc<TenantAllow>>> {
        let setting = &self.config.tenant_allow;
        if setting.value.is_empty() {
            return Some(None);
        }
        match TenantAllow::new(setting.value.clone()) {
            Ok(allow) => Some(Some(Arc::new(allow))),
            Err(fault) => {
                self.blame(setting, fault.to_string());
                None
            }
        }
    }

    fn labels(&mut self) -> Option<Vec<Box<[u8]>>> {
        let list = &self.config.tenant_label_list;
        if list.value.is_empty() {
            return Some(vec![self.config.tenant_label.value.as_bytes().into()]);
        }
        self.names(list, "a label's name")
    }

    /// The attributes that name tenants in OTLP; those of labels if none are set.
    fn attributes(&mut self) -> Option<Option<Vec<Box<[u8]>>>> {
        let list = &self.config.tenant_attributes;
        if list.value.is_empty() {
            return Some(None);
        }
        self.names(list, "an attribute's name").map(Some)
    }

    fn names(&mut self, list: &Setting<Vec<String>>, what: &str) -> Option<Vec<Box<[u8]>>> {
        if list.value.iter().any(String::is_empty) {
            self.blame(list, format!("{what} is empty: remove it"));
            return None;
        }
        if let Some(twice) =
            list.value.iter().enumerate().find_map(|(at, name)| {
                list.value.iter().take(at).any(|earlier| earlier == name).then_some(name)
            })
        {
            self.blame(list, format!("{} is listed twice: remove one", found(twice)));
            return None;
        }
        Some(list.value.iter().map(|name| name.as_bytes().into()).collect())
    }

    /// Checks that IDs with the prefix can be valid, and that the default with the prefix is.
    fn ids(&mut self, rules: IdRules) -> bool {
        let (prefix, default) = (&self.config.tenant_prefix, &self.config.tenant_default);
        // Checked with a `1` appended, which all rules allow: a prefix may be `.` alone, and an ID that begins with it
        // may still be valid.
        if let Err(fault) = check_id(format!("{}1", prefix.value).as_bytes(), rules) {
            self.blame(prefix, format!("no tenant ID can begin with {}: {fault}", found(&prefix.value)));
            return false;
        }
        if default.value.is_empty() {
            return true;
        }
        let id = format!("{}{}", prefix.value, default.value);
        if let Err(fault) = check_id(id.as_bytes(), rules) {
            let name = rules.name();
            self.blame(default, format!("{} is not a tenant ID by the rules of {name}: {fault}", found(&id)));
            return false;
        }
        true
    }

    fn ha_labels(&mut self) -> Option<Option<HaLabels>> {
        let (cluster, replica) = (&self.config.merge_ha_cluster_label, &self.config.merge_ha_replica_label);
        match (cluster.value.is_empty(), replica.value.is_empty()) {
            (true, true) => Some(None),
            (false, false) => Some(Some(HaLabels {
                cluster: cluster.value.as_bytes().into(),
                replica: replica.value.as_bytes().into(),
            })),
            (cluster_empty, _) => {
                let empty = if cluster_empty { cluster } else { replica };
                self.blame(empty, "one of the two HA labels is empty: set both or none");
                None
            }
        }
    }
}
