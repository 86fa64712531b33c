//! Access rules: which tenants a credential may write to.
//!
//! Design constraints:
//!
//! * The first rule that matches the credential decides, and without a match nothing is allowed. So a rule can only be
//!   read in one way, and a forgotten one denies.
//! * Names in certificates and tokens are untrusted until a rule matches them as a whole. DNS names are compared
//!   without their case.
//! * A [`Grant`] is made once per request and asked once per tenant of the request, never per series. Rules for exact
//!   names are looked up, so a thousand of them cost no more than one.
//! * A rule that can never apply is reported as a mistake.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use regex::RegexSet;

use super::identity::{Identity, Login};
use crate::tenant::map::{Mapped, TenantAllow, TenantMap};
use crate::tenant::{Grant, IdFault, IdRules, check_id};

/// Which credentials a rule is for. In a pattern, `*` stands for any text, even none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// The user of this name, exactly.
    User(String),
    /// A bearer token of this name, exactly.
    Token(String),
    /// A certificate whose common name matches this pattern.
    CertificateCn(String),
    /// A certificate that has an alternative DNS name that matches this pattern, in any case.
    CertificateDns(String),
    /// A certificate that has an alternative URI that matches this pattern.
    CertificateUri(String),
    /// A JWT, with a subject that matches this pattern if one is given.
    Jwt(Option<String>),
    /// Any credential, or none.
    Anyone,
}

/// Where a tenant's name is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The user's name.
    User,
    /// The token's name.
    Token,
    /// The tenants that the JWT names.
    Jwt,
    /// The certificate's common name.
    CertificateCn,
    /// Its alternative DNS names, in lower case.
    CertificateDns,
    /// Its alternative URIs.
    CertificateUri,
}

impl Source {
    fn noun(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Token => "token",
            Self::Jwt => "JWT",
            Self::CertificateCn | Self::CertificateDns | Self::CertificateUri => "certificate",
        }
    }
}

/// What a rule allows. IDs are without the prefix, as in [`TenantAllow`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The tenants on this list.
    Tenants(TenantAllow),
    /// The tenants that the JWT names, exactly.
    TenantsOfJwt,
    /// All series go to this tenant.
    Forced(String),
    /// All series go to the tenant that the identity names.
    ForcedFrom {
        /// Where its name is taken from.
        source: Source,
        /// Translates the name to the tenant. A name that it does not match is passed over. Without a map, the name is
        /// the tenant.
        map: Option<TenantMap>,
    },
    /// The request's tenant header names the tenant of all series. Without the header, labels name any tenant.
    TrustHeader,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRule {
    /// The credentials that it is for: one of these suffices.
    pub who: Vec<Who>,
    /// What they may do.
    pub what: What,
}

/// A mistake in a rule, to be corrected by the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessFault {
    /// An earlier rule always decides for one of its credentials.
    #[error("never applies: rule {} is for the same", .earlier + 1)]
    Repeated {
        /// The index of that rule, from 0.
        earlier: usize,
    },
    /// An empty name matches nothing.
    #[error("must not be empty")]
    Empty,
    /// The rule takes tenants from a credential of this kind, and is for none of it.
    #[error("takes the tenant from a {0}, but is for none")]
    NoSource(&'static str),
    /// The tenant is not an ID.
    #[error("is no tenant ID: {0}")]
    Tenant(IdFault),
    /// All patterns together are too large.
    #[error("all patterns together are too large")]
    TooLarge,
}

/// Why a credential may write to no tenant. The answer is 403, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// No rule matches it.
    #[error("no access rule is for it")]
    NoRule,
    /// The rule takes the tenant from the credential, and the credential has no name that fits.
    #[error("it names no tenant")]
    NoTenant,
    /// The credential names several tenants where the rule wants one.
    #[error("it names several tenants, and only one can be used")]
    Ambiguous,
    /// The name in the credential is not a tenant ID.
    #[error("the tenant that it names is invalid: {0}")]
    Tenant(IdFault),
}

