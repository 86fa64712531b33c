//! The configuration: keys as written in YAML and in `CT_` variables, and the one checked [`Plan`] made of them.
//!
//! Constraints that shaped it:
//!
//! * What runs under cortex-tenant today has to start unchanged: its keys, its variables, its defaults, its
//!   reading of 0 and of empty values.
//! * An operator wants to hear of every mistake at once, each with its line, its key and what to do. So nothing
//!   stops at the first one: the file becomes a tree with lines (`yaml`), the tree and the environment become one
//!   value for each key (`source`), and a value that cannot be read gives way to its default, so that the rest is
//!   checked all the same.
//! * A key is known in many places: in the file, in the environment, in what `--print-default-config` prints, in
//!   the hints for typos, in the log. All of these come from one table, at the end of this file; a new key is one
//!   entry there, and its use in [`plan`].
//!
//! ```text
//! file ──► yaml ──┐
//!                 ├─► source ─► Config (as written, by key) ─► plan ─► Plan (checked, resolved)
//! environment ────┘       └────────── mistakes ───────────────┘
//! ```
#![forbid(unsafe_code)]

mod mistake;
pub mod plan;
mod source;
mod target;
mod value;
mod yaml;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use self::mistake::ConfigMistakes;
use self::mistake::{Mistake, Origin};
pub use self::plan::{Limits, Merge, Plan, Secret};
use self::source::Sources;
pub use self::target::Target;
pub use self::value::Driver;
use self::value::{ByteSize, IdRulesChoice, Value};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::tenant::Policy;

/// Reads the file, if one is given, and the environment of the process. All that is wrong is in the error.
pub fn load(file: Option<&Path>) -> Result<Plan, ConfigMistakes> {
    // A value that is no UTF-8 is kept, marked, and refused by whatever key it belongs to.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, lossy(value))));
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

/// As [`load`], given the file's name (for the errors), its text, and the environment's names and values.
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Plan, ConfigMistakes> {
    conclude(name, Sources::new(text, environment))
}

fn conclude(name: &str, mut sources: Sources) -> Result<Plan, ConfigMistakes> {
    let config = Config::read(&mut sources);
    let mut mistakes = sources.mistakes;
    match plan::build(&config, &mut mistakes) {
        Some(mut plan) if mistakes.is_empty() => {
            plan.notices.splice(0..0, sources.notices);
            Ok(plan)
        }
        _ => Err(ConfigMistakes::new(name, mistakes)),
    }
}

fn lossy(value: std::ffi::OsString) -> String {
    value.into_string().unwrap_or_else(|value| value.to_string_lossy().into_owned())
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
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
    /// Never shown.
    secret: bool,
    zero: Zero,
    /// What it does.
    what: &'static str,
    /// Who should change it.
    who: &'static str,
    /// The default, as YAML.
    default: fn() -> String,
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

/// Width of the comments in the printed configuration.
const PRINTED_COLUMNS_MAX: usize = 100;

/// The whole configuration with its defaults, as YAML with comments: every key, what it does, what 0 or an empty
/// value means, who should change it, and its variable.
pub fn print_defaults() -> String {
    let mut text = String::from(
        "# Tenantry's configuration: every key, with its default. Each can also be set by the environment variable\n\
         # named beside it, which wins over this file; a variable that is empty counts as not set.\n\
         # Durations: 10s, 1m30s, 1.5h, 500ms. Sizes: bytes, or with Ki, Mi, Gi. Lists in variables: a,b,c.\n",
    );
    let mut open: Vec<&str> = Vec::new();
    for key in KEYS {
        let mut names: Vec<&str> = key.path.split('.').collect();
        let name = names.pop().unwrap_or_default();
        let shared = open.iter().zip(&names).take_while(|(a, b)| a == b).count();
        text.push('\n');
        for (depth, section) in names.iter().enumerate().skip(shared) {
            text += &format!("{}{section}:\n", "  ".repeat(depth));
        }
        let indent = "  ".repeat(names.len());
        let zero = match key.zero {
            Zero::IsDefault => " 0 or empty: the default.".to_owned(),
            Zero::EmptyIsDefault => " Empty: the default.".to_owned(),
            Zero::Means(meaning) => format!(" {meaning}"),
            Zero::Refused(_) | Zero::Nothing => String::new(),
        };
        wrap(&mut text, &indent, &format!("{}{zero} {} [{}]", key.what, key.who, key.variable()));
        text += &format!("{indent}{name}: {}\n", (key.default)());
        open = names;
    }
    text
}

/// Appends `words` as comment lines of at most [`PRINTED_COLUMNS_MAX`] columns.
fn wrap(text: &mut String, indent: &str, words: &str) {
    let mut columns = usize::MAX;
    for word in words.split(' ') {
        if columns.saturating_add(1 + word.chars().count()) > PRINTED_COLUMNS_MAX {
            if columns != usize::MAX {
                text.push('\n');
            }
            *text += indent;
            text.push('#');
            columns = indent.len() + 1;
        }
        text.push(' ');
        *text += word;
        columns += 1 + word.chars().count();
    }
    text.push('\n');
}

/// Makes of the table below: [`Config`], [`KEYS`], the reading of the one by the other, and the text of it all.
macro_rules! keys {
    ($($field:ident: $kind:ty = $default:expr, $path:literal $(as $variable:literal)? $([$secret:ident])?,
        $zero:expr, $what:literal, $who:literal;)*) => {
        /// Every setting as written, in the file or in the environment, with its origin. Nothing here is checked
        /// beyond its own type.
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
            secret: keys!(@secret $($secret)?),
            zero: $zero,
            what: $what,
            who: $who,
            default: || <$kind as Value>::show(&$default),
        },)*];

        impl Config {
            fn read(sources: &mut Sources) -> Self {
                Self { $($field: sources.setting(&KEYS[At::$field as usize], $default),)* }
            }

            /// All values on one line, `key=value`, for the log; secrets are masked.
            fn effective(&self) -> String {
                let mut line = String::new();
                $(self.$field.append_to(&mut line);)*
                line
            }
        }
    };
    (@variable) => { None };
    (@variable $variable:literal) => { Some($variable) };
    (@secret) => { false };
    (@secret secret) => { true };
}

