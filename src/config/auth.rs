//! What requests are authenticated by, read from the files that the settings name.
//!
//! # Constraints
//! * The files are read together with the configuration, and again when they change, on a thread that may block. Every
//!   mistake in them is reported with it.
//! * Credentials outlive a reload: what has not changed keeps what it remembers, so that a reload does not make all
//!   senders prove themselves again at once. What has changed forgets everything, so a password that was revoked is
//!   refused at once.
//! * A plan whose authentication was not started must not let requests in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::access::{Credentials, read_access};
use super::file::read_file;
use super::jwks::read_jwks;
use super::mistake::ConfigMistakes;
use super::tokens::read_tokens;
use super::web::{InlinePem, WebConfig, read_web_config};
use crate::auth::jwt::Keys;
use crate::auth::password::{Deliver, Users};
use crate::auth::{Access, Authenticator, Demand, JwtRules, Jwts, Methods, Passwords, Tokens};
use crate::tenant::IdRules;
use crate::tls::server::ServerSettings;

/// The settings of authentication, by which the files can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuthSettings {
    /// Prometheus' web configuration: users, TLS and headers.
    pub(super) web: Option<PathBuf>,
    /// Bearer tokens.
    pub(super) tokens: Option<PathBuf>,
    /// The issuer's keys, and what its JWTs have to fulfil.
    pub(super) jwts: Option<(PathBuf, JwtRules)>,
    /// Which credentials may write to which tenants.
    pub(super) access: Option<AccessSettings>,
}

/// The settings of access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessSettings {
    pub(super) file: PathBuf,
    /// Whether `auth.ingress.tls_config` verifies certificates.
    pub(super) verifies_certificates: bool,
    pub(super) has_tenant_header: bool,
    pub(super) id_rules: IdRules,
}

/// A file of [`AuthSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthFile {
    Web,
    Tokens,
    Jwks,
    Access,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum AuthMistake {
    /// It cannot be read.
    Unreadable(AuthFile, String),
    /// Its content.
    Content(ConfigMistakes),
}

/// What requests are authenticated by.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    content: Arc<Content>,
    /// Set by [`start`](Self::start).
    started: OnceLock<Started>,
}

/// The content of the files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    users: Users,
    tokens: Tokens,
    jwts: Option<(Keys, JwtRules)>,
    access: Option<Arc<Access>>,
    /// Lines to add to every response, each with its CRLF.
    header_lines: String,
}

/// What checks credentials.
#[derive(Clone, Debug)]
struct Started {
    authenticator: Arc<Authenticator>,
    passwords: Option<Arc<Passwords>>,
    jwts: Option<Arc<Jwts>>,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct ReadAuth {
    pub(super) auth: Auth,
    /// The TLS of the web configuration, and what it has inline.
    pub(super) tls: Option<(ServerSettings, InlinePem)>,
    /// The files that were read.
    pub(super) files: Vec<PathBuf>,
    pub(super) notices: Vec<String>,
}

impl Auth {
    /// Starts what checks credentials. It takes over from `running` what has not changed. `deliver` takes the verdicts
    /// about passwords to the threads that asked.
    ///
    /// # Errors
    /// If the operating system gives no threads or no random numbers.
    pub fn start(&self, running: Option<&Self>, deliver: &Arc<Deliver>) -> io::Result<()> {
        let content = &self.content;
        let before = running.and_then(|running| Some((&running.content, running.started.get()?)));
        let passwords = match before {
            _ if content.users.is_empty() => None,
            Some((old, started)) if old.users == content.users => started.passwords.clone(),
            _ => Some(Arc::new(Passwords::start(content.users.clone(), Arc::clone(deliver))?)),
        };
        let jwts = match (before, &content.jwts) {
            (_, None) => None,
            (Some((old, started)), Some(_)) if old.jwts == content.jwts => started.jwts.clone(),
            (_, Some((keys, rules))) => Some(Arc::new(Jwts::new(keys.clone(), rules.clone())?)),
        };
        let authenticator = Arc::new(Authenticator::new(Methods {
            passwords: passwords.clone(),
            tokens: content.tokens.clone(),
            jwts: jwts.clone(),
            demand: content.access.as_ref().map_or(Demand::Login, |access| access.demand()),
        }));
        let _ = self.started.set(Started { authenticator, passwords, jwts });
        Ok(())
    }

    /// What checks credentials. `None` before [`start`](Self::start): then no request may be let in.
    pub fn authenticator(&self) -> Option<&Arc<Authenticator>> {
        self.started.get().map(|started| &started.authenticator)
    }

    /// The access rules. Without them every credential may write to every tenant.
    pub fn access(&self) -> Option<&Access> {
        self.content.access.as_deref()
    }