/// What a request without an `Authorization` header needs, if there are users, tokens or keys.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Demand {
    /// It is refused. This holds if there are no access rules, as in Prometheus.
    #[default]
    Login,
    /// It needs a certificate: some rule is for certificates.
    LoginOrCertificate,
    /// It needs nothing: a rule is for anyone.
    Nothing,
}

/// Compiled rules.
#[derive(Clone)]
pub struct Access {
    rules: Vec<AccessRule>,
    /// The grants of rules that give the same to every credential, by rule index.
    grants: Vec<Option<Arc<Grant>>>,
    names: [Names; KINDS],
    /// The first rule for any JWT, and for anyone.
    any_jwt: Option<usize>,
    anyone: Option<usize>,
}

/// The kinds of names that rules match, as indexes of [`Access::names`].
const KINDS: usize = 6;
const USER: usize = 0;
const TOKEN: usize = 1;
const CN: usize = 2;
const DNS: usize = 3;
const URI: usize = 4;
const SUBJECT: usize = 5;

/// Names and patterns of one kind, and their rules.
#[derive(Clone, Default)]
struct Names {
    exact: HashMap<Box<str>, usize>,
    globs: RegexSet,
    glob_rules: Vec<usize>,
}

impl Names {
    fn first(&self, name: &str) -> Option<usize> {
        let glob = self.globs.matches(name).iter().next().and_then(|at| self.glob_rules.get(at));
        self.exact.get(name).into_iter().chain(glob).copied().min()
    }
}

impl Access {
    /// Compiles `rules`. Forced tenants have to follow `id_rules`.
    ///
    /// # Errors
    /// All mistakes, each with the index of its rule, from 0.
    pub fn new(rules: Vec<AccessRule>, id_rules: IdRules) -> Result<Self, Vec<(usize, AccessFault)>> {
        let mut compiler = Compiler::default();
        for (at, rule) in rules.iter().enumerate() {
            rule.who.iter().for_each(|who| compiler.who(at, who));
            compiler.what(at, rule, id_rules);
        }
        let mut names: [Names; KINDS] = std::array::from_fn(|_| Names::default());
        for (names, (exact, globs)) in names.iter_mut().zip(compiler.exact.into_iter().zip(&compiler.globs)) {
            names.exact = exact;
            names.glob_rules = globs.iter().map(|(at, _)| *at).collect();
            match RegexSet::new(globs.iter().map(|(_, glob)| glob)) {
                Ok(set) => names.globs = set,
                Err(_) => compiler.faults.push((0, AccessFault::TooLarge)),
            }
        }
        if !compiler.faults.is_empty() {
            return Err(compiler.faults);
        }
        let grants = rules.iter().map(|rule| fixed(&rule.what).map(Arc::new)).collect();
        Ok(Self { rules, grants, names, any_jwt: compiler.any_jwt, anyone: compiler.anyone })
    }

    /// What the credential may do.
    ///
    /// # Errors
    /// If it may write to no tenant at all.
    pub fn grant(&self, identity: &Identity) -> Result<Arc<Grant>, Denied> {
        let at = self.first(identity).ok_or(Denied::NoRule)?;
        if let Some(Some(grant)) = self.grants.get(at) {
            return Ok(Arc::clone(grant));
        }
        let granted = match self.rules.get(at).map(|rule| &rule.what) {
            Some(What::TenantsOfJwt) => match &identity.login {
                Login::Jwt(jwt) if !jwt.tenants.is_empty() => {
                    Grant::Named(jwt.tenants.iter().cloned().collect())
                }
                _ => return Err(Denied::NoTenant),
            },
            Some(What::ForcedFrom { source, map }) => forced(identity, *source, map.as_ref())?,
            _ => return Err(Denied::NoRule),
        };
        Ok(Arc::new(granted))
    }

