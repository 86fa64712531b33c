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
mod reader;
mod tls;
mod users;

use std::path::Path;

use self::reader::Reader;
pub use self::tls::{CipherSuite, ClientAuth, Curve, InlinePem, Pem, TlsVersion, WebTls};
use super::mistake::{ConfigMistakes, Mistake};
use super::yaml;
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

#[cfg(test)]
mod tests;
