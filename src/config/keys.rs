//! The table of settings: key, variable, type, default, and the text that documents it.
#![forbid(unsafe_code)]

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::key::{Key, Shown, Zero};
use super::mistake::Origin;
use super::setting::{Effective, Setting};
use super::source::Sources;
use super::static_headers::StaticHeaders;
use super::value::{Auto, ByteSize, DriverChoice, Fsync, IdRulesChoice, SpoolWhen, Value};
use crate::auth::Secret;
use crate::log::LogFormat;
use crate::model::{MetadataRule, TargetCoding, V2Handling};
use crate::tenant::Policy;
use crate::tls::names::ClientAuth;

/// Expands the table below into [`Config`], [`KEYS`], the code that reads one by the other, and the texts.
macro_rules! keys {
    ($($field:ident: $kind:ty = $default:expr, $path:literal $(as $variable:literal)? $([$shown:ident])?,
        $zero:expr, $what:literal, $who:literal;)*) => {
        /// Every setting as written in the file or in the environment, with its origin. Only the type of each value has
        /// been checked.
        #[derive(Clone, Debug)]
        pub(super) struct Config {
            $(#[doc = $what] pub(super) $field: Setting<$kind>,)*
        }

        /// The index of each key in [`KEYS`].
        #[expect(non_camel_case_types, reason = "they are the fields' names")]
        enum At { $($field,)* }

        /// All keys, in the order in which they are printed.
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
            pub(super) fn read(sources: &mut Sources) -> Self {
                Self { $($field: sources.setting(&KEYS[At::$field as usize], $default),)* }
            }

            /// The origin of each value.
            pub(super) fn origins(&self) -> Vec<(&'static Key, Origin)> {
                vec![$((self.$field.key, self.$field.origin)),*]
            }

            /// All values on one line as `key=value`, for the log. Secrets are masked.
            pub(super) fn effective(&self) -> Effective {
                Effective(vec![$(self.$field.shown()),*])
            }
        }
    };
    (@variable) => { None };
    (@variable $variable:literal) => { Some($variable) };
    (@shown) => { Shown::Whole };
    (@shown secret) => { Shown::Masked };
    (@shown target) => { Shown::Target };
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
    metrics_tenant_idle: Duration = Duration::from_secs(3600), "metrics_tenant_idle",
        Zero::Means("0s: all tenants are shown."),
        "Leaves tenants out of /metrics that have sent nothing for so long. The metrics of a tenant that comes back go on \
         where they were.",
        "Raise it if tenants send more rarely than that.";
    metrics_tenant_histograms_max: usize = 1_500, "metrics_tenant_histograms_max",
        Zero::Means("0: no limit."),
        "How many histograms of request durations /metrics has, one for each tenant and status. The first tenants keep \
         theirs; the counters of all tenants are shown in any case.",
        "Raise it if you have more tenants than that and want all their histograms, at up to 2 kB each.";
    log_level: LevelFilter = LevelFilter::WARN, "log_level", Zero::Nothing,
        "The lowest severity that is logged: trace, debug, info, warn or error.",
        "Set it to info to see the effective configuration, name lookups and recovered upstream addresses.";
    log_format: LogFormat = LogFormat::Auto, "log_format", Zero::Nothing,
        "How log lines are written. text: for people. json: an object per line. journald: with the level as \
         systemd's journal reads it, and without the time. auto: journald if standard error is the journal, else text.",
        "Set it to json if a collector reads the log.";
    log_response_errors: bool = false, "log_response_errors", Zero::Nothing,
        "Logs each error response of the upstream with its text, at a limited rate per tenant.",
        "Switch it on while you set up a tenant. The metrics count these errors in any case.";
    access_log_enabled: bool = false, "access_log.enabled", Zero::Nothing,
        "Logs a line about each request: its ID, sender, protocol, status, duration, bytes, tenants, series, samples and \
         trace. Such lines do not depend on log_level.",
        "Switch it on to see who sends what, together with a minimum if there are many requests.";
    access_log_status_min: usize = 0, "access_log.status_min", Zero::Means("0: any status."),
        "The lowest status of a request that has a line. With duration_min as well, one of the two is enough.",
        "Set it to 400 to see requests that failed.";
    access_log_duration_min: Duration = Duration::ZERO, "access_log.duration_min", Zero::Means("0s: any duration."),
        "The shortest duration of a request that has a line.",
        "Set it to see slow requests.";
    access_log_sample_one_in: usize = 1, "access_log.sample_one_in",
        Zero::Refused("must be at least 1, which means all; the default is 1"),
        "Of the requests that have a line by the other settings, each core logs one of so many.",
        "Raise it if the log cannot take as many lines.";
    tracing_otlp_endpoint: String = String::new(), "tracing.otlp.endpoint" [target],
        Zero::Means("Empty: nothing is traced."),
        "The URL to which the spans of sampled requests are sent, by OTLP over HTTP: `http://host[:port][/path]`. \
         Without a path it is /v1/traces. https is not possible.",
        "Set it to an OpenTelemetry Collector, or to Tempo or Jaeger, if you trace requests.";
    tracing_sample_one_in: usize = 0, "tracing.sample_one_in",
        Zero::Means("0: only requests whose `traceparent` says that they are sampled."),
        "Of the requests without a `traceparent`, each core traces one of so many.",
        "Set it if the senders do not trace: to 1000, for example.";
    target: String = "127.0.0.1:9090".into(), "target" [target], Zero::EmptyIsDefault,
        "The URL to which remote write goes: `http://host[:port][/path]`. Without a scheme it is http. `{tenant}` \
         in the path stands for the tenant ID. The name is looked up every resolve_interval, and all its addresses \
         are used.",
        "Everybody sets this.";
    target_loki: String = TARGET_LOKI_DEFAULT.into(), "target_loki" [target], Zero::EmptyIsDefault,
        "The URL to which Loki pushes go, written like target.",
        "Set it when you push logs.";
    target_otlp_metrics: String = "127.0.0.1:4318/v1/metrics".into(), "target_otlp_metrics" [target],
        Zero::EmptyIsDefault,
        "The URL to which metrics go that come by OTLP, written like target.",
        "Set it when OpenTelemetry SDKs or Collectors push metrics: to Mimir's /otlp/v1/metrics, for example.";
    target_otlp_metrics_coding: TargetCoding = TargetCoding::AsReceived, "target_otlp_metrics_coding", Zero::Nothing,
        "How what goes there is compressed: gzip, zstd, snappy (a block), none, or as-received, which is as the data \
         came. Compression that is not needed costs time, and keeps requests of one tenant from passing unchanged.",
        "Set it if the target does not take the compression of your senders, or to save bandwidth.";
    target_otlp_logs: String = "127.0.0.1:4318/v1/logs".into(), "target_otlp_logs" [target], Zero::EmptyIsDefault,
        "The URL to which logs go that come by OTLP, written like target.",
        "Set it when OpenTelemetry SDKs or Collectors push logs: to Loki's /otlp/v1/logs, for example.";
    target_otlp_logs_coding: TargetCoding = TargetCoding::AsReceived, "target_otlp_logs_coding", Zero::Nothing,
        "The same as target_otlp_metrics_coding for logs.",
        "Set it for the same reasons.";
    target_otlp_traces: String = "127.0.0.1:4318/v1/traces".into(), "target_otlp_traces" [target],
        Zero::EmptyIsDefault,
        "The URL to which traces go, which come by OTLP, written like target.",
        "Set it when OpenTelemetry SDKs or Collectors push traces: to Tempo's /v1/traces, for example.";
    target_otlp_traces_coding: TargetCoding = TargetCoding::AsReceived, "target_otlp_traces_coding", Zero::Nothing,
        "The same as target_otlp_metrics_coding for traces.",
        "Set it for the same reasons.";
    enable_ipv6: bool = false, "enable_ipv6", Zero::Nothing,
        "Uses the IPv6 addresses of the target as well as its IPv4 addresses.",
        "Switch it on if the target has IPv6 addresses.";
    resolve_interval: Duration = Duration::from_secs(10), "resolve_interval",
        Zero::Refused("must be more than 0; write it like 10s"),
        "How often the names in the targets are looked up.",
        "Lower it if the target's addresses change often and old ones must not be tried.";
    auth_egress_username: String = String::new(), "auth.egress.username",
        Zero::Means("Empty: no authentication."),
        "The user name for HTTP basic authentication at the target.",
        "Set it, together with the password, if the target requires basic authentication.";
    auth_egress_password: Secret = Secret::default(), "auth.egress.password" [secret],
        Zero::Means("Empty: none."),
        "The password that belongs to the user name. It is never logged.",
        "Prefer the variable or password_file to a file that others can read.";
    auth_egress_password_file: String = String::new(), "auth.egress.password_file",
        Zero::Means("Empty: none."),
        "A file with the password, in place of the password itself. White space around it is ignored. The file is \
         read again when it changes.",
        "Set it if the password is a mounted secret, or changes while the server runs.";
    auth_egress_bearer_token: Secret = Secret::default(), "auth.egress.bearer_token" [secret],
        Zero::Means("Empty: none."),
        "The token for bearer authentication at the target, in place of a user name and password. It is never logged.",
        "Prefer the variable or bearer_token_file to a file that others can read.";
    auth_egress_bearer_token_file: String = String::new(), "auth.egress.bearer_token_file",
        Zero::Means("Empty: none."),
        "A file with the token, read like password_file.",
        "Set it if the token is a mounted secret, or is renewed while the server runs.";
    auth_egress_ca_bundle_file: String = String::new(),
        "auth.egress.tls_config.ca_bundle_file" as "CT_CA_BUNDLE_FILE", Zero::Means("Empty: those of the system."),
        "A file of the certificates to trust at an https target, as PEM. Empty means those of the system.",
        "Set it if the target's certificate was issued by an authority of your own.";
    auth_egress_cert_file: String = String::new(), "auth.egress.tls_config.cert_file",
        Zero::Means("Empty: none."),
        "The certificate that is presented to an https target that asks for one, as PEM, with its chain.",
        "Set it, together with the key, if the target requires client certificates.";
    auth_egress_key_file: String = String::new(), "auth.egress.tls_config.key_file",
        Zero::Means("Empty: none."),
        "The private key of that certificate, as PEM without a passphrase.",
        "Set it together with the certificate.";
    auth_egress_server_name: String = String::new(), "auth.egress.tls_config.server_name",
        Zero::Means("Empty: the host in target."),
        "The name that the target's certificate has to be for, and that the target is asked for (SNI).",
        "Set it if the target is reached by another name than that in its certificate.";
    auth_egress_insecure_skip_verify: bool = false, "auth.egress.tls_config.insecure_skip_verify", Zero::Nothing,
        "Accepts any certificate of an https target. Anyone on the way can then read and change all data. The log \
         warns of it every ten minutes.",
        "Leave it off. Set ca_bundle_file instead.";
    auth_ingress_cert_file: String = String::new(),
        "auth.ingress.tls_config.cert_file" as "CT_TLS_CERT_FILE", Zero::Means("Empty: plain HTTP."),
        "The certificate that is presented to senders, as PEM, with its chain. With it, `listen` speaks TLS only. The \
         file is read again when it changes.",
        "Set it, together with the key, if senders push over an untrusted network.";
    auth_ingress_key_file: String = String::new(),
        "auth.ingress.tls_config.key_file" as "CT_TLS_KEY_FILE", Zero::Means("Empty: plain HTTP."),
        "The private key of the certificate, as PEM without a passphrase.",
        "Set it together with the certificate.";
    auth_ingress_more_certificates: Vec<String> = Vec::new(), "auth.ingress.tls_config.more_certificates",
        Zero::Means("Empty: none."),
        "More certificates, each as `CERT_FILE:KEY_FILE`. A sender gets the one for the name that it asks for (SNI), or \
         else that of cert_file.",
        "Set it if senders use several names that one certificate does not cover.";
    auth_ingress_client_ca_file: String = String::new(), "auth.ingress.tls_config.client_ca_file",
        Zero::Means("Empty: none."),
        "The authorities that may have issued the certificates of senders, as PEM.",
        "Set it together with client_auth.";
    auth_ingress_client_auth: ClientAuth = ClientAuth::None, "auth.ingress.tls_config.client_auth", Zero::Nothing,
        "Whether senders have to present a certificate. none: they are not asked. verify_if_given: one that is \
         presented must be valid. require: they must present a valid one.",
        "Set it to require if only senders with a certificate of yours may push.";
    auth_ingress_min_version: String = String::new(), "auth.ingress.tls_config.min_version",
        Zero::Means("Empty: TLS12."),
        "The oldest version of TLS that senders may use: TLS12 or TLS13.",
        "Set it to TLS13 if all senders support it.";
    auth_ingress_cipher_suites: Vec<String> = Vec::new(), "auth.ingress.tls_config.cipher_suites",
        Zero::Means("Empty: all that are safe."),
        "The cipher suites of TLS 1.2 that senders may use, by their names in Go. Those of TLS 1.3 cannot be chosen.",
        "Leave it empty unless a policy demands certain suites.";
    auth_ingress_web_config_file: String = String::new(), "auth.ingress.web_config_file",
        Zero::Means("Empty: none."),
        "A web configuration file as Prometheus has it (`--web.config.file`), for `listen`: TLS, the users with their \
         bcrypt hashes, and headers of responses. It is read again when it changes.",
        "Set it if senders have to authenticate with a user and a password.";
    auth_ingress_tokens_file: String = String::new(), "auth.ingress.tokens_file", Zero::Means("Empty: none."),
        "A YAML list of the bearer tokens that senders may have, each with a name and a hash or a file. It is read \
         again when it changes.",
        "Set it if senders have to authenticate with bearer tokens.";
    auth_ingress_jwks_file: String = String::new(), "auth.ingress.jwt.jwks_file", Zero::Means("Empty: no JWTs."),
        "The public keys of the issuer of JWTs, as a JWKS (RFC 7517). With it, bearer tokens may be JWTs. It is read \
         again when it changes.",
        "Set it if senders have JWTs of an identity provider.";
    auth_ingress_jwt_audiences: Vec<String> = Vec::new(), "auth.ingress.jwt.audiences", Zero::Means("Empty: none."),
        "The audiences of which a JWT must name one. If the list is empty, a JWT must not name any.",
        "Set it to the audience that the issuer puts into tokens for Tenantry.";
    auth_ingress_jwt_issuers: Vec<String> = Vec::new(), "auth.ingress.jwt.issuers", Zero::Means("Empty: any."),
        "The issuers of which a JWT must be by one.",
        "Set it if the keys are also used by issuers that you do not trust here.";
    auth_ingress_jwt_leeway: Duration = Duration::from_secs(30), "auth.ingress.jwt.leeway",
        Zero::Means("0s: none."),
        "How far the issuer's clock may differ, in whole seconds, for the times in JWTs.",
        "Lower it if the clocks are synchronized.";
    auth_ingress_jwt_tenants_claim: String = String::new(), "auth.ingress.jwt.tenants_claim",
        Zero::Means("Empty: JWTs name no tenants."),
        "The claim of a JWT that names its tenants, as a text or a list, for access rules with `from: jwt`. Dots lead \
         into objects: `resource.tenants`.",
        "Set it if the issuer decides about tenants.";
    auth_admin_web_config_file: String = String::new(), "auth.admin.web_config_file",
        Zero::Means("Empty: none."),
        "A web configuration file like auth.ingress.web_config_file, for listen_metrics_address and listen_pprof. It \
         may be the same file.",
        "Set it if /metrics is scraped over an untrusted network.";
    auth_admin_tokens_file: String = String::new(), "auth.admin.tokens_file", Zero::Means("Empty: none."),
        "A file like auth.ingress.tokens_file, for listen_metrics_address and listen_pprof. It may be the same file.",
        "Set it if the scraper has a bearer token.";
    access: String = String::new(), "access", Zero::Means("Empty: every sender may write to every tenant."),
        "A YAML list of rules about which credentials may write to which tenants. The first rule that is for a \
         credential decides; without one, it may write to none. It is read again when it changes.",
        "Set it if senders of several teams must not write to each other's tenants.";
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
    remote_write_v2: Option<V2Handling> = Some(V2Handling::Pass), "remote_write_v2", Zero::Nothing,
        "What happens to Remote Write 2.0. pass: it is forwarded as 2.0. downgrade: it is forwarded as 1.0, without \
         what 1.0 cannot express (start timestamps, histograms with custom buckets). refuse: the answer is 415. \
         Prometheus 3 does not fall back to 1.0 after a 415: it drops the data.",
        "Set it to downgrade if the upstream supports only 1.0, as VictoriaMetrics does. Use refuse only for \
         senders that are known to fall back.";
    remote_write_v2_require_written: bool = false, "remote_write_v2_require_written", Zero::Nothing,
        "Treats an upstream's 2xx to Remote Write 2.0 as 502 if it does not say how much was written although there \
         was something to write. By the specification, nothing may have been written then. Such parts are not spooled. \
         Such answers are logged and counted in any case.",
        "Switch it on if the upstream is known to say how much it wrote. With an upstream that never does, senders \
         repeat the same data for ever.";
    upstream_pass_headers: Vec<String> = Vec::new(), "upstream.pass_headers", Zero::Means("Empty: none."),
        "The names of headers that are passed on to the upstream as they came, because they change what it does. \
         Requests that differ in them are never merged.",
        "Set it, for example, to [X-Loki-Backfill-Shard] while you backfill a Loki.";
    upstream_headers: StaticHeaders = StaticHeaders::default(), "upstream.headers", Zero::Means("Empty: none."),
        "Headers that every request to the target carries: a section of `Name: value`. In the variable, items \
         `Name: value` are separated by commas. The values are never shown.",
        "Set it if a gateway in front of the target asks for a header, such as an API key.";
    upstreams: String = String::new(), "upstreams", Zero::Means("Empty: there is one upstream, that of the targets."),
        "A file of further upstreams. Each has a name, the tenants that go to it, and what it does not share with the \
         main configuration: targets, headers, credentials, TLS.",
        "Set it if one Tenantry feeds several clusters.";
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
    tenant_attributes: Vec<String> = Vec::new(), "tenant.attributes",
        Zero::Means("Empty: those that tenant.label or tenant.label_list name."),
        "The attributes that name the tenant in OTLP. If the resource has several of them, the first in the list counts; \
         if it has none, those of the scope count, and then those of each data point, log record or span. Whole numbers \
         and truth values name a tenant, too.",
        "Set it when senders push by OTLP: to [tenant, k8s.namespace.name], for example.";
    tenant_attribute_remove: bool = false, "tenant.attribute_remove", Zero::Nothing,
        "Removes the attribute that named the tenant from resources. Attributes of scopes and items are never removed.",
        "Leave it off unless the attribute must not be stored. With it on, no request can be forwarded unchanged.";
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
        "The number of worker threads. If it is the number of CPUs, each is pinned to one.",
        "Lower it if the machine has other work to do.";
    driver: DriverChoice = DriverChoice::Auto, "driver", Zero::Nothing,
        "How sockets are driven. auto: io_uring if the kernel allows it, else epoll. io_uring: only io_uring, and \
         no start without it. epoll: always epoll.",
        "Set it to epoll if the kernel's io_uring misbehaves.";
    merge_inflight_max: Auto<usize> = Auto(None), "merge.inflight_max",
        Zero::Refused("must be at least 1; the default is auto"),
        "How many requests of one tenant are on their way at once. Data that arrives meanwhile waits and is sent as \
         one request. Once it fills a request (merge.inflated_bytes_max), it no longer waits. auto: one, and up to two \
         more while the upstream answers well; data then waits for a fraction of the time that an answer takes.",
        "Set it to 1 if the upstream suffers from many small requests. Raise it if the upstream is far away.";
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
    spool_dir: String = String::new(), "spool.dir", Zero::Means("Empty: nothing is spooled."),
        "A folder of its own for the spool. Parts that an upstream fails to take are written there, and the sender is \
         told that they are stored. They are sent, in order, once the upstream takes them.",
        "Set it if one tenant's outage must not hold up the other tenants of a Prometheus. Put it on a disk that stays.";
    spool_bytes_max: ByteSize = ByteSize(10 << 30), "spool.bytes_max",
        Zero::Refused("must be at least 64Mi; the default is 10Gi"),
        "The most that the spool's files may hold. Beyond it parts get 503, and nothing that is stored is thrown away.",
        "Set it to what the longest outage needs, and below what the disk has.";
    spool_tenant_bytes_max: ByteSize = ByteSize(2 << 30), "spool.tenant_bytes_max",
        Zero::Refused("must be at least 1; the default is 2Gi"),
        "The most that the spooled parts of one tenant may hold. Beyond it its parts get 503.",
        "Raise it if one tenant is much larger than the others.";
    spool_age_max: Duration = Duration::from_secs(24 * 3600), "spool.age_max",
        Zero::Refused("must be more than 0; the default is 24h"),
        "No more parts of a tenant are spooled while its oldest one is older than this. Its parts get 503.",
        "Set it to how old samples may be that the upstream still takes.";
    spool_fsync: Fsync = Fsync::Always, "spool.fsync", Zero::Nothing,
        "When spooled parts are made durable. always: before the sender is told. interval: every second, so that a \
         crash of the machine may lose the last second.",
        "Set it to interval if the disk is too slow, and senders' data may be lost with the machine.";
    spool_when: SpoolWhen = SpoolWhen::Failing, "spool.when", Zero::Nothing,
        "Which parts are spooled. failing: those that the upstream fails to take (5xx, no connection, no answer), and \
         what comes behind them. always: all, before they are sent.",
        "Leave it at failing: then the spool costs nothing while all is well.";
    spool_on_429: bool = false, "spool.on_429", Zero::Nothing,
        "Spools parts that the upstream answers with 429, too, instead of telling the sender to slow down.",
        "Switch it on if one tenant's rate limit must not slow the others of its Prometheus.";
    spool_dead_letter: String = String::new(), "spool.dead_letter",
        Zero::Means("Empty: they are dropped, counted and logged."),
        "A file for spooled parts that the upstream refuses for good when they are sent. `tenantry spool cat` prints it. \
         It holds 1Gi at most: then such parts stay in the spool until it is moved away, with what is behind them.",
        "Set it if such data has to be looked at.";
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

/// The default of `target_loki`, as in cortex-tenant.
const TARGET_LOKI_DEFAULT: &str = "127.0.0.1:3100";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
    fn every_variable_of_cortex_tenant_is_known() {
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
}