    /// Headers of every response, each line with its CRLF.
    pub fn header_lines(&self) -> &str {
        &self.content.header_lines
    }

    /// The keys below `section` whose content differs from that of `running`.
    pub(super) fn changed(&self, running: &Self) -> Vec<AuthFile> {
        let (new, old) = (&self.content, &running.content);
        let web = new.users != old.users || new.header_lines != old.header_lines;
        let differs = [web, new.tokens != old.tokens, new.jwts != old.jwts, new.access != old.access];
        let files = [AuthFile::Web, AuthFile::Tokens, AuthFile::Jwks, AuthFile::Access];
        files.into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(file, _)| file).collect()
    }
}

impl AuthSettings {
    /// Reads the files. Returns what was read, as far as it is sound, and all mistakes.
    pub(super) fn read(&self) -> (ReadAuth, Vec<AuthMistake>) {
        let mut reading = Reading::default();
        let web = reading.file(AuthFile::Web, self.web.as_deref(), read_web_config).unwrap_or_default();
        reading.must_protect(self.web.as_deref(), &web);
        let tokens = reading.file(AuthFile::Tokens, self.tokens.as_deref(), read_tokens).unwrap_or_default();
        reading.files.extend(tokens.files);
        let jwks = self.jwts.as_ref().map(|(path, _)| path.as_path());
        let keys = reading.file(AuthFile::Jwks, jwks, read_jwks);
        let jwts = keys.zip(self.jwts.as_ref()).map(|((keys, notices), (_, rules))| {
            reading.notices.extend(notices);
            (keys, rules.clone())
        });
        let WebConfig { tls, headers, users, notices } = web;
        reading.notices.extend(notices);
        let credentials = Credentials {
            users: &users,
            tokens: &tokens.tokens,
            jwts: self.jwts.is_some(),
            jwt_tenants: self.jwts.as_ref().is_some_and(|(_, rules)| rules.tenants_claim.is_some()),
            certificates: tls.as_ref().is_some_and(|tls| tls.client_auth.verifies()),
            tenant_header: true,
        };
        let access = self.access.as_ref().and_then(|settings| reading.access(settings, credentials));
        let web_name = self.web.as_deref().unwrap_or(Path::new("")).display().to_string();
        let header_lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let content = Content { users, tokens: tokens.tokens, jwts, access, header_lines };
        let read = ReadAuth {
            auth: Auth { content: Arc::new(content), started: OnceLock::new() },
            tls: tls.map(|tls| tls.server_settings(&web_name)),
            files: reading.files,
            notices: reading.notices,
        };
        (read, reading.mistakes)
    }
}

/// Files that are being read.
#[derive(Default)]
struct Reading {
    files: Vec<PathBuf>,
    notices: Vec<String>,
    mistakes: Vec<AuthMistake>,
}

impl Reading {
    /// Reads and parses a file, if there is one. `None` also after a mistake.
    fn file<T>(
        &mut self,
        file: AuthFile,
        path: Option<&Path>,
        parse: impl FnOnce(&str, &str) -> Result<T, ConfigMistakes>,
    ) -> Option<T> {
        let path = path?;
        self.files.push(path.to_owned());
        let name = path.display().to_string();
        let mistake = match read_file(path) {
            Ok(text) => match parse(&name, &text) {
                Ok(content) => return Some(content),
                Err(mistakes) => AuthMistake::Content(mistakes),
            },
            Err(text) => AuthMistake::Unreadable(file, format!("{name} {text}")),
        };
        self.mistakes.push(mistake);
        None
    }

    /// A web configuration that protects nothing is most likely being written, and would let everyone in.
    fn must_protect(&mut self, path: Option<&Path>, web: &WebConfig) {
        let protects = web.tls.is_some() || !web.users.is_empty() || !web.headers.is_empty();
        if let Some(path) = path
            && !protects
            && self.mistakes.is_empty()
        {
            let text =
                format!("{} has neither users nor TLS nor headers: remove the setting", path.display());
            self.mistakes.push(AuthMistake::Unreadable(AuthFile::Web, text));
        }
    }

    fn access(&mut self, settings: &AccessSettings, found: Credentials<'_>) -> Option<Arc<Access>> {
        let credentials = Credentials {
            certificates: found.certificates || settings.verifies_certificates,
            tenant_header: settings.has_tenant_header,
            ..found
        };
        // Rules for users of a file with mistakes would look like rules for users that do not exist.
        let known = Some(&credentials).filter(|_| self.mistakes.is_empty());
        let parse = |name: &str, text: &str| read_access(name, text, settings.id_rules, known);
        self.file(AuthFile::Access, Some(&settings.file), parse).map(Arc::new)
    }
}
