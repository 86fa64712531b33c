//! From settings as written to the one [`Plan`] that the rest of the program runs on: checked and resolved. Past
//! this point nothing is invalid, and nobody looks at a setting twice.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::value::found;
use super::{Config, Driver, IdRulesChoice, Mistake, Origin, Setting, TARGET_LOKI_DEFAULT, Target};
use crate::limits::{CORES_MAX, HEAD_BYTES_MIN, MERGE_FRAGMENTS_MAX};
use crate::split::HaLabels;
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
    /// Where requests go.
    pub target: Target,
    /// The target's IPv6 addresses are used, too.
    pub enable_ipv6: bool,
    /// The whole value of the `Authorization` header for the upstream. A secret.
    pub authorization: Option<Secret>,
    /// For a sender's head and body, and for the upstream's answer. Never 0.
    pub timeout: Duration,
    /// Between two requests of a sender. Never 0.
    pub idle_timeout: Duration,
    /// For load balancers to look elsewhere, before the listeners close. 0 is at once.
    pub timeout_shutdown: Duration,
    /// Age at which an upstream connection is replaced.
    pub max_connection_duration: Option<Duration>,
    /// Connections to one upstream address, for the process. At least 1.
    pub max_conns_per_host: usize,
    /// Requests in work, for the process. At least 1.
    pub concurrency: usize,
    /// Metadata goes to the default tenant; else it is dropped.
    pub metadata: bool,
    /// Senders always hear 204.
    pub accept_all: bool,
    /// How a series names its tenant.
    pub tenant: TenantRules,
    /// The header that names it to the upstream: a token, and none that HTTP or we ourselves need.
    pub tenant_header: String,
    /// Threads; `None` is one for each CPU of the affinity mask.
    pub cores: Option<NonZeroUsize>,
    /// What drives the sockets.
    pub driver: Driver,
    /// When and how parts of a tenant become one request.
    pub merge: Merge,
    /// Bounds that an operator may move.
    pub limits: Limits,
    /// Between two lookups of the target's name. Never 0.
    pub resolve_interval: Duration,
    /// What is no mistake but worth a warning in the log: one line each.
    pub notices: Vec<String>,
    effective: String,
}

