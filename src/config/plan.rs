//! From settings as written to the one [`Plan`] that the rest of the program runs on: checked and resolved.
//! Past this point nothing is invalid, and nobody looks at a setting twice.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;

use super::address::{clash, listen_address};
use super::bounds::{Bounds, Origins};
use super::header::{TenantHeader, basic_authorization, check_passed};
use super::tenant_map::read_tenant_map;
use super::value::found;
use super::{Config, Driver, IdRulesChoice, Mistake, Origin, RemoteWriteV2, Setting, Target, read_file};
use crate::limits::{CORES_MAX, DRAIN_GRACE_SECS, MERGE_FRAGMENTS_MAX};
use crate::model::{Destination, HaLabels, MetadataRule, PerDestination, SplitLimits, V2Handling};
use crate::tenant::map::{TenantAllow, TenantMap};
use crate::tenant::{IdRules, TenantRules, check_id};

/// All that was decided before the start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where senders push to. `[::]` is meant to take IPv4 as well.
    pub listen: SocketAddr,
    /// Where /metrics and the status page are.
    pub listen_metrics: SocketAddr,
    /// Where profiles are to be had, if anywhere.
    pub listen_pprof: Option<SocketAddr>,
    /// Metrics are labelled with the tenant.
    pub metrics_include_tenant: bool,
    /// The least severe lines that are logged.
    pub log_level: LevelFilter,
    /// Refusals by the upstream are logged.
    pub log_response_errors: bool,
    /// What upstream requests say, besides their tenant.
    pub terms: Arc<Terms>,
    /// The targets' IPv6 addresses are used, too.
    pub enable_ipv6: bool,
    /// For a sender's head and body, and for the upstream's answer. Never 0.
    pub timeout: Duration,
    /// Between two requests of a sender. Never 0.
    pub idle_timeout: Duration,
    /// The longest Retry-After that a sender hears. Never 0.
    pub retry_after_max: Duration,
    /// For load balancers to look elsewhere, before the listeners close. 0 is at once.
    pub timeout_shutdown: Duration,
    /// Age at which an upstream connection is replaced.
    pub max_connection_duration: Option<Duration>,
    /// Connections to one upstream address, for the process. At least 1.
    pub max_conns_per_host: usize,
    /// Requests in work, for the process. At least 1.
    pub concurrency: usize,
    /// What becomes of metadata.
    pub metadata: MetadataRule,
    /// How Remote Write 2.0 goes on; `None` refuses it.
    pub remote_write_v2: Option<V2Handling>,
    /// An upstream that takes 2.0 without saying what it has written is taken to have failed.
    pub remote_write_v2_require_written: bool,
    /// Headers that go on as they come.
    pub pass_headers: Vec<Box<str>>,
    /// The deciding label is taken out of Loki's streams.
    pub loki_label_remove: bool,
    /// Senders always hear 204.
    pub accept_all: bool,
    /// How a series names its tenant.
    pub tenant: TenantRules,
    /// Threads; `None` is one for each CPU of the affinity mask.
    pub cores: Option<NonZeroUsize>,
    /// What drives the sockets.
    pub driver: Driver,
    /// When and how parts of a tenant become one request.
    pub merge: Merge,
    /// What is remembered of requests that failed in part.
    pub receipts: Receipts,
    /// Bounds that an operator may move.
    pub limits: Limits,
    /// Between two lookups of the target's name. Never 0.
    pub resolve_interval: Duration,
    /// What is no mistake but worth a warning in the log: one line each.
    pub notices: Vec<String>,
    pub(super) effective: Effective,
    /// Who said so, for mistakes that only show beside another plan.
    pub(super) origins: Origins,
}

impl Plan {
    /// Every setting on one line, `key=value`, for the log; secrets are masked.
    pub fn effective(&self) -> String {
        self.effective.to_string()
    }