    /// The index of the first rule for the credential.
    fn first(&self, identity: &Identity) -> Option<usize> {
        let name = |kind: usize, name: &str| self.names.get(kind).and_then(|names| names.first(name));
        let mut first = self.anyone;
        let mut note = |rule: Option<usize>| {
            first = first.into_iter().chain(rule).min();
        };
        match &identity.login {
            Login::None => {}
            Login::User(user) => note(name(USER, user)),
            Login::Token(token) => note(name(TOKEN, token)),
            Login::Jwt(jwt) => {
                note(self.any_jwt);
                note(jwt.subject.as_deref().and_then(|subject| name(SUBJECT, subject)));
            }
        }
        if let Some(certificate) = &identity.certificate {
            note(certificate.common_name.as_deref().and_then(|cn| name(CN, cn)));
            certificate.dns.iter().for_each(|dns| note(name(DNS, &dns.to_ascii_lowercase())));
            certificate.uris.iter().for_each(|uri| note(name(URI, uri)));
        }
        first
    }

    /// What a request without an `Authorization` header needs under these rules.
    pub fn demand(&self) -> Demand {
        let certificate = |who: &Who| {
            matches!(who, Who::CertificateCn(_) | Who::CertificateDns(_) | Who::CertificateUri(_))
        };
        if self.anyone.is_some() {
            Demand::Nothing
        } else if self.rules.iter().flat_map(|rule| &rule.who).any(certificate) {
            Demand::LoginOrCertificate
        } else {
            Demand::Login
        }
    }

    /// The credentials that rules are for, in order, each with the index of its rule. To find names that do not exist.
    pub fn credentials(&self) -> impl Iterator<Item = (usize, &Who)> {
        self.rules.iter().enumerate().flat_map(|(at, rule)| rule.who.iter().map(move |who| (at, who)))
    }
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Access {}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

/// Collects names and mistakes.
#[derive(Default)]
struct Compiler {
    exact: [HashMap<Box<str>, usize>; KINDS],
    globs: [Vec<(usize, String)>; KINDS],
    any_jwt: Option<usize>,
    anyone: Option<usize>,
    faults: Vec<(usize, AccessFault)>,
}

impl Compiler {
    fn who(&mut self, at: usize, who: &Who) {
        if let Some(earlier) = self.anyone {
            return self.faults.push((at, AccessFault::Repeated { earlier }));
        }
        let (kind, text, may_be_glob) = match who {
            Who::User(name) => (USER, name.clone(), false),
            Who::Token(name) => (TOKEN, name.clone(), false),
            Who::CertificateCn(pattern) => (CN, pattern.clone(), true),
            Who::CertificateDns(pattern) => (DNS, pattern.to_ascii_lowercase(), true),
            Who::CertificateUri(pattern) => (URI, pattern.clone(), true),
            Who::Jwt(pattern) => {
                if let Some(earlier) = self.any_jwt {
                    return self.faults.push((at, AccessFault::Repeated { earlier }));
                }
                match pattern {
                    Some(pattern) => (SUBJECT, pattern.clone(), true),
                    None => return self.any_jwt = Some(at),
                }
            }
            Who::Anyone => return self.anyone = Some(at),
        };
        if text.is_empty() {
            self.faults.push((at, AccessFault::Empty));
        } else if may_be_glob && text.contains('*') {
            let parts: Vec<_> = text.split('*').map(regex::escape).collect();
            let glob = format!(r"\A(?s:{})\z", parts.join(".*"));
            match self.globs[kind].iter().find(|(_, earlier)| *earlier == glob) {
                Some(&(earlier, _)) => self.faults.push((at, AccessFault::Repeated { earlier })),
                None => self.globs[kind].push((at, glob)),
            }
        } else if let Some(&earlier) = self.exact[kind].get(text.as_str()) {
            self.faults.push((at, AccessFault::Repeated { earlier }));
        } else {
            self.exact[kind].insert(text.into(), at);
        }
    }

