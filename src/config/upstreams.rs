//! Named upstreams, of the file of the setting `upstreams`: which tenants go to which, with their own targets, headers,
//! credentials and TLS.
//!
//! Design constraints:
//!
//! * The tenant decides, not the series: a tenant's data is in one place. The first upstream whose patterns match has
//!   it. A tenant that no pattern matches belongs to the main upstream, that of the main configuration's targets.
//! * What an upstream does not say is as in the main configuration. But credentials, headers and client certificates
//!   are never taken over by an upstream elsewhere: they would reveal one cluster's secrets to another.
//! * A request has one `Authorization`. An upstream's own one, from credentials or from its headers, replaces the main
//!   one, whichever of the two that is from.
//! * Name lookups and pools exist from the start on. So which upstreams there are stays the same until the next start:
//!   see `adopt`.
#![forbid(unsafe_code)]

pub(super) mod adopt;
pub(super) mod read;
pub(super) mod resolve;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::UnixTime;

use super::again::Again;
use super::credentials::Credentials;
use super::target::Target;
use super::terms::Terms;
use super::tls::{self, OfTargets, UpstreamTls};
use crate::model::{Destination, PerDestination, UpstreamId};
use crate::tenant::route::TenantRoutes;
use crate::tls::client::ClientSettings;

/// A named upstream.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: Arc<str>,
    /// Its number, from 1, which stays the same for the life of the process.
    pub(super) index: u8,
    /// What its requests have in common.
    pub terms: Arc<Terms>,
    /// The kinds of data that it takes. Other data of its tenants goes to the main upstream.
    pub(super) takes: PerDestination<bool>,
    /// The TLS of its targets.
    pub(super) tls: OfTargets,
    /// What the terms' `authorization` was made of.
    pub(super) credentials: Credentials,
    /// The settings of its TLS.
    pub(super) client: ClientSettings,
}

impl Upstream {
    /// Its ID for a kind of data; `None` if that goes to the main upstream.
    pub fn id(&self, destination: Destination) -> Option<UpstreamId> {
        self.takes.of(destination).then(|| UpstreamId::named(self.index, destination))
    }

    fn targets(&self) -> PerDestination<Option<&Target>> {
        PerDestination::new(|to| self.takes.of(to).then(|| self.terms.targets.of(to)))
    }

    fn needs_tls(&self) -> bool {
        self.targets().iter().flatten().any(|target| target.tls)
    }
}

/// All named upstreams.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    /// In the order in which their patterns are asked.
    list: Vec<Upstream>,
    /// Their patterns, in the same order. `None` if there are no upstreams.
    routes: Option<TenantRoutes>,
}

impl Upstreams {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order in which their patterns are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.list.iter()
    }

    /// The upstream of the tenant `id`, which is without its prefix; `None` for the main upstream.
    pub fn of_tenant(&self, id: &[u8]) -> Option<&Upstream> {
        self.list.get(self.routes.as_ref()?.find(id)?)
    }

    /// The upstream with this ID.
    pub fn get(&self, id: UpstreamId) -> Option<&Upstream> {
        self.list.iter().find(|upstream| usize::from(upstream.index) == id.index())
    }

    /// The name of the upstream with this ID; empty for the main one.
    pub fn name_of(&self, id: UpstreamId) -> &str {
        self.get(id).map_or("", |upstream| &upstream.name)
    }

    /// The IDs of all that are used.
    pub fn ids(&self) -> impl Iterator<Item = UpstreamId> {
        self.list.iter().flat_map(|upstream| Destination::ALL.into_iter().filter_map(|to| upstream.id(to)))
    }

    /// The names, in the order of the numbers.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut numbered: Vec<_> =
            self.list.iter().map(|upstream| (upstream.index, &upstream.name)).collect();
        numbered.sort_unstable();
        numbered.into_iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// Warnings about what is probably not intended.
    pub(super) fn notices(&self) -> impl Iterator<Item = String> {
        let insecure = self.list.iter().filter(|upstream| upstream.client.insecure_skip_verify);
        insecure.map(|upstream| {
            format!(
                "upstream {}: tls_config.insecure_skip_verify is true: anyone on the way can read and change all data",
                upstream.name
            )
        })
    }

    /// The TLS of all targets.
    pub fn tls(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.list.iter().flat_map(|upstream| upstream.tls.iter().flatten())
    }

    /// The TLS of an upstream's target.
    pub fn tls_of(&self, id: UpstreamId) -> Option<Arc<UpstreamTls>> {
        self.get(id).and_then(|upstream| upstream.tls.of(id.destination()).clone())
    }

    /// Reads certificates, keys and secrets again.
    pub(super) fn read_again(&self, tls: &mut Again, secrets: &mut Again) -> Self {
        let mut read = self.clone();
        for upstream in &mut read.list {
            if let Some(new) = tls.take(upstream.tls_again()) {
                upstream.tls = new;
            }
            if let Some(new) = secrets.take(upstream.terms_again()) {
                upstream.terms = Arc::new(new);
            }
        }
        read
    }

    /// The files that are read again.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let of_tls = self.list.iter().filter(|upstream| upstream.needs_tls());
        let mut files: Vec<_> = of_tls.flat_map(|upstream| tls::client_files(&upstream.client)).collect();
        files.extend(self.list.iter().filter_map(|upstream| Some(upstream.credentials.file()?.to_owned())));
        files
    }
}

impl Upstream {
    fn tls_again(&self) -> Result<Option<OfTargets>, Vec<String>> {
        let read = tls::read_upstream(&self.client, &self.targets(), UnixTime::now());
        let read =
            read.map_err(|mistakes| mistakes.iter().map(|mistake| self.told(mistake)).collect::<Vec<_>>())?;
        let read = tls::upstream_after(&read, &self.tls);
        Ok(tls::upstream_differs(&read, &self.tls).then_some(read))
    }

    fn terms_again(&self) -> Result<Option<Terms>, Vec<String>> {
        let authorization = self.credentials.read().map_err(|mistake| vec![self.told(&mistake)])?;
        let differs = authorization != self.terms.authorization;
        Ok(differs.then(|| Terms { authorization, ..Terms::clone(&self.terms) }))
    }

    fn told(&self, mistake: &impl std::fmt::Display) -> String {
        format!("upstream {}: {mistake}", self.name)
    }
}

#[cfg(test)]
mod tests;