    /// What the parts of one tenant may take of what is in flight.
    pub fn tenant_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.tenant_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.tenant_share_percent).max(1),
        }
    }

    /// What the parts of all slow tenants may take of what is in flight.
    pub fn slow_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.slow_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.slow_share_percent).max(1),
        }
    }

    /// How many of an upstream address's connections all slow tenants may hold.
    pub fn slow_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.slow_share_percent / 100).max(1)
    }

    /// How many of an upstream address's connections one tenant may hold.
    pub fn tenant_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.tenant_share_percent / 100).max(1)
    }

    /// The longest that a request in flight may take, from its first byte to the last of its answer. What a server that
    /// leaves has to wait for is this, and [`DRAIN_GRACE_SECS`] for all that is not waiting.
    ///
    /// One `timeout` each: its head; its body; a part's wait until it is on its way; its wait to go again, alone or in
    /// pieces; the connection that it may have to wait for at the very end of that; its last attempt, to the end of the
    /// upstream's reply; the answer, until its sender has read it. ARCHITECTURE.md has the same as a table ("Time").
    pub fn request_time_max(&self) -> Duration {
        const TIMEOUTS: u32 = 7;
        self.timeout.saturating_mul(TIMEOUTS)
    }

    /// The longest that a server takes to end once it was told to: what `TimeoutStopSec` or
    /// `terminationGracePeriodSeconds` has to be at the least.
    pub fn stop_time_max(&self) -> Duration {
        let finishing = self.request_time_max().saturating_add(Duration::from_secs(DRAIN_GRACE_SECS));
        self.timeout_shutdown.saturating_add(finishing)
    }

    /// Bounds of what a request holds.
    pub fn split_limits(&self) -> SplitLimits {
        SplitLimits {
            inflated_bytes_max: self.limits.inflated_bytes_max,
            tenants_max: self.limits.tenants_per_request_max,
        }
    }
}

/// The plan that holds now. A request takes it once, at its beginning, and keeps to it to its end.
pub type Live = Arc<ArcSwap<Plan>>;

/// What upstream requests say, besides their tenant. A fragment is sent under the terms under which its request was taken
/// in, whatever is reloaded meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where requests go.
    pub targets: PerDestination<Target>,
    /// What names the tenant to the upstream.
    pub tenant_header: TenantHeader,
    /// The whole value of the `Authorization` header for the upstream. A secret.
    pub authorization: Option<Secret>,
    /// Grows when a reload moves tenants' data to another place. What was delivered to the old one is not in the new.
    pub place: u32,
}

/// The settings as they are shown: keys and values, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective(pub(super) Vec<(&'static str, String)>);

impl Effective {
    /// That a setting stays what it is.
    pub(super) fn stays(&self, path: &str) -> String {
        let value = self.0.iter().find(|(key, _)| *key == path).map_or("", |(_, value)| value);
        format!("{path} stays {value}")
    }
}

impl std::fmt::Display for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// When and how the parts of a tenant become one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// A tenant's requests on their way at once. At least 1.
    pub inflight_max: usize,
    /// How long a part waits for others. 0 is not at all.
    pub linger: Duration,
    /// Parts of one request, 1 to [`MERGE_FRAGMENTS_MAX`]. 1 means that nothing merges.
    pub fragments_max: usize,
    /// Inflated size of one merged request. At least 1.
    pub inflated_bytes_max: usize,
    /// The labels of an HA pair, if there are pairs.
    pub ha_labels: Option<HaLabels>,
}

/// What is remembered of requests that failed in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// For how long. 0 is not at all.
    pub keep: Duration,
    /// Memory for it, for the process. At least 1.
    pub bytes_max: usize,
}

/// Bounds that an operator may move. None is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's line and headers.
    pub head_bytes_max: usize,
    /// A request's body as it comes in.
    pub body_bytes_max: usize,
    /// A request's body after decompression; fits in 32 bits.
    pub inflated_bytes_max: usize,
    /// All requests in work.
    pub in_flight_bytes_max: usize,
    /// Of requests and bytes in work, how many may be one tenant's, in percent.
    pub tenant_share_percent: usize,
    /// The same, and of connections, for all slow tenants together.
    pub slow_share_percent: usize,
    /// Senders' connections; `None` is what the limit of open files leaves.
    pub connections_max: Option<NonZeroUsize>,
    /// Tenants with a lane and metrics of their own.
    pub tenants_max: usize,
    /// Distinct tenants in one request.
    pub tenants_per_request_max: usize,
}

/// What the parts of one tenant, or of all slow ones together, may take of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Parts waiting or on their way. At least 1.
    pub parts_max: usize,
    /// Their bytes, as they are sent, unless it is one part alone.
    pub bytes_max: usize,
}

