//! The configuration: keys as written in YAML and in `CT_` variables, and the one checked [`Plan`] made of
//! them.
//!
//! Constraints that shaped it:
//!
//! * What runs under cortex-tenant today has to start unchanged: its keys, its variables, its defaults, its
//!   reading of 0 and of empty values.
//! * An operator wants to hear of every mistake at once, each with its line, its key and what to do. So
//!   nothing stops at the first one: the file becomes a tree with lines (`yaml`), the tree and the
//!   environment become one value for each key (`source`), and a value that cannot be read gives way to its
//!   default, so that the rest is checked all the same.
//! * A key is known in many places: in the file, in the environment, in what `--print-default-config` prints,
//!   in the hints for typos, in the log. All of these come from one table, at the end of this file; a new key
//!   is one entry there, and its use in [`plan`].
//!
//! ```text
//! file ──► yaml ──┐
//!                 ├─► source ─► Config (as written, by key) ─► plan ─► Plan (checked, resolved)
//! environment ────┘       └────────── mistakes ───────────────┘
//! ```
#![forbid(unsafe_code)]

mod address;
mod bounds;
mod docs;
mod header;
mod mistake;
pub mod plan;
pub mod reload;
mod source;
mod target;
mod tenant_map;
mod value;
mod yaml;

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use self::docs::{print_defaults, settings_tables};
pub use self::header::TenantHeader;
pub use self::mistake::ConfigMistakes;
use self::mistake::{Mistake, Origin};
pub use self::plan::{Limits, Merge, Plan, Secret};
use self::source::Sources;
pub use self::target::Target;
pub use self::tenant_map::read_tenant_map;
pub use self::value::Driver;
use self::value::{ByteSize, IdRulesChoice, Value};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::model::MetadataRule;
use crate::tenant::Policy;

/// Reads the file, if one is given, and the environment of the process. All that is wrong is in the error.
pub fn load(file: Option<&Path>) -> Result<Plan, ConfigMistakes> {
    let environment = std::env::vars_os();
    let Some(path) = file else { return parse("", "", environment) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse(&name, &text, environment),
        Err(text) => {
            let mut sources = Sources::new("", environment);
            sources.mistakes.push(Mistake::in_file(text));
            conclude(&name, sources)
        }
    }
}

/// As [`load`], for a server that runs by what `file` said when it started. A file that had settings then and has none now
/// is being written: to go on by the defaults would send its tenants' data elsewhere, or nowhere.
pub fn load_again(file: Option<&Path>, had_settings: bool) -> Result<Plan, ConfigMistakes> {
    match file {
        Some(path) if had_settings && !has_settings(Some(path)) => {
            let name = path.display().to_string();
            let mut sources = Sources::new("", std::iter::empty());
            sources.mistakes.push(Mistake::in_file("has no settings any more".to_owned()));
            conclude(&name, sources)
        }
        _ => load(file),
    }
}

/// Whether there is anything but comments in the file; one that cannot be read might have it.
pub fn has_settings(file: Option<&Path>) -> bool {
    let says_something = |line: &str| !matches!(line.trim_start().as_bytes(), [] | [b'#', ..] | b"---");
    file.is_some_and(|path| read_file(path).map_or(true, |text| text.lines().any(says_something)))
}

/// As [`load`], given the file's name (for the errors), its text, and the environment's names and values.
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Plan, ConfigMistakes> {
    conclude(name, Sources::new(text, environment))
}

