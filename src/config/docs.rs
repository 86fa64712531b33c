//! The settings' documentation: the default configuration with comments, the tables of `configs/README.md`, and what
//! the manual page is made of.
//!
//! All are generated from [`KEYS`], so no key can be missing and no default can be stale. `tests/config.rs` compares
//! the files with the text generated here, and rewrites them if `UPDATE_DOCS` is set.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::key::{Key, Zero};
use super::keys::KEYS;
use super::spool;

/// Maximum width of the comments in the printed configuration.
const PRINTED_COLUMNS_MAX: usize = 100;

/// A group of settings with a table of its own.
struct Topic {
    title: &'static str,
    /// The settings' paths, in the order of the table.
    paths: &'static [&'static str],
}

/// Every key is in exactly one topic; a test checks this.
const TOPICS: &[Topic] = &[
    Topic { title: "Listening", paths: &["listen", "listen_metrics_address", "listen_pprof"] },
    Topic {
        title: "Upstream",
        paths: &[
            "target",
            "target_loki",
            "target_otlp_metrics",
            "target_otlp_metrics_coding",
            "target_otlp_logs",
            "target_otlp_logs_coding",
            "target_otlp_traces",
            "target_otlp_traces_coding",
            "enable_ipv6",
            "resolve_interval",
            "max_conns_per_host",
            "max_connection_duration",
            "upstream.headers",
            "upstream.pass_headers",
            "upstreams",
        ],
    },
    Topic {
        title: "Tenants",
        paths: &[
            "tenant.label",
            "tenant.label_list",
            "tenant.label_remove",
            "tenant.loki_label_remove",
            "tenant.attributes",
            "tenant.attribute_remove",
            "tenant.header",
            "tenant.default",
            "tenant.on_missing",
            "tenant.id_rules",
            "tenant.on_invalid",
            "tenant.prefix",
            "tenant.prefix_prefer_source",
            "tenant.map",
            "tenant.allow",
            "tenant.accept_all",
        ],
    },
    Topic {
        title: "Remote Write 2.0 and metadata",
        paths: &["remote_write_v2", "remote_write_v2_require_written", "metadata"],
    },
    Topic {
        title: "Timeouts and retries",
        paths: &["timeout", "idle_timeout", "timeout_shutdown", "retry_after_max"],
    },
    Topic {
        title: "Limits",
        paths: &[
            "concurrency",
            "limits.in_flight_bytes_max",
            "limits.tenant_share_percent",
            "limits.slow_share_percent",
            "limits.connections_max",
            "limits.tenants_max",
            "limits.tenants_per_request_max",
            "limits.head_bytes_max",
            "limits.body_bytes_max",
            "limits.inflated_bytes_max",
        ],
    },
    Topic {
        title: "Merging",
        paths: &[
            "merge.inflight_max",
            "merge.linger",
            "merge.fragments_max",
            "merge.inflated_bytes_max",
            "merge.ha_cluster_label",
            "merge.ha_replica_label",
        ],
    },
    Topic { title: "Receipts", paths: &["receipts.keep", "receipts.bytes_max"] },
    Topic { title: "The spool", paths: &spool::PATHS },
    Topic { title: "Threads", paths: &["cores", "driver"] },
    Topic {
        title: "Logs and metrics",
        paths: &[
            "log_level",
            "log_format",
            "log_response_errors",
            "access_log.enabled",
            "access_log.status_min",
            "access_log.duration_min",
            "access_log.sample_one_in",
            "metrics_include_tenant",
            "metrics_tenant_idle",
            "metrics_tenant_histograms_max",
        ],
    },
    Topic { title: "Traces", paths: &["tracing.otlp.endpoint", "tracing.sample_one_in"] },
    Topic {
        title: "Authentication and TLS",
        paths: &[
            "auth.egress.username",
            "auth.egress.password",
            "auth.egress.password_file",
            "auth.egress.bearer_token",
            "auth.egress.bearer_token_file",
            "auth.egress.tls_config.ca_bundle_file",
            "auth.egress.tls_config.cert_file",
            "auth.egress.tls_config.key_file",
            "auth.egress.tls_config.server_name",
            "auth.egress.tls_config.insecure_skip_verify",
            "auth.ingress.tls_config.cert_file",
            "auth.ingress.tls_config.key_file",
            "auth.ingress.tls_config.more_certificates",
            "auth.ingress.tls_config.client_ca_file",
            "auth.ingress.tls_config.client_auth",
            "auth.ingress.tls_config.min_version",
            "auth.ingress.tls_config.cipher_suites",
            "auth.ingress.web_config_file",
            "auth.ingress.tokens_file",
            "auth.ingress.jwt.jwks_file",
            "auth.ingress.jwt.audiences",
            "auth.ingress.jwt.issuers",
            "auth.ingress.jwt.leeway",
            "auth.ingress.jwt.tenants_claim",
            "access",
            "auth.admin.web_config_file",
            "auth.admin.tokens_file",
        ],
    },
];