/// Makes a plan of `config`. What is wrong is added to `mistakes`; only when nothing was added is the plan
/// sound.
pub(super) fn build(config: &Config, mistakes: &mut Vec<Mistake>) -> Option<Plan> {
    let mut check = Check { config, mistakes };
    check.not_built_in();
    check.ceilings();
    check.bounds();
    let listen = check.address(&config.listen);
    let listen_metrics = check.address(&config.listen_metrics_address);
    let listen_pprof = check.pprof();
    let target = check.target(&config.target);
    let target_loki = check.target(&config.target_loki);
    let authorization = check.authorization();
    let tenant_header = check.header();
    let pass_headers = check.pass_headers();
    let tenant = check.tenant();
    let ha_labels = check.ha_labels();
    if let (Some(listen), Some(metrics)) = (listen, listen_metrics) {
        check.addresses_differ(listen, metrics, listen_pprof.flatten());
    }
    for (target, setting) in [(&target, &config.target), (&target_loki, &config.target_loki)] {
        if let (Some(listen), Some(target)) = (listen, target) {
            check.no_loop(listen, target, setting);
        }
    }
    let (target, target_loki) = (target?, target_loki?);
    Some(Plan {
        listen: listen?,
        listen_metrics: listen_metrics?,
        listen_pprof: listen_pprof?,
        metrics_include_tenant: config.metrics_include_tenant.value,
        log_level: config.log_level.value,
        log_response_errors: config.log_response_errors.value,
        terms: Arc::new(Terms {
            targets: PerDestination::new(|destination| match destination {
                Destination::Metrics => target.clone(),
                Destination::Logs => target_loki.clone(),
            }),
            tenant_header: tenant_header?,
            authorization: authorization?,
            place: 0,
        }),
        enable_ipv6: config.enable_ipv6.value,
        timeout: config.timeout.value,
        idle_timeout: config.idle_timeout.value,
        retry_after_max: config.retry_after_max.value,
        timeout_shutdown: config.timeout_shutdown.value,
        max_connection_duration: Some(config.max_connection_duration.value).filter(|age| !age.is_zero()),
        max_conns_per_host: config.max_conns_per_host.value,
        concurrency: config.concurrency.value,
        metadata: config.metadata.value,
        remote_write_v2: match config.remote_write_v2.value {
            RemoteWriteV2::Pass => Some(V2Handling::Pass),
            RemoteWriteV2::Downgrade => Some(V2Handling::Downgrade),
            RemoteWriteV2::Refuse => None,
        },
        remote_write_v2_require_written: config.remote_write_v2_require_written.value,
        pass_headers: pass_headers?,
        loki_label_remove: config.tenant_loki_label_remove.value,
        accept_all: config.tenant_accept_all.value,
        tenant: tenant?,
        cores: NonZeroUsize::new(config.cores.value),
        driver: config.driver.value,
        merge: merge(config, ha_labels?),
        receipts: Receipts { keep: config.receipts_keep.value, bytes_max: config.receipts_bytes_max.value.0 },
        limits: limits(config),
        resolve_interval: config.resolve_interval.value,
        notices: notices(config),
        effective: config.effective(),
        origins: Origins { file: String::new(), of: config.origins() },
    })
}

