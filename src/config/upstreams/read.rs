//! The file of `upstreams`: a YAML list.
//!
//! ```yaml
//! - name: eu
//!   tenants: [eu-*, berlin]                      # as in tenant.allow; the first upstream that matches has a tenant
//!   target: https://mimir.eu/api/v1/push
//!   target_loki: https://loki.eu/loki/api/v1/push
//!   target_otlp_traces: https://tempo.eu/v1/traces   # and target_otlp_metrics, target_otlp_logs
//!   target_otlp_traces_coding: gzip
//!   headers: {X-Api-Key: abc}
//!   username: tenantry                           # or bearer_token, bearer_token_file
//!   password_file: /secrets/eu                   # or password
//!   tls_config: {ca_bundle_file: /etc/eu.pem}    # the keys of auth.egress.tls_config
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::PathBuf;

use crate::auth::Secret;
use crate::config::credentials::{CredentialKey, Given};
use crate::config::excerpt::found;
use crate::config::mistake::Mistake;
use crate::config::static_headers::StaticHeaders;
use crate::config::target::Target;
use crate::config::value::{Value, Written};
use crate::config::yaml::{self, Content, Name, Node};
use crate::limits::{UPSTREAM_NAME_BYTES_MAX, UPSTREAMS_MAX};
use crate::model::{Destination, PerDestination, TargetCoding};
use crate::tls::client::ClientSettings;
use crate::tls::material::CertificateFiles;

/// The name of the main upstream.
pub(super) const MAIN: &str = "default";

/// An upstream as written.
#[derive(Debug, Default)]
pub(in crate::config) struct Entry {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) tenants: Vec<String>,
    pub(super) targets: PerDestination<Option<Target>>,
    pub(super) codings: PerDestination<Option<TargetCoding>>,
    pub(super) headers: Option<StaticHeaders>,
    pub(super) credentials: Given,
    pub(super) tls: Option<ClientSettings>,
    /// The line of each key. Those of TLS begin with `tls_config.`.
    lines: HashMap<String, usize>,
}

impl Entry {
    /// The line of a key, or that of the upstream if it does not have the key.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.line)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }
}

/// Parses the text. The upstreams are complete only if no mistake was added.
pub(in crate::config) fn read(text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Entry> {
    let mut reader = Reader { mistakes, entries: Vec::new() };
    match yaml::read(text) {
        Ok(document) => reader.document(document),
        Err(fault) => reader.mistakes.push(Mistake::in_line(fault.line, "", fault.text)),
    }
    reader.entries
}

struct Reader<'a> {
    mistakes: &'a mut Vec<Mistake>,
    entries: Vec<Entry>,
}