impl<T: Value> Setting<T> {
    fn append_to(&self, line: &mut String) {
        let space = if line.is_empty() { "" } else { " " };
        let shown = if self.key.secret && !self.value.is_zero() { "***".into() } else { self.value.show() };
        // Writing to a String cannot fail.
        _ = write!(line, "{space}{}={shown}", self.key.path);
    }
}

keys! {
    listen: String = "127.0.0.1:8081".into(), "listen", Zero::EmptyIsDefault,
        "Address and port to which senders push. `:8081` is every interface, IPv6 included.",
        "Change it when senders are on other machines.";
    listen_metrics_address: String = "0.0.0.0:9090".into(), "listen_metrics_address", Zero::EmptyIsDefault,
        "Address and port of /metrics and of the status page.",
        "Change it when another process has that port, or nobody else should see it.";
    listen_pprof: String = String::new(), "listen_pprof", Zero::Means("Empty: off."),
        "Address and port of the profiling endpoints.",
        "Set it while hunting a performance problem, on an address that only you reach.";
    metrics_include_tenant: bool = false, "metrics_include_tenant", Zero::Nothing,
        "Whether metrics have a label with the tenant: one series a tenant and metric, at most limits.tenants_max.",
        "Switch it on to see who sends how much.";
    log_level: LevelFilter = LevelFilter::WARN, "log_level", Zero::Nothing,
        "The least severe lines that are logged: trace, debug, info, warn or error.",
        "Set it to info to see the configuration in effect and the connections' comings and goings.";
    log_response_errors: bool = false, "log_response_errors", Zero::Nothing,
        "Whether each refusal by the upstream is logged with its text, rate-limited for each tenant.",
        "Switch it on while you set up a tenant; the counts are in the metrics all the same.";
    target: String = "127.0.0.1:9090".into(), "target", Zero::EmptyIsDefault,
        "Where requests go: http://host[:port][/path]. Without a scheme it is http. `{tenant}` in the path stands for \
         the tenant's ID. A name is looked up again and again, and all its addresses are used.",
        "Everybody sets this.";
    target_loki: String = TARGET_LOKI_DEFAULT.into(), "target_loki", Zero::EmptyIsDefault,
        "Where Loki pushes will go. Not built in yet: any other value is refused.",
        "Leave it alone.";
    enable_ipv6: bool = false, "enable_ipv6", Zero::Nothing,
        "Whether to connect to the target's IPv6 addresses as well as to its IPv4 ones.",
        "Switch it on where the target has IPv6 addresses.";
    resolve_interval: Duration = Duration::from_secs(10), "resolve_interval",
        Zero::Refused("must be more than 0; write it like 10s"),
        "How often the target's name is looked up.",
        "Lower it where the target's addresses change quickly and old ones must not be tried.";
    auth_egress_username: String = String::new(), "auth.egress.username", Zero::Means("Empty: no authentication."),
        "Name for HTTP basic authentication at the target.",
        "Set it, with the password, when the target asks for it.";
    auth_egress_password: String = String::new(), "auth.egress.password" [secret], Zero::Means("Empty: none."),
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
    timeout_shutdown: Duration = Duration::ZERO, "timeout_shutdown", Zero::Means("0s: at once."),
        "How long, when told to stop, /alive answers 503 while pushes are still taken, so that load balancers \
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
        "Connections to one upstream address, for the whole process. Tenants that find none free wait and merge.",
        "Raise it when the upstream is far away and lanes wait long.";
    metadata: bool = false, "metadata", Zero::Nothing,
        "Whether metric metadata (HELP, TYPE) is forwarded, to the default tenant, as it names none. Else it is dropped.",
        "Switch it on when tenant.default is set and somebody looks at metadata there.";
    tenant_label: String = "__tenant__".into(), "tenant.label", Zero::EmptyIsDefault,
        "The label whose value names a series' tenant.",
        "Most people set this to the label that their scrape jobs carry.";
    tenant_label_list: Vec<String> = Vec::new(), "tenant.label_list", Zero::Means("Empty: tenant.label alone."),
        "Several labels by priority, instead of tenant.label: the first one that a series has with a value decides.",
        "Set it when jobs name their tenants differently.";
    tenant_prefix: String = String::new(), "tenant.prefix", Zero::Means("Empty: none."),
        "Put in front of every tenant's ID, the default one included. Bring your own separator.",
        "Set it to tell clusters apart that have tenants of the same names.";
    tenant_prefix_prefer_source: bool = false, "tenant.prefix_prefer_source", Zero::Nothing,
        "Whether the tenant header of the inbound request, with a `-` behind it, takes the place of the prefix where \
         a request has one.",
        "Switch it on when senders already say who they are.";
    tenant_label_remove: bool = false, "tenant.label_remove", Zero::Nothing,
        "Whether the deciding label is taken out of the series.",
        "Leave it off unless the label is in the way: without it a request of a single tenant can be passed on as it is.";
    tenant_header: String = "X-Scope-OrgID".into(), "tenant.header", Zero::EmptyIsDefault,
        "The header that tells the upstream the tenant.",
        "THANOS-TENANT for Thanos.";
    tenant_default: String = String::new(), "tenant.default",
        Zero::Means("Empty: there is none, and tenant.on_missing decides."),
        "The tenant of series that name none.",
        "Set it when untagged series should be kept.";
    tenant_accept_all: bool = false, "tenant.accept_all", Zero::Nothing,
        "Whether senders always hear 204, whatever the upstream said. This loses what the upstream refuses.",
        "Leave it off; an acknowledgement is then the truth.";
    tenant_id_rules: IdRulesChoice = IdRulesChoice::Auto, "tenant.id_rules", Zero::Nothing,
        "What a tenant's ID has to look like. mimir: 1 to 150 of 0-9A-Za-z!-_.*'(); thanos: 1 to 256 visible ASCII \
         characters without / and \\; auto: mimir when the header is X-Scope-OrgID, else thanos.",
        "Set it when the header says nothing about the upstream.";
    tenant_on_missing: Policy = Policy::Reject, "tenant.on_missing", Zero::Nothing,
        "What becomes of a request in which a series names no tenant and there is no default. reject: 400, all of it; \
         drop: its good series go on, and the answer is a 400 that says how many did not.",
        "Set it to drop when one wrong job must not hold up the others of its Prometheus.";
    tenant_on_invalid: Policy = Policy::Reject, "tenant.on_invalid", Zero::Nothing,
        "The same for a series whose tenant's ID breaks tenant.id_rules: reject or drop.",
        "As above.";
    cores: usize = 0, "cores", Zero::Means("0: one for each CPU that the process may use."),
        "Threads that do the work, each pinned to a CPU.",
        "Lower it when the machine has other work to do.";
    driver: Driver = Driver::Auto, "driver", Zero::Nothing,
        "What drives the sockets. auto: io_uring where the kernel allows it, else epoll; io_uring: that or no start; \
         epoll: always epoll.",
        "Set it to epoll when a kernel's io_uring misbehaves.";
    merge_inflight_max: usize = 4, "merge.inflight_max", Zero::Refused("must be at least 1; the default is 4"),
        "Requests of one tenant on their way at once; what comes in meanwhile waits, and is sent as one.",
        "Lower it for fewer and larger requests, raise it when the upstream is far away.";
    merge_linger: Duration = Duration::ZERO, "merge.linger", Zero::Means("0s: nothing waits without need."),
        "How long a tenant's data waits for more to be sent with it.",
        "Set it, to some milliseconds, when the upstream suffers from many small requests.";
    merge_fragments_max: usize = 64, "merge.fragments_max",
        Zero::Refused("must be at least 1, which means never to merge; the default is 64"),
        "Inbound requests whose parts may be sent as one.",
        "Set it to 1 to switch merging off.";
    merge_inflated_bytes_max: ByteSize = ByteSize(4 << 20), "merge.inflated_bytes_max",
        Zero::Refused("must be at least 1; the default is 4Mi"),
        "The largest request that merging makes, before compression. One fragment that is larger goes alone.",
        "Keep it below the upstream's own limit for a request.";
    merge_ha_cluster_label: String = "cluster".into(), "merge.ha_cluster_label",
        Zero::Means("Empty, both: there are no HA pairs."),
        "The label that names an HA pair of Prometheus servers. Parts of different pairs, or replicas, never merge.",
        "Set it to what the upstream's HA tracker is set to.";
    merge_ha_replica_label: String = "__replica__".into(), "merge.ha_replica_label",
        Zero::Means("Empty, both: there are no HA pairs."),
        "The label that names the replica within its pair.",
        "As above.";
    limits_head_bytes_max: ByteSize = ByteSize(16 << 10), "limits.head_bytes_max",
        Zero::Refused("must be at least 1Ki; the default is 16Ki"),
        "The largest request line with its headers; past it the answer is 431.",
        "Nobody has to, as a rule.";
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
    limits_connections_max: usize = 0, "limits.connections_max",
        Zero::Means("0: as many as the limit of open files leaves."),
        "Senders' connections at once; past it the oldest idle ones are closed, then new ones refused.",
        "Set it when the limit of open files is not the bound you want.";
    limits_tenants_max: usize = 10_000, "limits.tenants_max",
        Zero::Refused("must be at least 1; the default is 10000"),
        "Tenants with lanes and metrics of their own; those past it share the name __other__ in metrics.",
        "Raise it when you have more tenants than that.";
    limits_tenants_per_request_max: usize = 4096, "limits.tenants_per_request_max",
        Zero::Refused("must be at least 1; the default is 4096"),
        "Distinct tenants in one request; past it the answer is 400.",
        "Nobody has to, as a rule.";
}

/// The default of `target_loki`, which is cortex-tenant's.
const TARGET_LOKI_DEFAULT: &str = "127.0.0.1:3100";