fn merge(config: &Config, ha_labels: Option<HaLabels>) -> Merge {
    Merge {
        inflight_max: config.merge_inflight_max.value,
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

/// What is no mistake, but hardly meant.
fn notices(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    if config.metadata.value == MetadataRule::ToDefault && config.tenant_default.value.is_empty() {
        notices.push(
            "metadata is true, but without tenant.default there is nobody to send it to: it is dropped"
                .into(),
        );
    }
    if config.remote_write_v2.value == RemoteWriteV2::Refuse {
        notices.push(
            "remote_write_v2 is refuse: Prometheus 3 does not fall back to 1.0 on 415, it drops what it sends as 2.0; \
             downgrade takes it"
                .into(),
        );
    }
    if config.tenant_accept_all.value {
        notices.push("tenant.accept_all is true: senders hear 204 even for what was lost".into());
    }
    if !config.tenant_label_list.value.is_empty() && config.tenant_label.origin != Origin::Default {
        notices.push("tenant.label is ignored, because tenant.label_list is set".into());
    }
    notices
}

struct Check<'a> {
    config: &'a Config,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    /// Tells of a setting, unless it has been told of already and what we see is only the default in its
    /// place.
    fn blame<T>(&mut self, setting: &Setting<T>, text: impl Into<String>) {
        if setting.origin != Origin::Mistaken {
            self.mistakes.push(setting.mistake(text));
        }
    }

    /// Tells of two settings that don't go together, at the one that somebody set.
    fn blame_pair<A, B>(&mut self, first: &Setting<A>, second: &Setting<B>, text: String) {
        match (first.origin, second.origin) {
            (Origin::Mistaken, _) | (_, Origin::Mistaken) => {}
            (Origin::Default, _) => self.blame(second, text),
            _ => self.blame(first, text),
        }
    }

    fn not_built_in(&mut self) {
        let config = self.config;
        if !config.auth_egress_ca_bundle_file.value.is_empty() {
            self.blame(
                &config.auth_egress_ca_bundle_file,
                "TLS to the upstream is not built in yet: remove it",
            );
        }
        for file in [&config.auth_ingress_cert_file, &config.auth_ingress_key_file] {
            if !file.value.is_empty() {
                self.blame(file, "TLS for senders is not built in yet: remove it");
            }
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

    /// What [`bounds`](super::bounds) says.
    fn bounds(&mut self) {
        let origins = Origins { file: String::new(), of: self.config.origins() };
        let faults = Bounds::written(self.config).faults();
        self.mistakes.extend(faults.into_iter().filter_map(|fault| origins.mistake(fault, |_| true)));
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

    /// Two listeners cannot share a port of one address. Port 0 is a free one each time.
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

    fn target(&mut self, setting: &Setting<String>) -> Option<Target> {
        match Target::parse(&setting.value) {
            Ok(target) => Some(target),
            Err(text) => {
                self.blame(setting, text);
                None
            }
        }
    }

    /// A target that is our own listener would be sent to itself for ever.
    fn no_loop(&mut self, listen: SocketAddr, target: &Target, setting: &Setting<String>) {
        let host = match target.host.parse::<IpAddr>() {
            Ok(host) => host,
            Err(_) if target.host == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Err(_) => return,
        };
        let ours = if listen.ip().is_unspecified() { host.is_loopback() } else { host == listen.ip() };
        if ours && target.port == listen.port() {
            let text =
                format!("the target is our own listen address ({listen}): requests would go round for ever");
            self.blame_pair(setting, &self.config.listen, text);
        }
    }

    /// The header's value for basic authentication (RFC 7617), if there is any.
    fn authorization(&mut self) -> Option<Option<Secret>> {
        let (username, password) = (&self.config.auth_egress_username, &self.config.auth_egress_password);
        match (username.value.is_empty(), password.value.is_empty()) {
            (true, true) => return Some(None),
            (false, true) => {
                let text = "auth.egress.username is set, but auth.egress.password is not: set both or none";
                self.blame_pair(username, password, text.into());
                return None;
            }
            (true, false) => {
                let text = "auth.egress.password is set, but auth.egress.username is not: set both or none";
                self.blame_pair(password, username, text.into());
                return None;
            }
            (false, false) => {}
        }
        if username.value.contains(':') {
            self.blame(username, "must not contain a colon: basic authentication ends the name there");
            return None;
        }
        let mut sound = true;
        for setting in [username, password] {
            if setting.value.chars().any(char::is_control) {
                self.blame(setting, "must not contain line ends or other control characters");
                sound = false;
            }
        }
        sound.then(|| Some(Secret(basic_authorization(&username.value, &password.value))))
    }

    fn header(&mut self) -> Option<TenantHeader> {
        let setting = &self.config.tenant_header;
        TenantHeader::parse(&setting.value).map_err(|text| self.blame(setting, text)).ok()
    }

    fn pass_headers(&mut self) -> Option<Vec<Box<str>>> {
        let setting = &self.config.upstream_pass_headers;
        let sound = check_passed(&setting.value, &self.config.tenant_header.value);
        sound.map_err(|text| self.blame(setting, text)).ok()?;
        Some(setting.value.iter().map(|name| name.as_str().into()).collect())
    }

    /// What IDs have to look like. Two numbers are asked of whoever sends two headers.
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
            let text = "an inbound tenant and a `-` in front make no number of an ID, which tenant.id_rules \
                        victoriametrics wants: switch it off";
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

    /// The map that `tenant.map` names; what is wrong with it is told with the lines of its own file.
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
        if list.value.iter().any(String::is_empty) {
            self.blame(list, "a label's name is empty: remove it");
            return None;
        }
        if let Some(twice) =
            list.value.iter().enumerate().find_map(|(at, name)| {
                list.value.iter().take(at).any(|earlier| earlier == name).then_some(name)
            })
        {
            self.blame(list, format!("{} is there twice: remove one", found(twice)));
            return None;
        }
        Some(list.value.iter().map(|name| name.as_bytes().into()).collect())
    }

    /// The prefix has to leave IDs valid, and the default with it has to be one.
    fn ids(&mut self, rules: IdRules) -> bool {
        let (prefix, default) = (&self.config.tenant_prefix, &self.config.tenant_default);
        // With a character behind it that is valid by all rules: a prefix alone may be `.`, and an ID begun by it still
        // valid.
        if let Err(fault) = check_id(format!("{}1", prefix.value).as_bytes(), rules) {
            self.blame(prefix, format!("no tenant's ID can begin with {}: {fault}", found(&prefix.value)));
            return false;
        }
        if default.value.is_empty() {
            return true;
        }
        let id = format!("{}{}", prefix.value, default.value);
        if let Err(fault) = check_id(id.as_bytes(), rules) {
            let name = rules.name();
            self.blame(
                default,
                format!("{} is not a tenant's ID by the rules of {name}: {fault}", found(&id)),
            );
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
                self.blame(empty, "of the two HA labels one is empty and one is not: set both or none");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Policy;

    fn given(text: &str) -> Result<Plan, Vec<String>> {
        crate::config::parse("f", text, [])
            .map_err(|mistakes| mistakes.to_string().lines().map(str::to_owned).collect())
    }

    fn plan(text: &str) -> Plan {
        given(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:#?}"))
    }

    /// The one mistake of `text` is on this line and key, and says this.
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
             metrics_include_tenant: true\nlog_level: debug\nlog_response_errors: true\n\
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
        assert_eq!(plan.log_level, LevelFilter::DEBUG);
        assert_eq!(
            *plan.terms.targets.of(Destination::Metrics),
            Target::parse("http://h:4/{tenant}/x").unwrap()
        );
        assert_eq!(plan.resolve_interval, secs(5));
        assert_eq!(plan.terms.authorization.as_ref().unwrap().expose(), "Basic dTpw");
        assert_eq!((plan.timeout, plan.idle_timeout, plan.timeout_shutdown), (secs(6), secs(7), secs(8)));
        assert_eq!(plan.retry_after_max, secs(26));
        assert_eq!(plan.max_connection_duration, Some(secs(10)));
        assert_eq!((plan.concurrency, plan.max_conns_per_host), (9, 11));
        assert_eq!((plan.cores, plan.driver), (NonZeroUsize::new(12), Driver::Epoll));
        let tenant = TenantRules {
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
        // A quarter of 9 requests, the odd one included.
        assert_eq!(plan.tenant_share(), Share { parts_max: 3, bytes_max: (20 << 20) / 100 * 25 });
        assert_eq!(plan.tenant, tenant);
        assert_eq!(plan.terms.tenant_header, TenantHeader::Name("X-T".into()));
        let merge = Merge {
            inflight_max: 13,
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
    fn the_time_to_stop_is_what_every_wait_of_a_request_adds_up_to() {
        let plan = plan("timeout: 4s\ntimeout_shutdown: 3s");
        assert_eq!(plan.request_time_max(), Duration::from_secs(28));
        assert_eq!(plan.stop_time_max(), Duration::from_secs(3 + 28 + 5));
    }

    #[test]
    fn the_new_settings_have_their_defaults() {
        let plan = plan("");
        let merge = Merge {
            inflight_max: 1,
            linger: Duration::ZERO,
            fragments_max: 64,
            inflated_bytes_max: 1 << 20,
            ha_labels: Some(HaLabels {
                cluster: Box::from(*b"cluster"),
                replica: Box::from(*b"__replica__"),
            }),
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
        assert_eq!((plan.cores, plan.driver), (None, Driver::Auto));
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
            "no number",
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
    fn the_label_list_takes_the_place_of_the_label() {
        assert_eq!(plan("tenant: {label: a}").tenant.labels, [Box::from(*b"a")]);
        assert_eq!(plan("tenant: {label: a, label_list: []}").tenant.labels, [Box::from(*b"a")]);
        let both = plan("tenant: {label: a, label_list: [b]}");
        assert_eq!(both.tenant.labels, [Box::from(*b"b")]);
        assert_eq!(both.notices, ["tenant.label is ignored, because tenant.label_list is set"]);
        refused("tenant: {label_list: [a, '']}", "f:1: tenant.label_list", "is empty");
        refused("tenant: {label_list: [a, b, a]}", "f:1: tenant.label_list", "\"a\" is there twice");
        refused(
            "tenant: {label_list: [a, [b]]}",
            "f:1: tenant.label_list",
            "an item of the list wants a single",
        );
    }

    #[test]
    fn what_is_not_built_in_yet_parses_and_is_refused_when_used() {
        for key in ["target", "target_loki"] {
            refused(&format!("{key}: https://h/x"), &format!("f:1: {key}"), "not built in yet");
            let own = format!("listen: 127.0.0.1:81\n{key}: 127.0.0.1:81");
            refused(&own, &format!("f:2: {key}"), "our own listen address");
        }
        refused(
            "auth: {egress: {tls_config: {ca_bundle_file: /ca}}}",
            "f:1: auth.egress.tls_config.ca_bundle_file",
            "not built in yet",
        );
        for key in ["cert_file", "key_file"] {
            let text = format!("auth:\n  ingress:\n    tls_config:\n      {key}: /f");
            refused(&text, &format!("f:4: auth.ingress.tls_config.{key}"), "not built in yet");
        }
        plan(
            "target_loki: 127.0.0.1:3100\nauth:\n  egress:\n    tls_config:\n      ca_bundle_file: ''\n\
              \x20 ingress:\n    tls_config:\n      cert_file:\n      key_file: ''\n",
        );
    }

    #[test]
    fn what_is_wrong_with_the_map_is_told_with_its_own_lines() {
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
    fn authentication_takes_both_name_and_password() {
        refused("auth: {egress: {username: u}}", "f:1: auth.egress.username", "password is not");
        refused("auth: {egress: {password: p}}", "f:1: auth.egress.password", "username is not");
        refused("auth: {egress: {username: 'a:b', password: p}}", "f:1: auth.egress.username", "a colon");
        refused(
            "auth: {egress: {username: \"a\\r\\n\", password: p}}",
            "f:1: auth.egress.username",
            "line ends",
        );
        refused(
            "auth: {egress: {username: a, password: \"p\\n\"}}",
            "f:1: auth.egress.password",
            "line ends",
        );
        // Told once: the other half only looks as if it were missing.
        refused(
            "auth: {egress: {username: u, password: [p]}}",
            "f:1: auth.egress.password",
            "a single value",
        );
        let with_colon = plan("auth: {egress: {username: u, password: 'a:b'}}");
        assert_eq!(with_colon.terms.authorization.as_ref().unwrap().expose(), "Basic dTphOmI=");
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
        // A prefix that spoils every ID is the prefix's fault.
        refused(
            "tenant: {default: d, prefix: a/}",
            "f:1: tenant.prefix",
            "no tenant's ID can begin with \"a/\"",
        );
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
        refused("target: http://127.0.0.1:8081/push", "f:1: target", "go round for ever");
        refused("target: localhost:8081", "f:1: target", "go round for ever");
        refused("listen: 0.0.0.0:7\ntarget: http://127.0.0.9:7/", "f:2: target", "go round for ever");
        refused("listen: 127.0.0.1:9090\nlisten_metrics_address: :1", "f:1: listen", "go round for ever");
        plan("listen: 127.0.0.2:7\ntarget: http://127.0.0.1:7/");
        plan("target: http://127.0.0.1:8082/push");
    }

    #[test]
    fn sizes_and_counts_have_to_make_sense() {
        refused(
            "limits: {inflated_bytes_max: 4Mi}",
            "f:1: limits.inflated_bytes_max",
            "must not be less than",
        );
        refused("limits: {body_bytes_max: 65Mi}", "f:1: limits.body_bytes_max", "must not be less than");
        refused(
            "limits: {in_flight_bytes_max: 72Mi}",
            "f:1: limits.in_flight_bytes_max",
            "at least 75513856",
        );
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
    fn what_cannot_be_read_is_told_once_and_spoils_no_other_check() {
        refused(
            "limits: {in_flight_bytes_max: x, inflated_bytes_max: 600Mi}",
            "f:1: limits.in_flight_bytes_max",
            "number of bytes",
        );
        refused("listen: [1]\nlisten_metrics_address: 127.0.0.1:8081", "f:1: listen", "a single value");
        refused("tenant: {header: [x]}", "f:1: tenant.header", "a single value");
    }

    #[test]
    fn what_is_hardly_meant_is_worth_a_notice() {
        assert!(plan("metadata: true").notices[0].contains("without tenant.default"));
        assert_eq!(plan("metadata: true\ntenant: {default: d}").notices, [""; 0]);
        assert!(plan("tenant: {accept_all: true}").notices[0].contains("hear 204"));
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
}
