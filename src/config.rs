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
use crate::split::MetadataRule;
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
        "Address and port to which senders push. `:8081` is every interface, IPv6 included.",
        "Change it when senders are on other machines.";
    listen_metrics_address: String = "0.0.0.0:9090".into(), "listen_metrics_address", Zero::EmptyIsDefault,
        "Address and port of /metrics and of the status page.",
        "Change it when another process has that port, or when not everybody should see them.";
    listen_pprof: String = String::new(), "listen_pprof", Zero::Means("Empty: off."),
        "Address and port of the profiling endpoints.",
        "Set it while hunting a performance problem, on an address that only you reach.";
    metrics_include_tenant: bool = false, "metrics_include_tenant", Zero::Nothing,
        "Whether metrics carry the tenant as a label: a series for each tenant, up to limits.tenants_max of \
         them.",
        "Switch it on to see who sends how much.";
    log_level: LevelFilter = LevelFilter::WARN, "log_level", Zero::Nothing,
        "The least severe lines that are logged: trace, debug, info, warn or error.",
        "Set it to info to see the configuration in effect and the connections' comings and goings.";
    log_response_errors: bool = false, "log_response_errors", Zero::Nothing,
        "Whether each refusal by the upstream is logged with its text, rate-limited for each tenant.",
        "Switch it on while you set up a tenant; the counts are in the metrics all the same.";
    target: String = "127.0.0.1:9090".into(), "target" [target], Zero::EmptyIsDefault,
        "Where requests go: http://host[:port][/path]; without a scheme it is http, too. `{tenant}` in the \
         path stands for the tenant's ID. A name is looked up again and again, and all its addresses are \
         used.",
        "Everybody sets this.";
    target_loki: String = TARGET_LOKI_DEFAULT.into(), "target_loki" [target], Zero::EmptyIsDefault,
        "Where Loki pushes go, written like target.",
        "Set it when you push logs.";
    enable_ipv6: bool = false, "enable_ipv6", Zero::Nothing,
        "Whether to connect to the target's IPv6 addresses as well as to its IPv4 ones.",
        "Switch it on where the target has IPv6 addresses.";
    resolve_interval: Duration = Duration::from_secs(10), "resolve_interval",
        Zero::Refused("must be more than 0; write it like 10s"),
        "How often the target's name is looked up.",
        "Lower it where the target's addresses change quickly and old ones must not be tried.";
    auth_egress_username: String = String::new(), "auth.egress.username",
        Zero::Means("Empty: no authentication."),
        "Name for HTTP basic authentication at the target.",
        "Set it, with the password, when the target asks for it.";
    auth_egress_password: String = String::new(), "auth.egress.password" [secret],
        Zero::Means("Empty: none."),
        "The password that goes with it. It is never logged.",
        "Better set by its variable than in a file that others can read.";
    auth_egress_ca_bundle_file: String = String::new(),
        "auth.egress.tls_config.ca_bundle_file" as "CT_CA_BUNDLE_FILE", Zero::Means("Empty: none."),
        "Certificates to trust at an https target. Not built in yet: setting it is refused.",
        "Leave it alone.";
    auth_ingress_cert_file: String = String::new(),
        "auth.ingress.tls_config.cert_file" as "CT_TLS_CERT_FILE", Zero::Means("Empty: plain HTTP."),
        "Certificate to show to senders. Not built in yet: setting it is refused.",
        "Leave it alone.";
    auth_ingress_key_file: String = String::new(),
        "auth.ingress.tls_config.key_file" as "CT_TLS_KEY_FILE", Zero::Means("Empty: plain HTTP."),
        "The certificate's private key. Not built in yet: setting it is refused.",
        "Leave it alone.";
    timeout: Duration = Duration::from_secs(10), "timeout", Zero::IsDefault,
        "The longest that a sender may take over a request, and the upstream over its answer.",
        "Keep it below the senders' own remote_timeout (Prometheus: 30s), so that they hear the reason.";
    idle_timeout: Duration = Duration::from_secs(60), "idle_timeout", Zero::IsDefault,
        "How long a sender's connection may rest between two requests.",
        "Raise it when senders push more rarely than that.";
    retry_after_max: Duration = Duration::from_secs(60), "retry_after_max",
        Zero::Refused("must be more than 0; the default is 1m"),
        "The longest Retry-After of an upstream that is passed on, in whole seconds: a sender that waits sends nothing for \
         other tenants either.",
        "Raise it where the upstream asks for long breaks and senders have a queue for as long.";
    timeout_shutdown: Duration = Duration::ZERO, "timeout_shutdown", Zero::Means("0s: at once."),
        "How long, once told to stop, pushes are still taken while /alive says 503, so that load balancers \
         look elsewhere.",
        "Set it behind a load balancer or in Kubernetes, to a little more than a probe's period.";
    concurrency: usize = 512, "concurrency", Zero::IsDefault,
        "Requests in work at once, for the whole process; further ones get 503 with Retry-After.",
        "Raise it when you see 503 and have memory left.";
    max_connection_duration: Duration = Duration::ZERO, "max_connection_duration" as "CT_MAX_CONN_DURATION",
        Zero::Means("0s: for ever."),
        "How long a connection to the upstream is used before another takes its place.",
        "Set it when a load balancer in front of the upstream should get to spread connections anew.";
    max_conns_per_host: usize = 64, "max_conns_per_host", Zero::IsDefault,
        "Connections to one upstream address, for the whole process. A tenant that finds none free waits, \
         and merges.",
        "Raise it when the upstream is far away and tenants wait long.";
    metadata: MetadataRule = MetadataRule::Drop, "metadata", Zero::Nothing,
        "What becomes of metric metadata (HELP, TYPE), which names no tenant. false: it is dropped; true: it goes \
         to the default tenant; route: to the tenants that have sent series of its family in the last quarter of \
         an hour, else to the default one.",
        "Set it to route when people look at metadata, or to true when tenant.default is where they do.";
    remote_write_v2: RemoteWriteV2 = RemoteWriteV2::Pass, "remote_write_v2", Zero::Nothing,
        "What becomes of Remote Write 2.0. pass: it goes on as such; downgrade: it goes on as 1.0, less what that \
         cannot say (start timestamps, histograms with custom buckets); refuse: 415. Prometheus 3 does not fall back \
         to 1.0 then: it drops what it sent.",
        "Set it to downgrade when the upstream knows only 1.0, as VictoriaMetrics does; refuse is for senders that are \
         known to fall back.";
    remote_write_v2_require_written: bool = false, "remote_write_v2_require_written", Zero::Nothing,
        "Whether an upstream's 2xx to Remote Write 2.0 counts as 502 where it does not say how much it has written, \
         although there was something to write: by the specification, nothing may have been. It is logged and counted \
         in any case.",
        "Switch it on when the upstream is known to say so; an upstream that never does is then sent the same for \
         ever.";
    upstream_pass_headers: Vec<String> = Vec::new(), "upstream.pass_headers", Zero::Means("Empty: none."),
        "Names of headers that go on to the upstream as they come, because they change what it does. Requests in which \
         they differ are never merged.",
        "Set it to [X-Loki-Backfill-Shard], for example, for a Loki that is backfilled.";
    tenant_label: String = "__tenant__".into(), "tenant.label", Zero::EmptyIsDefault,
        "The label whose value names a series' tenant.",
        "Most people set this to the label that their scrape jobs carry.";
    tenant_label_list: Vec<String> = Vec::new(), "tenant.label_list",
        Zero::Means("Empty: tenant.label alone."),
        "Labels by priority, in place of tenant.label: the first one that a series carries with a value \
         decides.",
        "Set it when jobs name their tenants differently.";
    tenant_prefix: String = String::new(), "tenant.prefix", Zero::Means("Empty: none."),
        "Put in front of every tenant's ID, the default one included. Bring your own separator.",
        "Set it to tell clusters apart that have tenants of the same names.";
    tenant_prefix_prefer_source: bool = false, "tenant.prefix_prefer_source", Zero::Nothing,
        "Whether the inbound request's own tenant header, with a `-` behind it, takes the place of the \
         prefix, where a request has one.",
        "Switch it on when senders already say who they are.";
    tenant_label_remove: bool = false, "tenant.label_remove", Zero::Nothing,
        "Whether the deciding label is taken out of the series.",
        "Leave it off unless the label is in the way: with it on, no request can be passed on just as it \
         came.";
    tenant_header: String = "X-Scope-OrgID".into(), "tenant.header", Zero::EmptyIsDefault,
        "The header that tells the upstream the tenant. AccountID+ProjectID: the two of VictoriaMetrics and \
         VictoriaLogs, for IDs like `12:34`, or `12`, which is `12:0`.",
        "Thanos wants THANOS-TENANT; Mimir, Cortex and Loki want the default.";
    tenant_default: String = String::new(), "tenant.default",
        Zero::Means("Empty: there is none, and tenant.on_missing decides."),
        "The tenant of series that name none.",
        "Set it when untagged series should be kept.";
    tenant_accept_all: bool = false, "tenant.accept_all", Zero::Nothing,
        "Whether senders always hear 204, whatever the upstream said. This loses what the upstream refuses.",
        "Leave it off: what senders hear is then the truth.";
    tenant_id_rules: IdRulesChoice = IdRulesChoice::Auto, "tenant.id_rules", Zero::Nothing,
        "What a tenant's ID has to look like. mimir: 1 to 150 of 0-9A-Za-z!-_.*'(); thanos: 1 to 256 visible \
         ASCII characters without / and \\; victoriametrics: one or two numbers of 32 bits, with a colon between them; \
         auto: mimir when the header is X-Scope-OrgID, victoriametrics when it is AccountID+ProjectID, else thanos.",
        "Set it when the header says nothing about the upstream.";
    tenant_on_missing: Policy = Policy::Reject, "tenant.on_missing", Zero::Nothing,
        "What becomes of a request in which a series names no tenant and there is no default. reject: 400, \
         all of it; drop: its good series go on, and the answer is a 400 that says how many did not.",
        "Set it to drop when one wrong job must not hold up the others of its Prometheus.";
    tenant_on_invalid: Policy = Policy::Reject, "tenant.on_invalid", Zero::Nothing,
        "The same for a series whose tenant's ID breaks tenant.id_rules: reject or drop.",
        "Set it to drop for the same reason.";
    tenant_map: String = String::new(), "tenant.map", Zero::Means("Empty: none."),
        "A file of rules that turn values into tenants: exact ones, prefixes, or regexes, each to a tenant or to \
         nobody (`drop: true`). The first that matches decides.",
        "Set it when tenants are not what the label says: namespaces to teams, for example.";
    tenant_allow: Vec<String> = Vec::new(), "tenant.allow", Zero::Means("Empty: all."),
        "The tenants that there are, before the prefix; `*` in one stands for anything. Others are treated by \
         tenant.on_invalid.",
        "Set it when a typo in a label must not make a new tenant.";
    tenant_loki_label_remove: bool = false, "tenant.loki_label_remove", Zero::Nothing,
        "Whether the deciding label is taken out of the labels of Loki's streams; tenant.label_remove is about series \
         alone.",
        "Leave it off unless the label is in the way.";
    cores: usize = 0, "cores", Zero::Means("0: one for each CPU that the process may use."),
        "Threads that do the work, each pinned to a CPU.",
        "Lower it when the machine has other work to do.";
    driver: Driver = Driver::Auto, "driver", Zero::Nothing,
        "What drives the sockets. auto: io_uring where the kernel allows it, else epoll; io_uring: that or \
         no start; epoll: always epoll.",
        "Set it to epoll when a kernel's io_uring misbehaves.";
    merge_inflight_max: usize = 1, "merge.inflight_max",
        Zero::Refused("must be at least 1; the default is 1"),
        "Requests of one tenant on their way at once; what comes in meanwhile waits, and is sent as one. Full \
         ones do not wait.",
        "Raise it when the upstream is far away and has requests to spare.";
    merge_linger: Duration = Duration::ZERO, "merge.linger", Zero::Means("0s: nothing waits without need."),
        "How long a tenant's data waits for more to be sent with it.",
        "Set it, to some milliseconds, when the upstream suffers from many small requests.";
    merge_fragments_max: usize = 64, "merge.fragments_max",
        Zero::Refused("must be at least 1, which means never to merge; the default is 64"),
        "How many parts of inbound requests may be sent as one request.",
        "Set it to 1 to switch merging off.";
    merge_inflated_bytes_max: ByteSize = ByteSize(1 << 20), "merge.inflated_bytes_max",
        Zero::Refused("must be at least 1; the default is 1Mi"),
        "The largest request that merging makes, before compression. A part that is larger by itself goes \
         alone.",
        "Raise it when the upstream prefers few large requests; keep it below its own limit for one.";
    merge_ha_cluster_label: String = "cluster".into(), "merge.ha_cluster_label",
        Zero::Means("Empty, both: there are no HA pairs."),
        "The label that names an HA pair of Prometheus servers. Parts of different pairs, or replicas, never \
         merge.",
        "Set it to what the upstream's HA tracker is set to.";
    merge_ha_replica_label: String = "__replica__".into(), "merge.ha_replica_label",
        Zero::Means("Empty, both: there are no HA pairs."),
        "The label that names the replica within its pair.",
        "Set it together with merge.ha_cluster_label.";
    receipts_keep: Duration = Duration::from_secs(300), "receipts.keep", Zero::Means("0s: none are kept."),
        "When a request fails for some of its tenants, the parts of the others are remembered for so long: a \
         retry sends only what is missing.",
        "Raise it when senders come back later than that, for example because the upstream says so.";
    receipts_bytes_max: ByteSize = ByteSize(16 << 20), "receipts.bytes_max",
        Zero::Refused("must be at least 1; the default is 16Mi"),
        "Memory for that, for the process; past it the oldest are forgotten.",
        "Raise it when tens of thousands of parts a minute belong to requests that fail.";
    limits_head_bytes_max: ByteSize = ByteSize(16 << 10), "limits.head_bytes_max",
        Zero::Refused("must be at least 1Ki; the default is 16Ki"),
        "The largest request line with its headers; past it the answer is 431.",
        "Raise it when a proxy in front adds headers of that size.";
    limits_body_bytes_max: ByteSize = ByteSize(8 << 20), "limits.body_bytes_max",
        Zero::Refused("must be at least 1; the default is 8Mi"),
        "The largest body, as it comes in; past it the answer is 413.",
        "Raise it when senders make larger requests.";
    limits_inflated_bytes_max: ByteSize = ByteSize(64 << 20), "limits.inflated_bytes_max",
        Zero::Refused("must be at least 1; the default is 64Mi"),
        "The largest body after decompression; past it the answer is 413.",
        "Raise it together with limits.body_bytes_max.";
    limits_in_flight_bytes_max: ByteSize = ByteSize(512 << 20), "limits.in_flight_bytes_max",
        Zero::Refused("must be at least 1; the default is 512Mi"),
        "Bytes of all requests in work; past it new ones get 503 with Retry-After.",
        "Set it to about half of the memory that the process may use.";
    limits_tenant_share_percent: usize = 50, "limits.tenant_share_percent",
        Zero::Refused("must be 1 to 100; the default is 50"),
        "Of concurrency, limits.in_flight_bytes_max and max_conns_per_host, how much one tenant may take. Parts that \
         come past the first two fail with 503, for that tenant alone; past the third they wait.",
        "Lower it where many tenants share the server, set it to 100 where there is only one.";
    limits_slow_share_percent: usize = 25, "limits.slow_share_percent",
        Zero::Refused("must be 1 to 100; the default is 25"),
        "The same for all slow tenants together: those whose requests take at least 250 ms and eight times as long as \
         is usual for their upstream, or time out, until one is answered in time again. While others wait for a \
         connection, requests of slow tenants beyond this share of them are given up with 504.",
        "Raise it where many tenants are slow by nature.";
    limits_connections_max: usize = 0, "limits.connections_max",
        Zero::Means("0: as many as the limit of open files leaves."),
        "Senders' connections at once; past it new ones have to wait or are closed.",
        "Set it when the limit of open files is not the bound you want.";
    limits_tenants_max: usize = 10_000, "limits.tenants_max",
        Zero::Refused("must be at least 1; the default is 10000"),
        "Tenants with lanes and metrics of their own; those past it share the name __other__ in metrics.",
        "Raise it when you have more tenants than that.";
    limits_tenants_per_request_max: usize = 4096, "limits.tenants_per_request_max",
        Zero::Refused("must be at least 1; the default is 4096"),
        "Distinct tenants in one request; past it the answer is 413.",
        "Raise it when one Prometheus scrapes for more tenants than that.";
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
        let [target, loki] = crate::split::Destination::ALL.map(|to| plan.terms.targets.of(to));
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
