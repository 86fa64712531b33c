//! From what the file of `upstreams` says to upstreams: what is not said is taken from the main configuration, and
//! files are read.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::UnixTime;

use super::read::Entry;
use super::{Upstream, Upstreams};
use crate::auth::Secret;
use crate::config::credentials::{CredentialKey, Credentials};
use crate::config::mistake::Mistake;
use crate::config::static_headers::{Others, StaticHeaders, without_authorization};
use crate::config::target::Target;
use crate::config::terms::Terms;
use crate::config::tls::{self, OfTargets};
use crate::model::{Destination, PerDestination};
use crate::tenant::route::TenantRoutes;
use crate::tls::client::ClientSettings;
use crate::tls::material::{self, Place};

/// The main configuration.
pub(in crate::config) struct Main<'a> {
    pub(in crate::config) terms: &'a Terms,
    pub(in crate::config) credentials: &'a Credentials,
    pub(in crate::config) tls: &'a ClientSettings,
    /// What static headers must not contradict.
    pub(in crate::config) others: Others<'a>,
    /// Our own address.
    pub(in crate::config) listen: Option<SocketAddr>,
}

/// Resolves all upstreams. They are complete only if no mistake was added.
pub(in crate::config) fn resolve(
    entries: &[Entry],
    main: &Main<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Upstreams> {
    let patterns = entries.iter().map(|entry| entry.tenants.clone()).collect();
    let routes = match TenantRoutes::new(patterns) {
        Ok(routes) => Some(routes),
        Err(fault) => {
            mistakes.push(Mistake::in_line(1, "tenants", fault.to_string()));
            None
        }
    };
    let numbered = entries.iter().zip(1..=u8::MAX);
    // All of them, so that every mistake is reported.
    let list: Vec<_> =
        numbered.map(|(entry, index)| Resolver { entry, main, mistakes }.upstream(index)).collect();
    let list: Vec<_> = list.into_iter().collect::<Option<_>>()?;
    Some(Upstreams { routes: routes.filter(|_| !list.is_empty()), list })
}

struct Resolver<'a> {
    entry: &'a Entry,
    main: &'a Main<'a>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Resolver<'_> {
    fn upstream(&mut self, index: u8) -> Option<Upstream> {
        let (entry, main) = (self.entry, self.main);
        let has_target = entry.targets.iter().any(Option::is_some);
        let takes = PerDestination::new(|to| !has_target || entry.targets.of(to).is_some());
        let targets = PerDestination::new(|to| {
            entry.targets.of(to).as_ref().unwrap_or(main.terms.targets.of(to)).clone()
        });
        self.no_loop();
        let credentials = self.credentials();
        let headers = self.headers();
        let client = self.client();
        let tls = self.tls(&client, &targets, &takes);
        let (credentials, authorization) = credentials?;
        let terms = Terms {
            targets,
            codings: PerDestination::new(|to| entry.codings.of(to).unwrap_or(*main.terms.codings.of(to))),
            tenant_header: main.terms.tenant_header.clone(),
            authorization,
            headers: headers?,
            place: Terms::first_place(index),
        };
        let name = entry.name.as_str().into();
        Some(Upstream { name, index, terms: Arc::new(terms), takes, tls: tls?, credentials, client })
    }

    fn mistake(&mut self, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(self.entry.line_of(key), key, text));
    }

    /// Whether all its targets are where those of the main configuration are, so that it may have the same secrets.
    fn is_at_main(&self) -> bool {
        let same = |a: &Target, b: &Target| (&a.host, a.port, a.tls) == (&b.host, b.port, b.tls);
        let pairs = self.entry.targets.iter().zip(self.main.terms.targets.iter());
        pairs.filter_map(|(own, main)| Some((own.as_ref()?, main))).all(|(own, main)| same(own, main))
    }

    fn no_loop(&mut self) {
        let Some(listen) = self.main.listen else { return };
        for (to, key) in Destination::ALL.map(|to| (to, to.key())) {
            if self.entry.targets.of(to).as_ref().is_some_and(|target| target.is_at(listen)) {
                let text =
                    format!("the target is our own listen address ({listen}): requests would loop forever");
                self.mistake(key, text);
            }
        }
    }

    fn given(&self) -> Option<CredentialKey> {
        CredentialKey::ALL.into_iter().find(|key| self.entry.has(key.name()))
    }

    /// Whether it takes over what authorizes requests to the main targets: credentials, or an `Authorization` header.
    /// If it has either of its own, it takes over neither, because a request has one `Authorization`.
    fn inherits_authorization(&self) -> bool {
        let has_header = self.entry.headers.as_ref().is_some_and(StaticHeaders::authorize);
        self.is_at_main() && self.given().is_none() && !has_header
    }

    fn credentials(&mut self) -> Option<(Credentials, Option<Secret>)> {
        if self.given().is_none() {
            return Some(match self.inherits_authorization() {
                true => (self.main.credentials.clone(), self.main.terms.authorization.clone()),
                false => Default::default(),
            });
        }
        let credentials = match Credentials::check(&self.entry.credentials, "") {
            Ok(credentials) => credentials,
            Err(found) => {
                // A value that could not be read only appears to be missing.
                let is_mistaken =
                    |key: &CredentialKey| self.entry.has(key.name()) && !self.entry.credentials.is_set(*key);
                let is_mistaken = CredentialKey::ALL.iter().any(is_mistaken);
                for mistake in found {
                    if mistake.with.is_none() || !is_mistaken {
                        self.mistake(mistake.at.name(), mistake.text);
                    }
                }
                return None;
            }
        };
        match credentials.read() {
            Ok(authorization) => Some((credentials, authorization)),
            Err(text) => {
                let key = credentials.key().map_or("", CredentialKey::name);
                self.mistake(key, text);
                None
            }
        }
    }

    fn headers(&mut self) -> Option<Option<Secret>> {
        let Some(headers) = &self.entry.headers else {
            let inherited = self.main.terms.headers.as_ref().filter(|_| self.is_at_main());
            return Some(match self.inherits_authorization() {
                true => inherited.cloned(),
                false => inherited.and_then(without_authorization),
            });
        };
        // Inherited credentials are no contradiction: its own `Authorization` replaces them.
        let others = Others { credentials: self.given().map(CredentialKey::name), ..self.main.others };
        match headers.check(&others) {
            Ok(lines) => Some(lines),
            Err(found) => {
                found.into_iter().for_each(|text| self.mistake("headers", text));
                None
            }
        }
    }

    /// The settings of TLS. Elsewhere, only the authorities of the main configuration are trusted as well.
    fn client(&self) -> ClientSettings {
        match &self.entry.tls {
            Some(settings) => settings.clone(),
            None if self.is_at_main() => self.main.tls.clone(),
            None => ClientSettings { ca: self.main.tls.ca.clone(), ..ClientSettings::default() },
        }
    }

    fn tls(
        &mut self,
        client: &ClientSettings,
        targets: &PerDestination<Target>,
        takes: &PerDestination<bool>,
    ) -> Option<OfTargets> {
        let wanted = PerDestination::new(|to| takes.of(to).then(|| targets.of(to)));
        match tls::read_upstream(client, &wanted, UnixTime::now()) {
            Ok(tls) => Some(tls),
            Err(found) => {
                found.iter().for_each(|mistake| self.blame_tls(client, mistake));
                None
            }
        }
    }

    fn blame_tls(&mut self, client: &ClientSettings, mistake: &material::Mistake) {
        let (key, text) = match &mistake.place {
            Place::Setting(name) => (format!("tls_config.{name}"), mistake.reason.to_string()),
            Place::File(path) => {
                let pair = client.certificate.as_ref();
                let name = match () {
                    () if client.ca.as_ref() == Some(path) => "ca_bundle_file",
                    () if pair.is_some_and(|pair| pair.key == *path) => "key_file",
                    () => "cert_file",
                };
                (format!("tls_config.{name}"), format!("{} {}", path.display(), mistake.reason))
            }
        };
        self.mistake(&key, text);
    }
}