fn conclude(name: &str, mut sources: Sources) -> Result<Plan, ConfigMistakes> {
    let config = Config::read(&mut sources);
    let mut mistakes = sources.mistakes;
    match plan::build(&config, &mut mistakes) {
        Some(mut plan) if mistakes.is_empty() => {
            plan.origins.file = name.to_owned();
            plan.notices.splice(0..0, sources.notices);
            Ok(plan)
        }
        _ => Err(ConfigMistakes::new(name, mistakes)),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Without this flag, opening a FIFO waits until somebody writes to it.
    let options = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).to_owned();
    let file = options.open(path).map_err(cannot)?;
    let kind = file.metadata().map_err(cannot)?.file_type();
    if !kind.is_file() {
        let what = match kind {
            _ if kind.is_fifo() => "a FIFO",
            _ if kind.is_dir() => "a directory",
            _ => "a device",
        };
        return Err(format!("is {what}, no regular file"));
    }
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(CONFIG_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > CONFIG_FILE_BYTES_MAX {
        return Err(format!(
            "is larger than {CONFIG_FILE_BYTES_MAX} bytes: this is no configuration of ours"
        ));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// What becomes of Remote Write 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteWriteV2 {
    /// It goes on as such.
    Pass,
    /// It goes on as 1.0.
    Downgrade,
    /// 415.
    Refuse,
}

/// A key's value, and where it came from.
#[derive(Clone, Debug)]
struct Setting<T> {
    /// As written, or the default.
    value: T,
    /// Who said so.
    origin: Origin,
    key: &'static Key,
}

impl<T> Setting<T> {
    fn mistake(&self, text: impl Into<String>) -> Mistake {
        Mistake::of(self.key, self.origin, text)
    }
}

/// A key, and all that is known of it but its value.
#[derive(Debug)]
pub struct Key {
    /// Names of its sections and its own, with dots between them.
    pub path: &'static str,
    /// Its variable, where that is not `CT_` and the path in capitals.
    variable: Option<&'static str>,
    /// How much of it is shown.
    shown: Shown,
    zero: Zero,
    /// What it does.
    what: &'static str,
    /// Who should change it.
    who: &'static str,
    /// The default, as YAML.
    default: fn() -> String,
}

/// How much of a value the log and the status page show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// All of it.
    Whole,
    /// That there is one.
    Masked,
    /// A target without what may be secret in it.
    Target,
}

/// What 0, or an empty value, means for a key.
#[derive(Clone, Copy, Debug)]
enum Zero {
    /// The same as not setting it: what cortex-tenant makes of it, for each key whose default is not empty.
    IsDefault,
    /// The same, of a text.
    EmptyIsDefault,
    /// A value with a meaning of its own.
    Means(&'static str),
    /// A mistake; the text says what to write.
    Refused(&'static str),
    /// There is no such value, or it needs no explaining.
    Nothing,
}

impl Key {
    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        match self.variable {
            Some(name) => name.to_owned(),
            None => format!("CT_{}", self.path.to_uppercase().replace('.', "_")),
        }
    }
}

/// Makes of the table below: [`Config`], [`KEYS`], the reading of the one by the other, and the text of it
/// all.
macro_rules! keys {
    ($($field:ident: $kind:ty = $default:expr, $path:literal $(as $variable:literal)? $([$shown:ident])?,
        $zero:expr, $what:literal, $who:literal;)*) => {
        /// Every setting as written, in the file or in the environment, with its origin. Nothing here is
        /// checked beyond its own type.
        #[derive(Clone, Debug)]
        struct Config {
            $(#[doc = $what] $field: Setting<$kind>,)*
        }

        /// The place of each key in [`KEYS`].
        #[expect(non_camel_case_types, reason = "they are the fields' names")]
        enum At { $($field,)* }

        /// Every key there is, in the order in which they are printed.
        pub static KEYS: &[Key] = &[$(Key {
            path: $path,
            variable: keys!(@variable $($variable)?),
            shown: keys!(@shown $($shown)?),
            zero: $zero,
            what: $what,
            who: $who,
            default: || <$kind as Value>::show(&$default),
        },)*];

        impl Config {
            fn read(sources: &mut Sources) -> Self {
                Self { $($field: sources.setting(&KEYS[At::$field as usize], $default),)* }
            }

            /// Where each value came from.
            fn origins(&self) -> Vec<(&'static Key, Origin)> {
                vec![$((self.$field.key, self.$field.origin)),*]
            }

            /// All values on one line, `key=value`, for the log; secrets are masked.
            fn effective(&self) -> plan::Effective {
                plan::Effective(vec![$(self.$field.shown()),*])
            }
        }
    };
    (@variable) => { None };
    (@variable $variable:literal) => { Some($variable) };
    (@shown) => { Shown::Whole };
    (@shown secret) => { Shown::Masked };
    (@shown target) => { Shown::Target };
}

impl<T: Value> Setting<T> {
    fn shown(&self) -> (&'static str, String) {
        let shown = match self.key.shown {
            Shown::Masked if !self.value.is_zero() => "***".into(),
            Shown::Masked | Shown::Whole => self.value.show(),
            Shown::Target => self.value.masked().show(),
        };
        (self.key.path, shown)
    }
}

keys! {
    listen: String = "127.0.0.1:8081".into(), "listen", Zero::EmptyIsDefault,
        "The address and port to which senders push. `:8081` listens on every interface, IPv6 included.",
        "Set it when senders run on other machines.";
    listen_metrics_address: String = "0.0.0.0:9090".into(), "listen_metrics_address", Zero::EmptyIsDefault,
        "The address and port of /metrics and of the status page.",
        "Set it when another process has that port, or to keep the pages from the network.";
    listen_pprof: String = String::new(), "listen_pprof", Zero::Means("Empty: off."),
        "The address and port of the profiling endpoints.",
        "Set it while you look for a performance problem, to an address that only you can reach.";
    metrics_include_tenant: bool = false, "metrics_include_tenant", Zero::Nothing,
        "Adds the tenant as a label to the per-tenant metrics: one series per tenant, for up to limits.tenants_max \
         tenants.",
        "Switch it on to see how much each tenant sends.";
    log_level: LevelFilter = LevelFilter::WARN, "log_level", Zero::Nothing,
        "The lowest severity that is logged: trace, debug, info, warn or error.",
        "Set it to info to see the effective configuration, name lookups and recovered upstream addresses.";
    log_response_errors: bool = false, "log_response_errors", Zero::Nothing,
        "Logs each error response of the upstream with its text, at a limited rate per tenant.",
        "Switch it on while you set up a tenant. The metrics count these errors in any case.";
    target: String = "127.0.0.1:9090".into(), "target" [target], Zero::EmptyIsDefault,
        "The URL to which remote write goes: `http://host[:port][/path]`. Without a scheme it is http. `{tenant}` \
         in the path stands for the tenant ID. The name is looked up every resolve_interval, and all its addresses \
         are used.",
        "Everybody sets this.";
    target_loki: String = TARGET_LOKI_DEFAULT.into(), "target_loki" [target], Zero::EmptyIsDefault,
        "The URL to which Loki pushes go, written like target.",
        "Set it when you push logs.";
    enable_ipv6: bool = false, "enable_ipv6", Zero::Nothing,
        "Uses the IPv6 addresses of the target as well as its IPv4 addresses.",
        "Switch it on if the target has IPv6 addresses.";
    resolve_interval: Duration = Duration::from_secs(10), "resolve_interval",
        Zero::Refused("must be more than 0; write it like 10s"),
        "How often the names in target and target_loki are looked up.",
        "Lower it if the target's addresses change often and old ones must not be tried.";
    auth_egress_username: String = String::new(), "auth.egress.username",
        Zero::Means("Empty: no authentication."),
        "The user name for HTTP basic authentication at the target.",
        "Set it, together with the password, if the target requires basic authentication.";
    auth_egress_password: String = String::new(), "auth.egress.password" [secret],
        Zero::Means("Empty: none."),
        "The password that belongs to the user name. It is never logged.",
        "Prefer the variable to a file that others can read.";
    auth_egress_ca_bundle_file: String = String::new(),
        "auth.egress.tls_config.ca_bundle_file" as "CT_CA_BUNDLE_FILE", Zero::Means("Empty: none."),
        "The certificates to trust at an https target. TLS is not implemented yet: a value is an error.",
        "Leave it empty.";
    auth_ingress_cert_file: String = String::new(),
        "auth.ingress.tls_config.cert_file" as "CT_TLS_CERT_FILE", Zero::Means("Empty: plain HTTP."),
        "The certificate to present to senders. TLS is not implemented yet: a value is an error.",
        "Leave it empty.";
    auth_ingress_key_file: String = String::new(),
        "auth.ingress.tls_config.key_file" as "CT_TLS_KEY_FILE", Zero::Means("Empty: plain HTTP."),
        "The private key of the certificate. TLS is not implemented yet: a value is an error.",
        "Leave it empty.";
    timeout: Duration = Duration::from_secs(10), "timeout", Zero::IsDefault,
        "The longest time that a sender may take for the head or the body of a request, and the upstream for its \
         answer.",
        "Keep it below the senders' own timeout (Prometheus: remote_timeout, 30s), so that they get the reason of a \
         failure.";
    idle_timeout: Duration = Duration::from_secs(60), "idle_timeout", Zero::IsDefault,
        "How long a sender's connection may be idle between two requests.",
        "Raise it if senders push less often than that.";
    retry_after_max: Duration = Duration::from_secs(60), "retry_after_max",
        Zero::Refused("must be more than 0; the default is 1m"),
        "The longest Retry-After of an upstream that is passed on, in whole seconds. A sender that waits sends \
         nothing for its other tenants either.",
        "Raise it if the upstream asks for long pauses and the senders' queues can hold the data of such a pause.";
    timeout_shutdown: Duration = Duration::ZERO, "timeout_shutdown", Zero::Means("0s: stop at once."),
        "How long pushes are still accepted after the signal to stop, while /alive answers 503 so that load \
         balancers go elsewhere.",
        "Set it behind a load balancer or in Kubernetes, to a little more than the period of its probe.";
    concurrency: usize = 512, "concurrency", Zero::IsDefault,
        "How many requests the whole process works on at once. Requests beyond that get 503 with Retry-After.",
        "Raise it if you see such 503 and have memory left.";
    max_connection_duration: Duration = Duration::ZERO, "max_connection_duration" as "CT_MAX_CONN_DURATION",
        Zero::Means("0s: no limit."),
        "How long a connection to the upstream is used before a new one replaces it.",
        "Set it if a load balancer in front of the upstream should distribute connections again from time to time.";
    max_conns_per_host: usize = 64, "max_conns_per_host", Zero::IsDefault,
        "How many connections the whole process opens to one upstream address. A tenant that finds none free waits, \
         and its data is merged meanwhile.",
        "Raise it if the upstream is far away and tenants wait long.";
    metadata: MetadataRule = MetadataRule::Drop, "metadata", Zero::Nothing,
        "What happens to metric metadata (HELP, TYPE), which names no tenant. false: it is dropped. true: it goes \
         to the default tenant. route: it goes to the tenants that sent series of the metric within the last 15 \
         minutes, and to the default tenant if there are none.",
        "Set it to route if people look at metadata, or to true if they look at it in the default tenant.";
    remote_write_v2: RemoteWriteV2 = RemoteWriteV2::Pass, "remote_write_v2", Zero::Nothing,
        "What happens to Remote Write 2.0. pass: it is forwarded as 2.0. downgrade: it is forwarded as 1.0, without \
         what 1.0 cannot express (start timestamps, histograms with custom buckets). refuse: the answer is 415. \
         Prometheus 3 does not fall back to 1.0 after a 415: it drops the data.",
        "Set it to downgrade if the upstream supports only 1.0, as VictoriaMetrics does. Use refuse only for \
         senders that are known to fall back.";
    remote_write_v2_require_written: bool = false, "remote_write_v2_require_written", Zero::Nothing,
        "Treats an upstream's 2xx to Remote Write 2.0 as 502 if it does not say how much was written although there \
         was something to write. By the specification, nothing may have been written then. Such answers are logged \
         and counted in any case.",
        "Switch it on if the upstream is known to say how much it wrote. With an upstream that never does, senders \
         repeat the same data for ever.";
    upstream_pass_headers: Vec<String> = Vec::new(), "upstream.pass_headers", Zero::Means("Empty: none."),
        "The names of headers that are passed on to the upstream as they came, because they change what it does. \
         Requests that differ in them are never merged.",
        "Set it, for example, to [X-Loki-Backfill-Shard] while you backfill a Loki.";
    tenant_label: String = "__tenant__".into(), "tenant.label", Zero::EmptyIsDefault,
        "The label whose value is the tenant of a series.",
        "Most people set this to the label that their scrape jobs carry.";
    tenant_label_list: Vec<String> = Vec::new(), "tenant.label_list",
        Zero::Means("Empty: tenant.label is used."),
        "A list of labels in order of priority, used instead of tenant.label. The first label in the list that a \
         series carries with a value decides.",
        "Set it if jobs name their tenants by different labels.";
    tenant_prefix: String = String::new(), "tenant.prefix", Zero::Means("Empty: none."),
        "A prefix for every tenant ID, the default tenant's included. Add a separator yourself.",
        "Set it to keep clusters apart whose tenants have the same names.";
    tenant_prefix_prefer_source: bool = false, "tenant.prefix_prefer_source", Zero::Nothing,
        "Uses the tenant header of the inbound request, followed by `-`, in place of tenant.prefix, if the request \
         has that header.",
        "Switch it on if senders already name themselves in that header.";
    tenant_label_remove: bool = false, "tenant.label_remove", Zero::Nothing,
        "Removes the label that named the tenant from the series.",
        "Leave it off unless the label must not be stored. With it on, no request can be forwarded unchanged.";
    tenant_header: String = "X-Scope-OrgID".into(), "tenant.header", Zero::EmptyIsDefault,
        "The header that names the tenant to the upstream. AccountID+ProjectID stands for the two headers of \
         VictoriaMetrics and VictoriaLogs: the tenant is then `12:34`, or `12` for `12:0`.",
        "Set it to THANOS-TENANT for Thanos. Mimir, Cortex and Loki use the default.";
    tenant_default: String = String::new(), "tenant.default",
        Zero::Means("Empty: no default tenant, and tenant.on_missing decides."),
        "The tenant of series that have no tenant label.",
        "Set it if series without a tenant should be kept.";
    tenant_accept_all: bool = false, "tenant.accept_all", Zero::Nothing,
        "Answers 204 to every push that can be split, whatever the upstream said. Data that the upstream refuses is \
         lost.",
        "Leave it off, so that senders get true answers.";
    tenant_id_rules: IdRulesChoice = IdRulesChoice::Auto, "tenant.id_rules", Zero::Nothing,
        "Which tenant IDs are valid. mimir: 1 to 150 of the characters `0-9A-Za-z!-_.*'()`. thanos: 1 to 256 \
         visible ASCII characters without `/` and `\\`. victoriametrics: one or two 32-bit numbers with a colon \
         between them. auto: mimir if the header is X-Scope-OrgID, victoriametrics if it is AccountID+ProjectID, \
         else thanos.",
        "Set it if the header does not tell which upstream it is.";
    tenant_on_missing: Policy = Policy::Reject, "tenant.on_missing", Zero::Nothing,
        "What happens to a request with a series that has no tenant, if there is no default tenant. reject: the \
         whole request gets 400. drop: the other series are forwarded, and the answer is a 400 that says how many \
         were left out.",
        "Set it to drop if one wrong job must not hold up the other jobs of its Prometheus.";
    tenant_on_invalid: Policy = Policy::Reject, "tenant.on_invalid", Zero::Nothing,
        "The same for a series whose tenant ID breaks tenant.id_rules or is not in tenant.allow: reject or drop.",
        "Set it to drop for the same reason.";
    tenant_map: String = String::new(), "tenant.map", Zero::Means("Empty: none."),
        "A file of rules that map label values to tenants. A rule matches an exact value, a prefix or a regular \
         expression, and names a tenant or drops the series (`drop: true`). The first rule that matches decides.",
        "Set it if the label's values are not the tenants: to map namespaces to teams, for example.";
    tenant_allow: Vec<String> = Vec::new(), "tenant.allow", Zero::Means("Empty: all tenants are allowed."),
        "The tenants that are allowed, before the prefix is added. `*` stands for any text. tenant.on_invalid says \
         what happens to others.",
        "Set it if a typo in a label must not create a new tenant.";
    tenant_loki_label_remove: bool = false, "tenant.loki_label_remove", Zero::Nothing,
        "Removes the label that named the tenant from the labels of Loki streams. tenant.label_remove applies to \
         series only.",
        "Leave it off unless the label must not be stored.";
    cores: usize = 0, "cores", Zero::Means("0: one per CPU that the process may use."),
        "The number of worker threads. Each is pinned to a CPU.",
        "Lower it if the machine has other work to do.";
    driver: Driver = Driver::Auto, "driver", Zero::Nothing,
        "How sockets are driven. auto: io_uring if the kernel allows it, else epoll. io_uring: only io_uring, and \
         no start without it. epoll: always epoll.",
        "Set it to epoll if the kernel's io_uring misbehaves.";
    merge_inflight_max: usize = 1, "merge.inflight_max",
        Zero::Refused("must be at least 1; the default is 1"),
        "How many requests of one tenant are on their way at once. Data that arrives meanwhile waits and is sent as \
         one request. Once it fills a request (merge.inflated_bytes_max), it no longer waits.",
        "Raise it if the upstream is far away and can take more requests.";
    merge_linger: Duration = Duration::ZERO, "merge.linger", Zero::Means("0s: data never waits without need."),
        "How long a tenant's data waits for more to be sent with it.",
        "Set it to some milliseconds if the upstream suffers from many small requests.";
    merge_fragments_max: usize = 64, "merge.fragments_max",
        Zero::Refused("must be at least 1, which means never to merge; the default is 64"),
        "How many parts of inbound requests may be merged into one upstream request.",
        "Set it to 1 to switch merging off.";
    merge_inflated_bytes_max: ByteSize = ByteSize(1 << 20), "merge.inflated_bytes_max",
        Zero::Refused("must be at least 1; the default is 1Mi"),
        "The largest upstream request that merging builds, before compression. A part that is larger goes alone.",
        "Raise it if the upstream prefers few large requests. Keep it below the upstream's own limit.";
    merge_ha_cluster_label: String = "cluster".into(), "merge.ha_cluster_label",
        Zero::Means("Both empty: there are no HA pairs."),
        "The label that names a pair of Prometheus servers in high availability. Parts of different pairs or \
         replicas are never merged.",
        "Set it to the label that the upstream's HA tracker uses.";
    merge_ha_replica_label: String = "__replica__".into(), "merge.ha_replica_label",
        Zero::Means("Both empty: there are no HA pairs."),
        "The label that names the replica within its pair.",
        "Set it together with merge.ha_cluster_label.";
    receipts_keep: Duration = Duration::from_secs(300), "receipts.keep", Zero::Means("0s: no receipts are kept."),
        "How long the delivered parts of a failed request are remembered. When its sender repeats the request, \
         these parts are not sent again.",
        "Raise it if senders come back later than that, for example because the upstream asks them to.";
    receipts_bytes_max: ByteSize = ByteSize(16 << 20), "receipts.bytes_max",
        Zero::Refused("must be at least 1; the default is 16Mi"),
        "The memory for receipts in the whole process. Beyond it the oldest are forgotten.",
        "Raise it if tens of thousands of parts per minute belong to requests that fail.";
    limits_head_bytes_max: ByteSize = ByteSize(16 << 10), "limits.head_bytes_max",
        Zero::Refused("must be at least 1Ki; the default is 16Ki"),
        "The largest request line with its headers. Larger ones get 431.",
        "Raise it if a proxy in front adds headers of that size.";
    limits_body_bytes_max: ByteSize = ByteSize(8 << 20), "limits.body_bytes_max",
        Zero::Refused("must be at least 1; the default is 8Mi"),
        "The largest request body, as it arrives. Larger ones get 413.",
        "Raise it if senders make larger requests.";
    limits_inflated_bytes_max: ByteSize = ByteSize(64 << 20), "limits.inflated_bytes_max",
        Zero::Refused("must be at least 1; the default is 64Mi"),
        "The largest request body after decompression. Larger ones get 413.",
        "Raise it together with limits.body_bytes_max.";
    limits_in_flight_bytes_max: ByteSize = ByteSize(512 << 20), "limits.in_flight_bytes_max",
        Zero::Refused("must be at least 1; the default is 512Mi"),
        "The total bytes of all requests in work. Beyond it new requests get 503 with Retry-After.",
        "Set it to about half of the memory that the process may use.";
    limits_tenant_share_percent: usize = 50, "limits.tenant_share_percent",
        Zero::Refused("must be 1 to 100; the default is 50"),
        "The share of concurrency, limits.in_flight_bytes_max and max_conns_per_host that one tenant may use. Parts \
         beyond the first two get 503, for that tenant alone. Parts beyond the third wait.",
        "Lower it if many tenants share the server. Set it to 100 if there is only one.";
    limits_slow_share_percent: usize = 25, "limits.slow_share_percent",
        Zero::Refused("must be 1 to 100; the default is 25"),
        "The same share for all slow tenants together. A tenant is slow when its requests take at least 250 ms and \
         eight times as long as usual for their upstream address, or time out, until one is answered in time again. \
         While others wait for a connection, requests of slow tenants beyond this share of the connections are \
         given up with 504.",
        "Raise it if many tenants are slow by nature.";
    limits_connections_max: usize = 0, "limits.connections_max",
        Zero::Means("0: as many as the limit of open files allows."),
        "How many connections of senders are open at once. Beyond it new ones wait in the kernel's backlog.",
        "Set it if the limit of open files is not the bound you want.";
    limits_tenants_max: usize = 10_000, "limits.tenants_max",
        Zero::Refused("must be at least 1; the default is 10000"),
        "How many tenants have metrics of their own. The tenants beyond it share the name `__other__` in metrics.",
        "Raise it if you have more tenants than that.";
    limits_tenants_per_request_max: usize = 4096, "limits.tenants_per_request_max",
        Zero::Refused("must be at least 1; the default is 4096"),
        "How many different tenants one request may hold. Requests with more get 413.",
        "Raise it if one Prometheus scrapes for more tenants than that.";
}

/// The default of `target_loki`, which is cortex-tenant's.
const TARGET_LOKI_DEFAULT: &str = "127.0.0.1:3100";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

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
        let config = Config::read(&mut Sources::new("", []));
        config.effective().to_string()
    }

    #[test]
    fn every_key_has_a_path_and_a_variable_of_its_own() {
        let paths: HashSet<_> = KEYS.iter().map(|key| key.path).collect();
        let variables: HashSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((paths.len(), variables.len()), (KEYS.len(), KEYS.len()));
        // A key that is a section, too, could not be told from it.
        for key in KEYS {
            let section = format!("{}.", key.path);
            assert!(!paths.iter().any(|path| path.starts_with(&section)), "{}", key.path);
        }
    }

    #[test]
    fn the_defaults_are_those_of_cortex_tenant() {
        let plan = plan("", &[]);
        assert_eq!(plan.listen.to_string(), "127.0.0.1:8081");
        assert_eq!(plan.listen_metrics.to_string(), "0.0.0.0:9090");
        assert_eq!(plan.listen_pprof, None);
        assert!(!plan.metrics_include_tenant && !plan.log_response_errors && !plan.enable_ipv6);
        assert_eq!(plan.log_level, LevelFilter::WARN);
        let [target, loki] = crate::model::Destination::ALL.map(|to| plan.terms.targets.of(to));
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
    fn every_old_variable_is_known() {
        let old = [
            "LISTEN",
            "LISTEN_PPROF",
            "LISTEN_METRICS_ADDRESS",
            "METRICS_INCLUDE_TENANT",
            "TARGET",
            "TARGET_LOKI",
            "ENABLE_IPV6",
            "LOG_LEVEL",
            "TIMEOUT",
            "IDLE_TIMEOUT",
            "TIMEOUT_SHUTDOWN",
            "CONCURRENCY",
            "METADATA",
            "LOG_RESPONSE_ERRORS",
            "MAX_CONN_DURATION",
            "MAX_CONNS_PER_HOST",
            "AUTH_EGRESS_USERNAME",
            "AUTH_EGRESS_PASSWORD",
            "CA_BUNDLE_FILE",
            "TLS_CERT_FILE",
            "TLS_KEY_FILE",
            "TENANT_LABEL",
            "TENANT_LABEL_LIST",
            "TENANT_PREFIX",
            "TENANT_PREFIX_PREFER_SOURCE",
            "TENANT_LABEL_REMOVE",
            "TENANT_HEADER",
            "TENANT_DEFAULT",
            "TENANT_ACCEPT_ALL",
        ];
        let known: HashSet<_> = KEYS.iter().map(Key::variable).collect();
        for name in old {
            assert!(known.contains(&format!("CT_{name}")), "{name}");
        }
    }

    #[test]
    fn zero_and_empty_are_the_default_where_they_were_for_cortex_tenant() {
        let zeros = "listen: ''\nlisten_metrics_address: \"\"\ntarget: ''\ntarget_loki: ''\nlog_level: ''\n\
                     timeout: 0\nidle_timeout: 0s\nconcurrency: 0\nmax_conns_per_host: 0\nlisten_pprof:\n\
                     tenant:\n  label: ''\n  header: ~\n  label_list: []\n  default:\nauth:\n";
        let mut sources = Sources::new(zeros, []);
        let config = Config::read(&mut sources);
        assert_eq!(sources.mistakes, []);
        assert_eq!(config.effective().to_string(), defaults());
    }

    #[test]
    fn zero_is_refused_where_it_would_be_a_riddle() {
        let told = mistakes(
            "resolve_interval: 0s\nmerge:\n  inflight_max: 0\n  fragments_max: 0\n\
             limits:\n  body_bytes_max: 0\n",
            &[("CT_LIMITS_TENANTS_MAX", "0")],
        );
        assert_eq!(
            told,
            [
                "f.yml:1: resolve_interval: must be more than 0; write it like 10s",
                "f.yml:3: merge.inflight_max: must be at least 1; the default is 1",
                "f.yml:4: merge.fragments_max: must be at least 1, which means never to merge; the default is 64",
                "f.yml:6: limits.body_bytes_max: must be at least 1; the default is 8Mi",
                "CT_LIMITS_TENANTS_MAX (environment): limits.tenants_max: must be at least 1; the default is 10000",
            ]
        );
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = mistakes(
            "listen: 8080\ntimeout: 10\ntenant:\n  lable: x\n  header: Host\n  label_remove: maybe\n\
             \x20 default: [a]\n\
             concurrency: many\ntarget: https://h/\nlimits: 5\n",
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
            "f.yml:9: target: TLS to the upstream is not built in yet; ",
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
    fn what_is_no_mapping_is_told() {
        assert_eq!(mistakes("- a\n", &[]), ["f.yml:1: wants keys with values (`listen: …`), not a list"]);
        let told = mistakes("timeout: [\n", &[("CT_TIMEOUT", "x")]);
        assert!(told[0].starts_with("f.yml:1: not YAML: "), "{told:?}");
        assert!(
            told[1].starts_with("CT_TIMEOUT (environment): timeout: \"x\" is not a duration"),
            "{told:?}"
        );
    }

    #[test]
    fn a_dotted_name_is_not_the_key_of_that_path() {
        let told = mistakes("tenant.label: x\n", &[]);
        assert_eq!(told, ["f.yml:1: tenant.label: unknown key; write `label`, indented under `tenant:`"]);
    }

    #[test]
    fn a_variable_that_is_nearly_ours_is_worth_a_word_but_no_mistake() {
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
    fn a_variable_that_is_no_text_is_a_mistake_of_its_key() {
        let bytes = || OsString::from_vec(vec![b'a', 0xff]);
        let variables =
            [("CT_TENANT_DEFAULT".into(), bytes()), ("OTHER".into(), bytes()), (bytes(), "x".into())];
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
        assert_eq!(plan.terms.authorization.as_ref().unwrap().expose(), "Basic Ym9iOmh1bnRlcjI=");
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
                assert!(
                    told.starts_with(&format!("f.yml:1: {key}: ")) && !told.contains("hunter2"),
                    "{told}"
                );
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
}
