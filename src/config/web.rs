//! Prometheus' web configuration file (`web.config.file`), as its exporter-toolkit documents it
//! (docs/web-configuration.md).
//!
//! ```yaml
//! tls_server_config:
//!   cert_file: server.crt        # relative to the directory of this file
//!   key_file: server.key
//!   client_auth_type: RequireAndVerifyClientCert
//!   client_ca_file: ca.crt
//! basic_auth_users:
//!   alice: $2y$10$…              # bcrypt
//! ```
//!
//! What the toolkit accepts is accepted, and what it refuses is refused. What means nothing here, such as HTTP/2 or a
//! cipher suite that rustls lacks, is named in a notice. Stricter than the toolkit are only rules that keep a server
//! from being open by mistake; see `tls` and `users`.
#![forbid(unsafe_code)]

mod http;
mod tls;
mod users;

use std::path::{Path, PathBuf};

pub use self::tls::{CipherSuite, ClientAuth, Curve, Pem, TlsVersion, WebTls};
use super::mistake::{ConfigMistakes, Mistake};
use super::value::{Value, Written};
use super::yaml::{self, Content, Name, Node};
use crate::auth::password::Users;

/// A web configuration.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct WebConfig {
    /// TLS; `None` means plain HTTP.
    pub tls: Option<WebTls>,
    /// Headers to add to every response: name and value, in the order of the file.
    pub headers: Vec<(&'static str, String)>,
    /// Users. If there are none, no password is needed.
    pub users: Users,
    /// What is accepted, but has no effect or another one than in Prometheus. One line each.
    pub notices: Vec<String>,
}

/// Parses the `text` of a web configuration file. `file` is its path, used in errors and for paths relative to it. No
/// file is read.
///
/// # Errors
/// All mistakes, each with its line and key. They quote no secret.
pub fn read_web_config(file: &str, text: &str) -> Result<WebConfig, ConfigMistakes> {
    let mut reader = Reader {
        file,
        directory: Path::new(file).parent().unwrap_or(Path::new("")),
        mistakes: Vec::new(),
        notices: Vec::new(),
    };
    let mut web = WebConfig::default();
    match yaml::read(text) {
        Ok(document) => {
            for (name, node) in reader.section("", document) {
                match name.text.as_str() {
                    "tls_server_config" => web.tls = tls::read(&mut reader, node),
                    "http_server_config" => web.headers = http::read(&mut reader, node),
                    "basic_auth_users" => web.users = users::read(&mut reader, node),
                    "rate_limit" => http::rate_limit(&mut reader, node),
                    _ => reader.unknown("", &name),
                }
            }
        }
        Err(fault) => reader.mistakes.push(Mistake::in_line(fault.line, "", fault.text)),
    }
    if !reader.mistakes.is_empty() {
        return Err(ConfigMistakes::new(file, reader.mistakes));
    }
    web.notices = reader.notices;
    Ok(web)
}

struct Reader<'a> {
    file: &'a str,
    directory: &'a Path,
    mistakes: Vec<Mistake>,
    notices: Vec<String>,
}

impl Reader<'_> {
    fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    fn notice(&mut self, line: usize, key: &str, text: impl std::fmt::Display) {
        self.notices.push(format!("{}:{line}: {key}: {text}", self.file));
    }

    fn unknown(&mut self, section: &str, name: &Name) {
        self.mistake(name.line, &path(section, &name.text), "unknown key");
    }

    /// The entries of a section, each key once. None for an empty one.
    fn section(&mut self, key: &str, node: Node) -> Vec<(Name, Node)> {
        let (line, kind) = (node.line, node.kind());
        let entries = match node.content {
            Content::Map(entries) => entries,
            Content::Null => return Vec::new(),
            Content::Text(_) | Content::List(_) => {
                self.mistake(line, key, format!("wants a section, not {kind}"));
                return Vec::new();
            }
        };
        let mut once: Vec<(Name, Node)> = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            match once.iter().find(|(earlier, _)| earlier.text == name.text) {
                Some((earlier, _)) => {
                    let text = format!("is already on line {}", earlier.line);
                    self.mistake(name.line, &path(key, &name.text), text);
                }
                None => once.push((name, node)),
            }
        }
        once
    }

    /// A value. `None` if it is unset or a mistake.
    fn value<T: Value>(&mut self, key: &str, node: &Node) -> Option<T> {
        if node.content == Content::Null {
            return None;
        }
        match T::read(Written::Yaml(node)) {
            Ok(value) => Some(value),
            Err(text) => {
                self.mistake(node.line, key, text);
                None
            }
        }
    }

    /// A text that may be secret, so that an error does not quote it. An empty one is unset.
    fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.content {
            Content::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Content::Null => None,
            Content::List(_) | Content::Map(_) => {
                self.mistake(node.line, key, format!("wants a single value, not {}", node.kind()));
                None
            }
        }
    }

    /// The path of a file, relative to the directory of the web configuration.
    fn path(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.text(key, node).map(|text| self.directory.join(text))
    }

    /// The words of a list, with their lines.
    fn list(&mut self, key: &str, node: &Node) -> Vec<(usize, String)> {
        let items = match &node.content {
            Content::List(items) => items,
            Content::Null => return Vec::new(),
            Content::Text(_) | Content::Map(_) => {
                self.mistake(node.line, key, format!("wants a list, not {}", node.kind()));
                return Vec::new();
            }
        };
        let word = |item: &Node| self.value::<String>(key, item).map(|word| (item.line, word));
        items.iter().filter_map(word).collect()
    }
}

/// The full path of a key, for errors.
fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

#[cfg(test)]
mod tests;