impl Reader<'_> {
    fn document(&mut self, document: Node) {
        let line = document.line;
        match document.content {
            Content::List(items) => items.into_iter().for_each(|item| self.entry(item)),
            Content::Null => {}
            Content::Text(_) | Content::Map(_) => {
                let text = format!("wants a list of upstreams (`- name: …`), not {}", document.kind());
                self.mistake(line, "", text);
            }
        }
        if self.entries.len() > UPSTREAMS_MAX {
            self.mistake(
                line,
                "",
                format!("there are more than the {UPSTREAMS_MAX} upstreams that are possible"),
            );
        }
    }

    fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    fn entry(&mut self, item: Node) {
        let (line, kind) = (item.line, item.kind());
        let Content::Map(keys) = item.content else {
            return self.mistake(
                line,
                "",
                format!("an upstream wants keys with values (`name: …`), not {kind}"),
            );
        };
        let mut entry = Entry { line, ..Entry::default() };
        for (name, node) in keys {
            if self.is_new(&mut entry, &name.text, &name) {
                self.key(&mut entry, &name, &node);
            }
        }
        for key in ["name", "tenants"] {
            if !entry.has(key) {
                self.mistake(line, "", format!("`{key}` is missing"));
            }
        }
        self.entries.push(entry);
    }

    /// Remembers the line of a key, unless it was given before.
    fn is_new(&mut self, entry: &mut Entry, key: &str, name: &Name) -> bool {
        if let Some(first) = entry.lines.get(key) {
            let text = format!("given twice, first on line {first}; keep one of the two");
            self.mistake(name.line, key, text);
            return false;
        }
        entry.lines.insert(key.to_owned(), name.line);
        true
    }

    fn key(&mut self, entry: &mut Entry, name: &Name, node: &Node) {
        let key = name.text.as_str();
        if let Some(to) = Destination::ALL.into_iter().find(|to| to.key() == key) {
            return self.target(entry, to, name, node);
        }
        let coded = key.strip_suffix("_coding");
        let of_signals = Destination::ALL.into_iter().filter(|to| to.signal().is_some());
        if let Some(to) = of_signals.into_iter().find(|to| Some(to.key()) == coded) {
            return self.coding(entry, to, name, node);
        }
        match key {
            "name" => entry.name = self.name(name, node),
            "tenants" => entry.tenants = self.tenants(name, node),
            "headers" => match StaticHeaders::read(node) {
                Ok(headers) => entry.headers = Some(headers),
                Err(text) => self.mistake(name.line, key, text),
            },
            "tls_config" => self.tls(entry, name, node),
            _ if CredentialKey::ALL.iter().any(|credential| credential.name() == key) => {
                self.credential(entry, name, node);
            }
            _ => {
                let text = "unknown key; an upstream has name, tenants, target, target_loki, target_otlp_metrics, \
                            target_otlp_logs, target_otlp_traces, each of these with _coding, headers, username, \
                            password, password_file, bearer_token, bearer_token_file and tls_config";
                self.mistake(name.line, key, text);
            }
        }
    }

    /// A text. An empty one is a mistake: whether it means none or the value of the main configuration is unclear.
    fn text<'n>(&mut self, line: usize, key: &str, node: &'n Node) -> Option<&'n str> {
        match &node.content {
            Content::Text(text) if !text.is_empty() => return Some(text),
            Content::Text(_) => self.mistake(line, key, "is empty: remove it"),
            _ => self.mistake(line, key, format!("wants a single value, not {}", node.kind())),
        }
        None
    }

    fn name(&mut self, name: &Name, node: &Node) -> String {
        let Some(text) = self.text(name.line, "name", node) else { return String::new() };
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_plain || text.len() > UPSTREAM_NAME_BYTES_MAX {
            let text = format!(
                "{} is not a name: it has 1 to {UPSTREAM_NAME_BYTES_MAX} of the characters A-Z, a-z, 0-9, `-`, `_` and `.`",
                found(text)
            );
            self.mistake(name.line, "name", text);
        } else if text == MAIN {
            self.mistake(
                name.line,
                "name",
                "`default` is the upstream of the main configuration: choose another",
            );
        } else if let Some(other) = self.entries.iter().find(|other| other.name == text) {
            let text = format!("the upstream on line {} has the same name", other.line);
            self.mistake(name.line, "name", text);
        }
        text.to_owned()
    }

    fn tenants(&mut self, name: &Name, node: &Node) -> Vec<String> {
        let (line, key) = (name.line, "tenants");
        let tenants = match <Vec<String> as Value>::read(Written::Yaml(node)) {
            Ok(tenants) => tenants,
            Err(text) => {
                self.mistake(line, key, text);
                return Vec::new();
            }
        };
        if tenants.is_empty() {
            self.mistake(line, key, "there are no tenants: name some, or remove the upstream");
        }
        for (at, pattern) in tenants.iter().enumerate() {
            let has = |list: &[String]| list.contains(pattern);
            if pattern.is_empty() {
                self.mistake(line, key, "a tenant's ID is empty: remove it");
            } else if tenants.get(..at).is_some_and(has) {
                self.mistake(line, key, format!("{} is listed twice: remove one", found(pattern)));
            } else if let Some(earlier) = self.entries.iter().find(|entry| has(&entry.tenants)) {
                let text =
                    format!("{} never applies: the upstream on line {} has it", found(pattern), earlier.line);
                self.mistake(line, key, text);
            }
        }
        tenants
    }

    fn target(&mut self, entry: &mut Entry, destination: Destination, name: &Name, node: &Node) {
        let Some(text) = self.text(name.line, &name.text, node) else { return };
        match Target::parse(text) {
            Ok(target) => {
                *entry.targets.of_mut(destination) = Some(target);
            }
            Err(text) => self.mistake(name.line, &name.text, text),
        }
    }

    fn coding(&mut self, entry: &mut Entry, destination: Destination, name: &Name, node: &Node) {
        match <TargetCoding as Value>::read(Written::Yaml(node)) {
            Ok(coding) => *entry.codings.of_mut(destination) = Some(coding),
            Err(text) => self.mistake(name.line, &name.text, text),
        }
    }

    fn credential(&mut self, entry: &mut Entry, name: &Name, node: &Node) {
        let Some(text) = self.text(name.line, &name.text, node) else { return };
        let given = &mut entry.credentials;
        match name.text.as_str() {
            "username" => given.username = text.to_owned(),
            "password" => given.password = Secret::new(text),
            "password_file" => given.password_file = text.to_owned(),
            "bearer_token" => given.bearer_token = Secret::new(text),
            _ => given.bearer_token_file = text.to_owned(),
        }
    }

    fn tls(&mut self, entry: &mut Entry, name: &Name, node: &Node) {
        let Content::Map(keys) = &node.content else {
            let text = format!("is a section: wants keys indented under it, not {}", node.kind());
            return self.mistake(name.line, "tls_config", text);
        };
        let (mut settings, mut certificate, mut private_key) = (ClientSettings::default(), None, None);
        for (name, node) in keys {
            let key = format!("tls_config.{}", name.text);
            if !self.is_new(entry, &key, name) {
                continue;
            }
            match name.text.as_str() {
                "ca_bundle_file" => settings.ca = self.text(name.line, &key, node).map(PathBuf::from),
                "cert_file" => certificate = self.text(name.line, &key, node).map(PathBuf::from),
                "key_file" => private_key = self.text(name.line, &key, node).map(PathBuf::from),
                "server_name" => settings.server_name = self.text(name.line, &key, node).map(str::to_owned),
                "insecure_skip_verify" => match <bool as Value>::read(Written::Yaml(node)) {
                    Ok(value) => settings.insecure_skip_verify = value,
                    Err(text) => self.mistake(name.line, &key, text),
                },
                _ => {
                    let text = "unknown key; tls_config has ca_bundle_file, cert_file, key_file, server_name and \
                                insecure_skip_verify";
                    self.mistake(name.line, &key, text);
                }
            }
        }
        for (key, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
            let has = |key: &str| entry.has(&format!("tls_config.{key}"));
            if has(key) && !has(other) {
                let text =
                    format!("tls_config.{key} is set, but tls_config.{other} is not: set both or none");
                self.mistake(entry.line_of(&format!("tls_config.{key}")), &format!("tls_config.{key}"), text);
            }
        }
        settings.certificate =
            certificate.zip(private_key).map(|(certificate, key)| CertificateFiles { certificate, key });
        entry.tls = Some(settings);
    }
}