/// What the documentation says about a key. Code is between backticks.
#[derive(Debug)]
pub struct Documented {
    /// Its path, with dots.
    pub path: &'static str,
    /// Its variable.
    pub variable: String,
    /// Its default as YAML.
    pub default: String,
    /// What 0 or an empty value means; may be empty.
    pub zero: String,
    /// What it does.
    pub what: String,
    /// When to change it.
    pub who: String,
}

impl Documented {
    fn new(key: &Key) -> Self {
        let zero = match key.zero {
            Zero::IsDefault => "0 or empty: the default.".to_owned(),
            Zero::EmptyIsDefault => "Empty: the default.".to_owned(),
            Zero::Means(meaning) => meaning.to_owned(),
            // The text after the semicolon is advice for correcting the mistake.
            Zero::Refused(demand) => format!("It {}.", demand.split(';').next().unwrap_or(demand)),
            Zero::Nothing => String::new(),
        };
        Self {
            path: key.path,
            variable: key.variable(),
            default: (key.default)(),
            zero: marked(&zero),
            what: marked(key.what),
            who: marked(key.who),
        }
    }
}

/// The settings by topic, in the order of the tables.
pub fn documented() -> impl Iterator<Item = (&'static str, Vec<Documented>)> {
    TOPICS.iter().map(|topic| {
        let keys = topic.paths.iter().filter_map(|path| KEYS.iter().find(|key| key.path == *path));
        (topic.title, keys.map(Documented::new).collect())
    })
}

/// The settings as Markdown: a heading and a table for each topic, a row for each key.
pub fn settings_tables() -> String {
    let mut tables = String::new();
    for (title, keys) in documented() {
        let _ = write!(
            tables,
            "### {title}\n\n| Setting | Default | Effect | When to change it |\n|---|---|---|---|\n",
        );
        for key in &keys {
            // Writing to a String can't fail, here and above.
            let _ = writeln!(tables, "{}", row(key));
        }
        tables.push('\n');
    }
    tables
}

fn row(key: &Documented) -> String {
    let Documented { path, variable, default, zero, what, who } = key;
    let default = if zero.is_empty() { format!("`{default}`") } else { format!("`{default}`. {zero}") };
    let cells = [&format!("`{path}`<br>`{variable}`"), &default, what, who];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// Formats names of other settings in `text` as code. A name without an underscore or a dot is left alone: it could be
/// an ordinary word.
fn marked(text: &str) -> String {
    let marked = text.split(' ').map(|word| {
        let name = word.trim_matches(['(', ')', '.', ',', ':', ';']);
        let is_key = name.contains(['.', '_']) && KEYS.iter().any(|key| key.path == name);
        if is_key { word.replace(name, &format!("`{name}`")) } else { word.to_owned() }
    });
    marked.collect::<Vec<_>>().join(" ")
}

/// The whole configuration with its defaults as commented YAML. Each key's comment says what it does, what 0 or an
/// empty value means, when to change it, and its variable.
pub fn print_defaults() -> String {
    let mut text = String::from(
        "# All settings of Tenantry with their defaults. Each can also be set by the environment variable in\n\
         # brackets, which wins over this file. An empty variable counts as not set.\n\
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Config;
    use crate::config::mistake::Origin;
    use crate::config::source::Sources;

    #[test]
    fn every_key_is_in_one_topic() {
        let mut told: Vec<_> = TOPICS.iter().flat_map(|topic| topic.paths).copied().collect();
        let mut known: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn each_row_of_the_tables_has_four_cells() {
        let tables = settings_tables();
        let rows: Vec<_> = tables.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), KEYS.len());
        for row in rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        }
    }

    #[test]
    fn sections_are_printed_in_one_piece() {
        let printed = print_defaults();
        for section in ["auth:", "  egress:", "upstream:", "tenant:", "merge:", "limits:"] {
            assert_eq!(printed.lines().filter(|line| *line == section).count(), 1, "{section}");
        }
    }

    #[test]
    fn the_printed_configuration_is_the_defaults() {
        let mut sources = Sources::new(KEYS, &print_defaults(), []);
        let config = Config::read(&mut sources);
        assert_eq!(sources.mistakes, []);
        let defaults = Config::read(&mut Sources::new(KEYS, "", []));
        assert_eq!(config.effective().to_string(), defaults.effective().to_string());
        // Checks that the values were read, not left out: each key has a line with its value.
        let mut sources = Sources::new(KEYS, &print_defaults(), []);
        for key in KEYS {
            let origin = sources.setting(key, String::from("unread")).origin;
            let is_empty = ["[]", "{}"].contains(&&*(key.default)());
            assert!(matches!(origin, Origin::Line(_)) || is_empty, "{}: {origin:?}", key.path);
        }
    }

    #[test]
    fn the_printed_configuration_documents_every_key() {
        let printed = print_defaults();
        assert!(printed.lines().all(|line| line.chars().count() <= 105), "fits a terminal");
        assert!(printed.lines().all(|line| line.trim_end() == line), "no blanks at line ends");
        for key in KEYS {
            assert!(printed.contains(&format!("[{}]", key.variable())), "{}", key.path);
            assert!(key.what.ends_with('.') && key.who.ends_with('.'), "{}: whole sentences", key.path);
        }
    }
}