    fn what(&mut self, at: usize, rule: &AccessRule, id_rules: IdRules) {
        let source = match rule.what {
            What::TenantsOfJwt => Some(Source::Jwt),
            What::ForcedFrom { source, .. } => Some(source),
            What::Tenants(_) | What::Forced(_) | What::TrustHeader => None,
        };
        if let Some(source) = source
            && !rule.who.iter().any(|who| may_have(who, source))
        {
            self.faults.push((at, AccessFault::NoSource(source.noun())));
        }
        if let What::Forced(tenant) = &rule.what
            && let Err(fault) = check_characters(tenant, id_rules)
        {
            self.faults.push((at, AccessFault::Tenant(fault)));
        }
    }
}

/// Whether a credential may have a name of this kind. Any request may come with a certificate besides.
fn may_have(who: &Who, source: Source) -> bool {
    match source {
        Source::User => matches!(who, Who::User(_) | Who::Anyone),
        Source::Token => matches!(who, Who::Token(_) | Who::Anyone),
        Source::Jwt => matches!(who, Who::Jwt(_) | Who::Anyone),
        Source::CertificateCn | Source::CertificateDns | Source::CertificateUri => true,
    }
}

/// With a prefix, an ID that is too long or reserved may become valid, or the other way round. So only characters are
/// checked here; the whole ID is checked when it is resolved.
fn check_characters(tenant: &str, id_rules: IdRules) -> Result<(), IdFault> {
    match check_id(tenant.as_bytes(), id_rules) {
        Err(fault @ (IdFault::Character(_) | IdFault::Empty)) => Err(fault),
        _ => Ok(()),
    }
}

/// What a rule grants to every credential alike.
fn fixed(what: &What) -> Option<Grant> {
    match what {
        What::Tenants(allow) => Some(Grant::Tenants(allow.clone())),
        What::Forced(tenant) => Some(Grant::Forced(tenant.as_str().into())),
        What::TrustHeader => Some(Grant::Header),
        What::TenantsOfJwt | What::ForcedFrom { .. } => None,
    }
}

fn forced(identity: &Identity, source: Source, map: Option<&TenantMap>) -> Result<Grant, Denied> {
    let mut tenant: Option<Box<str>> = None;
    for name in names(identity, source) {
        let Some(found) = translated(&name, map) else { continue };
        match &tenant {
            Some(other) if *other != found => return Err(Denied::Ambiguous),
            _ => tenant = Some(found),
        }
    }
    let tenant = tenant.ok_or(Denied::NoTenant)?;
    // IDs of all rules are visible ASCII. The rest is checked when the ID is resolved, with its prefix.
    check_characters(&tenant, IdRules::Thanos).map_err(Denied::Tenant)?;
    Ok(Grant::Forced(tenant))
}

/// The names of one kind that a credential has.
fn names(identity: &Identity, source: Source) -> Vec<Box<str>> {
    let certificate = identity.certificate.as_deref();
    match (source, &identity.login) {
        (Source::User, Login::User(name)) | (Source::Token, Login::Token(name)) => vec![(&**name).into()],
        (Source::Jwt, Login::Jwt(jwt)) => jwt.tenants.clone(),
        (Source::User | Source::Token | Source::Jwt, _) => Vec::new(),
        (Source::CertificateCn, _) => {
            certificate.and_then(|known| known.common_name.clone()).into_iter().collect()
        }
        (Source::CertificateDns, _) => {
            let lower = |name: &str| name.to_ascii_lowercase().into();
            certificate.map(|known| known.dns.iter().map(|name| lower(name)).collect()).unwrap_or_default()
        }
        (Source::CertificateUri, _) => certificate.map(|known| known.uris.clone()).unwrap_or_default(),
    }
}

fn translated(name: &str, map: Option<&TenantMap>) -> Option<Box<str>> {
    let Some(map) = map else { return Some(name.into()) };
    match map.map(name.as_bytes()) {
        Mapped::Tenant(tenant) => Some(String::from_utf8_lossy(&tenant).into()),
        Mapped::Itself | Mapped::Dropped => None,
    }
}

#[cfg(test)]
mod tests;