impl Plan {
    /// Every setting on one line, `key=value`, for the log; secrets are masked.
    pub fn effective(&self) -> &str {
        &self.effective
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
    /// Senders' connections; `None` is what the limit of open files leaves.
    pub connections_max: Option<NonZeroUsize>,
    /// Tenants with a lane and metrics of their own.
    pub tenants_max: usize,
    /// Distinct tenants in one request.
    pub tenants_per_request_max: usize,
}

/// Makes a plan of `config`. What is wrong is added to `mistakes`; only when nothing was added is the plan sound.
pub(super) fn build(config: &Config, mistakes: &mut Vec<Mistake>) -> Option<Plan> {
    let mut check = Check { config, mistakes };
    check.not_built_in();
    check.ceilings();
    check.sizes();
    let listen = check.address(&config.listen);
    let listen_metrics = check.address(&config.listen_metrics_address);
    let listen_pprof = check.pprof();
    let target = check.target();
    let authorization = check.authorization();
    let tenant_header = check.header();
    let tenant = check.tenant();
    let ha_labels = check.ha_labels();
    if let (Some(listen), Some(metrics)) = (listen, listen_metrics) {
        check.addresses_differ(listen, metrics, listen_pprof.flatten());
    }
    if let (Some(listen), Some(target)) = (listen, &target) {
        check.no_loop(listen, target);
    }
    Some(Plan {
        listen: listen?,
        listen_metrics: listen_metrics?,
        listen_pprof: listen_pprof?,
        metrics_include_tenant: config.metrics_include_tenant.value,
        log_level: config.log_level.value,
        log_response_errors: config.log_response_errors.value,
        target: target?,
        enable_ipv6: config.enable_ipv6.value,
        authorization: authorization?,
        timeout: config.timeout.value,
        idle_timeout: config.idle_timeout.value,
        timeout_shutdown: config.timeout_shutdown.value,
        max_connection_duration: Some(config.max_connection_duration.value).filter(|age| !age.is_zero()),
        max_conns_per_host: config.max_conns_per_host.value,
        concurrency: config.concurrency.value,
        metadata: config.metadata.value,
        accept_all: config.tenant_accept_all.value,
        tenant: tenant?,
        tenant_header: tenant_header?,
        cores: NonZeroUsize::new(config.cores.value),
        driver: config.driver.value,
        merge: merge(config, ha_labels?),
        limits: limits(config),
        resolve_interval: config.resolve_interval.value,
        notices: notices(config),
        effective: config.effective(),
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
        connections_max: NonZeroUsize::new(config.limits_connections_max.value),
        tenants_max: config.limits_tenants_max.value,
        tenants_per_request_max: config.limits_tenants_per_request_max.value,
    }
}

/// What is no mistake, but hardly meant.
fn notices(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    if config.metadata.value && config.tenant_default.value.is_empty() {
        notices.push(
            "metadata is true, but without tenant.default there is nobody to send it to: it is dropped"
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
    /// Tells of a setting, unless it has been told of already and what we see is only the default in its place.
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
        if config.target_loki.value != TARGET_LOKI_DEFAULT {
            self.blame(&config.target_loki, "Loki pushes are not built in yet: remove it");
        }
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
        for (setting, value_max) in
            [(&config.cores, CORES_MAX), (&config.merge_fragments_max, MERGE_FRAGMENTS_MAX)]
        {
            if setting.value > value_max {
                self.blame(
                    setting,
                    format!("{} is more than the {value_max} that are possible", setting.value),
                );
            }
        }
    }

    fn sizes(&mut self) {
        let config = self.config;
        let (head, body) = (&config.limits_head_bytes_max, &config.limits_body_bytes_max);
        let (inflated, in_flight) = (&config.limits_inflated_bytes_max, &config.limits_in_flight_bytes_max);
        if head.value.0 < HEAD_BYTES_MIN {
            self.blame(
                head,
                format!("must be at least {HEAD_BYTES_MIN} bytes: senders' own headers need that"),
            );
        }
        if u32::try_from(inflated.value.0).is_err() {
            self.blame(inflated, "must be less than 4Gi: snappy's own length has 32 bits");
        }
        if inflated.value.0 < body.value.0 {
            let text = "limits.inflated_bytes_max must not be less than limits.body_bytes_max: no such body \
                        could be unpacked";
            self.blame_pair(inflated, body, text.into());
        }
        let largest = body.value.0.saturating_add(inflated.value.0);
        if in_flight.value.0 < largest {
            let text = format!(
                "limits.in_flight_bytes_max must be at least {largest}, so that one request of the largest size \
                 fits: limits.body_bytes_max and limits.inflated_bytes_max together"
            );
            let other = if inflated.origin == Origin::Default { body } else { inflated };
            self.blame_pair(in_flight, other, text);
        }
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

    fn target(&mut self) -> Option<Target> {
        match Target::parse(&self.config.target.value) {
            Ok(target) => Some(target),
            Err(text) => {
                self.blame(&self.config.target, text);
                None
            }
        }
    }

    /// A target that is our own listener would be sent to itself for ever.
    fn no_loop(&mut self, listen: SocketAddr, target: &Target) {
        let host = match target.host.parse::<IpAddr>() {
            Ok(host) => host,
            Err(_) if target.host == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Err(_) => return,
        };
        let ours = if listen.ip().is_unspecified() { host.is_loopback() } else { host == listen.ip() };
        if ours && target.port == listen.port() {
            let text = format!("is our own listen address ({listen}): requests would go round for ever");
            self.blame_pair(&self.config.target, &self.config.listen, text);
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
        let pair = format!("{}:{}", username.value, password.value);
        sound.then(|| Some(Secret(format!("Basic {}", base64(pair.as_bytes())))))
    }

    fn header(&mut self) -> Option<String> {
        let setting = &self.config.tenant_header;
        match check_header(&setting.value) {
            Ok(()) => Some(setting.value.clone()),
            Err(text) => {
                self.blame(setting, text);
                None
            }
        }
    }

    fn tenant(&mut self) -> Option<TenantRules> {
        let config = self.config;
        let id_rules = match config.tenant_id_rules.value {
            IdRulesChoice::Mimir => IdRules::Mimir,
            IdRulesChoice::Thanos => IdRules::Thanos,
            IdRulesChoice::Auto if config.tenant_header.value.eq_ignore_ascii_case("X-Scope-OrgID") => {
                IdRules::Mimir
            }
            IdRulesChoice::Auto => IdRules::Thanos,
        };
        let labels = self.labels();
        let ids_sound = self.ids(id_rules);
        let rules = TenantRules {
            labels: labels?,
            prefix: config.tenant_prefix.value.clone(),
            prefix_prefer_source: config.tenant_prefix_prefer_source.value,
            label_remove: config.tenant_label_remove.value,
            default: Some(config.tenant_default.value.clone()).filter(|id| !id.is_empty()),
            id_rules,
            on_missing: config.tenant_on_missing.value,
            on_invalid: config.tenant_on_invalid.value,
        };
        ids_sound.then_some(rules)
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
        // With any valid character behind it: a prefix alone may be `.`, and an ID begun by it still valid.
        if let Err(fault) = check_id(format!("{}x", prefix.value).as_bytes(), rules) {
            self.blame(prefix, format!("no tenant's ID can begin with {}: {fault}", found(&prefix.value)));
            return false;
        }
        if default.value.is_empty() {
            return true;
        }
        let id = format!("{}{}", prefix.value, default.value);
        if let Err(fault) = check_id(id.as_bytes(), rules) {
            let name = if rules == IdRules::Mimir { "mimir" } else { "thanos" };
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

fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    same && a.port() == b.port() && a.port() != 0
}

/// An address to listen on, as Go takes it: `:8080` is every interface. A name other than `localhost` is refused, as
/// it may have many addresses, or none yet.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const EXAMPLES: &str = "write it like 127.0.0.1:8080, [::1]:8080, or :8080 for every interface";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = found(text);
    let Some((host, port)) = text.rsplit_once(':') else {
        let what =
            if text.parse::<IpAddr>().is_ok() { "lacks a port" } else { "is not an address with a port" };
        return Err(format!("{shown} {what}; {EXAMPLES}"));
    };
    let Some(port) = port.parse::<u16>().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
    else {
        return Err(format!("{shown} ends in no port (0 to 65535); {EXAMPLES}"));
    };
    match host {
        "" => Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        "localhost" => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        host if host.contains(':') && !host.starts_with('[') => {
            Err(format!("{shown}: an IPv6 address stands in brackets; {EXAMPLES}"))
        }
        _ => Err(format!("{shown} does not begin with an IP address; {EXAMPLES}")),
    }
}

/// Headers that frame a message, belong to one connection, or are set by ourselves: a tenant's ID in one of them
/// would break requests, or be overwritten.
const HEADERS_TAKEN: [&str; 26] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-cortex-tenant-client",
    "x-cortex-tenant-reqid",
    "x-forwarded-for",
    "x-prometheus-remote-write-version",
];

/// A header's name: a token (RFC 9110 section 5.6.2) that nobody else needs.
fn check_header(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if let Some(wrong) = name.chars().find(|&c| !u8::try_from(c).is_ok_and(token)) {
        return Err(format!("{} is not a header's name: it cannot contain {wrong:?}", found(name)));
    }
    if HEADERS_TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
        return Err(format!(
            "{name} has a meaning of its own in HTTP, or is set by Tenantry itself: choose another"
        ));
    }
    Ok(())
}

/// Base64 with the standard alphabet and padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            let letter = usize::try_from(sextet).ok().and_then(|sextet| ALPHABET.get(sextet)).copied();
            let padding = at > chunk.len();
            text.push(if padding { '=' } else { char::from(letter.unwrap_or(b'=')) });
        }
    }
    text
}
