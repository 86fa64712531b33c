//! Resolves a label's value to a tenant ID.
//!
//! Design constraints:
//!
//! * An ID becomes an HTTP header value, a directory name in object stores, and a word in logs. IDs that these cannot
//!   carry safely are refused here, after the prefix is added, and only here.
//! * A value is untrusted input. Error texts show it escaped and cut.
//! * Resolving runs once per distinct value of a request, but a reason may occur once per *series*. So a reason does
//!   not allocate until its text is requested.
//!
//! An empty label counts as absent, as in Prometheus' data model. A series with an empty tenant label has no tenant and
//! goes to the default.
//!
//! A map ([`map`]) translates a value to another tenant or drops its series. An allow list restricts the tenants that
//! may be named. Both apply to the ID without its prefix. Neither applies to the default tenant, because it is set by
//! the operator and not by a sender. It may therefore be a tenant that senders cannot name.
//!
//! A [`Grant`] says what the sender of a request may write. It decides about every tenant of the request, the default
//! included, and it may name the tenant itself; then labels and map do not matter.
#![forbid(unsafe_code)]

mod decision;
mod grant;
pub mod map;
pub mod route;
mod rule;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

pub use decision::{DecidingLabel, Decision};
pub use grant::Grant;
pub use rule::Rule;

use map::{Mapped, TenantAllow, TenantMap};

use crate::limits::{
    MIMIR_TENANT_BYTES_MAX, TENANT_EXCERPT_BYTES_MAX, TENANT_LABELS_NAMED_MAX, THANOS_TENANT_BYTES_MAX,
    VICTORIAMETRICS_TENANT_BYTES_MAX,
};

/// A valid tenant ID: its header and its upstream can carry it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks `id` as is, without adding a prefix.
    pub fn new(id: &str, rules: IdRules) -> Result<Self, IdFault> {
        check_id(id.as_bytes(), rules)?;
        Ok(Self(id.into()))
    }

    /// The ID as sent in the upstream's header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The upstream whose rules tenant IDs follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdRules {
    /// Grafana Mimir (docs, "About tenant IDs"): 1–150 bytes of `0-9A-Za-z!-_.*'()`, except the names `.`, `..` and
    /// `__mimir_cluster`.
    Mimir,
    /// Thanos receive: 1–256 bytes of visible ASCII without `/` and `\`, except `.` and `..`.
    Thanos,
    /// VictoriaMetrics and VictoriaLogs (docs, "Multitenancy"): `accountID` or `accountID:projectID`, each a decimal
    /// 32-bit number.
    VictoriaMetrics,
}

impl IdRules {
    /// The name used in `tenant.id_rules`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mimir => "mimir",
            Self::Thanos => "thanos",
            Self::VictoriaMetrics => "victoriametrics",
        }
    }
}

/// What happens to a series without a usable tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The whole request is refused.
    Reject,
    /// The series is dropped and counted; the others are forwarded.
    Drop,
}

/// What names a tenant, for error texts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum NamedBy {
    /// A label of a series or a stream.
    #[default]
    Label,
    /// An attribute, in OTLP.
    Attribute,
}

/// How the labels of a series name its tenant. Built and checked by [`crate::config`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantRules {
    /// What `labels` are.
    pub named_by: NamedBy,
    /// Label names by priority. The first one that a series carries with a value decides. Never empty.
    pub labels: Vec<Box<[u8]>>,
    /// Prepended to every ID, including the default.
    pub prefix: String,
    /// If the inbound request names a tenant itself, that name and `-` replace `prefix`.
    pub prefix_prefer_source: bool,
    /// Whether to remove the deciding label from the series.
    pub label_remove: bool,
    /// The tenant of series that name none. `None` and an empty string mean that there is no default.
    pub default: Option<String>,
    /// The rules for IDs.
    pub id_rules: IdRules,
    /// What happens to a series without a tenant if there is no default.
    pub on_missing: Policy,
    /// What happens to a series whose tenant ID violates `id_rules` or is not allowed.
    pub on_invalid: Policy,
    /// Maps label values to tenants. Without a map, or a matching rule, the value is the tenant.
    pub map: Option<Arc<TenantMap>>,
    /// The tenants that mapped labels may name; `None` allows all.
    pub allow: Option<Arc<TenantAllow>>,
}

impl TenantRules {
    /// The rules if only the label is set: its values are the tenants under Mimir's rules, and every violation is
    /// rejected.
    pub fn of_label(label: &[u8]) -> Self {
        Self {
            named_by: NamedBy::Label,
            labels: vec![label.into()],
            prefix: String::new(),
            prefix_prefer_source: false,
            label_remove: false,
            default: None,
            id_rules: IdRules::Mimir,
            on_missing: Policy::Reject,
            on_invalid: Policy::Reject,
            map: None,
            allow: None,
        }
    }

    /// The tenant of a series whose deciding label is `value`, in a request whose tenant header is `source`. An empty
    /// value or header counts as absent.
    pub fn resolve(&self, value: Option<&[u8]>, source: Option<&str>) -> Result<TenantId, TenantError> {
        let grant = &Grant::Any;
        self.try_resolve(value, source, grant).map_err(|reason| self.explain(reason, value, source, grant))
    }

    /// Like [`Self::resolve`], for a sender with this grant. A reason does not allocate; [`Self::explain`] turns it
    /// into an error.
    pub(crate) fn try_resolve(
        &self,
        value: Option<&[u8]>,
        source: Option<&str>,
        grant: &Grant,
    ) -> Result<TenantId, NoTenant> {
        self.settle(value, source, grant).1
    }

    /// The same, with the rule that decided; `None` if none applies.
    pub(crate) fn settle(
        &self,
        value: Option<&[u8]>,
        source: Option<&str>,
        grant: &Grant,
    ) -> (Option<Rule>, Result<TenantId, NoTenant>) {
        let (rule, id) = match grant.forced(source) {
            Some(tenant) => (Some(Rule::of_forced(grant)), Ok(Cow::Borrowed(tenant.as_bytes()))),
            None => self.bare_id(value),
        };
        (rule, id.and_then(|id| self.whole_id(&id, source, grant)))
    }

    /// The ID with its prefix, if it is valid and the sender may write to it.
    fn whole_id(&self, bare: &[u8], source: Option<&str>, grant: &Grant) -> Result<TenantId, NoTenant> {
        // A rule names its tenant by the operator's will. A header is the sender's word, like a label.
        if *grant == Grant::Header && self.allow.as_ref().is_some_and(|allow| !allow.allows(bare)) {
            return Err(NoTenant::Invalid(IdFault::NotAllowed));
        }
        if !grant.allows(bare, source) {
            return Err(NoTenant::Denied);
        }
        let [prefix, dash] = self.prefix_parts(source, grant);
        check_parts([prefix.as_bytes(), dash.as_bytes(), bare], self.id_rules).map_err(NoTenant::Invalid)?;
        // Checked above to be ASCII, so nothing is replaced.
        let bare = String::from_utf8_lossy(bare);
        // Most have no prefix, and take one allocation.
        let is_bare = prefix.is_empty() && dash.is_empty();
        Ok(TenantId(if is_bare { Arc::from(&*bare) } else { [prefix, dash, &bare].concat().into() }))
    }

    /// The ID for `value`, without its prefix, and the rule that it comes from. It may still violate `id_rules`.
    fn bare_id<'a>(&'a self, value: Option<&'a [u8]>) -> (Option<Rule>, Result<Cow<'a, [u8]>, NoTenant>) {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return match self.default_id() {
                Some(id) => (Some(Rule::Default), Ok(Cow::Borrowed(id))),
                None => (None, Err(NoTenant::Missing)),
            };
        };
        let mapped = self.map.as_ref().and_then(|map| Some((map, map.first_rule(value)?)));
        let (rule, mapped) = match mapped {
            Some((map, at)) => (Rule::Map(at), map.apply(at, value)),
            None => (Rule::Label, Mapped::Itself),
        };
        let id = match mapped {
            Mapped::Itself => Ok(Cow::Borrowed(value)),
            Mapped::Tenant(id) => Ok(id),
            Mapped::Dropped => Err(NoTenant::Dropped),
        };
        (Some(rule), id.and_then(|id| self.named(id)))
    }

    /// An ID that a label or the map names.
    fn named<'a>(&self, id: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>, NoTenant> {
        if id.is_empty() {
            // A prefix alone is not an ID, although it may look like one.
            return Err(NoTenant::Invalid(IdFault::Empty));
        }
        match &self.allow {
            Some(allow) if !allow.allows(&id) => Err(NoTenant::Invalid(IdFault::NotAllowed)),
            _ => Ok(id),
        }
    }

    /// The tenant for `value`; `None` if the map drops its series.
    fn mapped<'a>(&'a self, value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.map.as_ref().map_or(Mapped::Itself, |map| map.map(value)) {
            Mapped::Itself => Some(Cow::Borrowed(value)),
            Mapped::Tenant(id) => Some(id),
            Mapped::Dropped => None,
        }
    }

    /// The error for a reason by [`Self::try_resolve`], given the same arguments.
    pub(crate) fn explain(
        &self,
        reason: NoTenant,
        value: Option<&[u8]>,
        source: Option<&str>,
        grant: &Grant,
    ) -> TenantError {
        let labels = self.names();
        let forced = grant.forced(source);
        let [prefix, dash] = self.prefix_parts(source, grant);
        let mut id = [prefix.as_bytes(), dash.as_bytes()].concat();
        let named = value.filter(|value| !value.is_empty());
        let bare = match forced {
            Some(tenant) => Some(Cow::Borrowed(tenant.as_bytes())),
            None => named.map_or(self.default_id().map(Cow::Borrowed), |value| self.mapped(value)),
        };
        id.extend_from_slice(&bare.unwrap_or_default());
        let (id, origin) = (excerpt(&id), origin(grant, forced.is_some(), labels.clone()));
        match reason {
            NoTenant::Missing => TenantError::Missing { labels },
            NoTenant::Dropped => TenantError::Dropped { labels, value: excerpt(value.unwrap_or_default()) },
            NoTenant::Invalid(fault) => TenantError::Invalid { origin, id, fault },
            NoTenant::Denied => TenantError::Denied { origin, id },
        }
    }

    /// The default tenant's ID, without its prefix.
    pub(crate) fn default_id(&self) -> Option<&[u8]> {
        self.default.as_deref().map(str::as_bytes).filter(|id| !id.is_empty())
    }

    /// A sender that may not write to every tenant must not choose the prefix either.
    fn prefix_parts<'a>(&'a self, source: Option<&'a str>, grant: &Grant) -> [&'a str; 2] {
        match source {
            Some(source) if self.prefix_prefer_source && !source.is_empty() && *grant == Grant::Any => {
                [source, "-"]
            }
            _ => [&self.prefix, ""],
        }
    }

    /// The label names for an error text.
    fn names(&self) -> String {
        let mut names = String::from(match self.named_by {
            NamedBy::Label => "label ",
            NamedBy::Attribute => "attribute ",
        });
        for (at, label) in self.labels.iter().enumerate() {
            if at == TENANT_LABELS_NAMED_MAX {
                names.push_str(", …");
                break;
            }
            if at > 0 {
                names.push_str(", ");
            }
            names.push_str(&excerpt(label));
        }
        names
    }
}

/// Why a value resolves to no tenant; [`TenantRules::explain`] gives its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoTenant {
    /// No label and no default.
    Missing,
    /// The ID is invalid.
    Invalid(IdFault),
    /// The map drops its series. Not a fault.
    Dropped,
    /// The sender may not write to the tenant.
    Denied,
}

/// Where an ID comes from, for an error text.
fn origin(grant: &Grant, is_forced: bool, labels: String) -> String {
    match (is_forced, grant) {
        (false, _) => labels,
        (true, Grant::Header) => "the tenant header".into(),
        (true, _) => "the access rule".into(),
    }
}

/// A series has no usable tenant. The sender is at fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TenantError {
    /// None of the labels has a value, and there is no default.
    #[error("no tenant: it has no value in {labels}, and no default tenant is set")]
    Missing {
        /// The labels that were looked for, with what they are.
        labels: String,
    },
    /// The ID with its prefix is invalid.
    #[error("invalid tenant ID \"{id}\" (from {origin}): {fault}")]
    Invalid {
        /// Where it comes from: the labels that were looked for, the tenant header, or an access rule.
        origin: String,
        /// The ID with its prefix, escaped and cut short.
        id: String,
        /// The rule that it violates.
        fault: IdFault,
    },
    /// The sender's credentials do not allow it to write to the tenant.
    #[error("tenant \"{id}\" (from {origin}) is not among those that these credentials may write to")]
    Denied {
        /// Like that of `Invalid`.
        origin: String,
        /// The ID with its prefix, escaped and cut short.
        id: String,
    },
    /// The map drops such series. Not a fault; the sender is not told.
    #[error("the map drops \"{value}\" (from {labels})")]
    Dropped {
        /// The labels that were looked for.
        labels: String,
        /// The label's value, escaped and cut short.
        value: String,
    },
}

impl TenantError {
    /// The reason as one word, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_tenant",
            Self::Invalid { .. } => "invalid_tenant",
            Self::Denied { .. } => "denied_tenant",
            Self::Dropped { .. } => "dropped_tenant",
        }
    }
}

/// The rule that an ID violates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdFault {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than the upstream accepts.
    #[error("it has {bytes} bytes, more than the {bytes_max} that are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// It contains a byte that the header or the upstream cannot carry.
    #[error("it contains '{}', which is not allowed", .0.escape_ascii())]
    Character(u8),
    /// It is a reserved name.
    #[error("the name is reserved")]
    Reserved,
    /// It does not consist of the numbers that VictoriaMetrics expects.
    #[error("it is not one or two numbers below 4294967296 with a colon between them")]
    NoNumbers,
    /// It is not on the allow list.
    #[error("it is not among the tenants that are allowed")]
    NotAllowed,
}

/// Checks a whole ID, including its prefix, against `rules` and against what an HTTP header value can carry.
pub fn check_id(id: &[u8], rules: IdRules) -> Result<(), IdFault> {
    check_parts([id, &[], &[]], rules)
}

/// Checks the ID formed by concatenating `parts`.
fn check_parts(parts: [&[u8]; 3], rules: IdRules) -> Result<(), IdFault> {
    let bytes = parts.iter().map(|part| part.len()).sum();
    let (bytes_max, reserved): (_, &[&str]) = match rules {
        IdRules::Mimir => (MIMIR_TENANT_BYTES_MAX, &[".", "..", "__mimir_cluster"]),
        IdRules::Thanos => (THANOS_TENANT_BYTES_MAX, &[".", ".."]),
        IdRules::VictoriaMetrics => (VICTORIAMETRICS_TENANT_BYTES_MAX, &[]),
    };
    if bytes == 0 {
        return Err(IdFault::Empty);
    }
    if bytes > bytes_max {
        return Err(IdFault::TooLong { bytes, bytes_max });
    }
    let id = || parts.into_iter().flatten().copied();
    if let Some(byte) = id().find(|&byte| !allowed(byte, rules)) {
        return Err(IdFault::Character(byte));
    }
    if reserved.iter().any(|name| name.len() == bytes && id().eq(name.bytes())) {
        return Err(IdFault::Reserved);
    }
    if rules == IdRules::VictoriaMetrics && !are_numbers(id()) {
        return Err(IdFault::NoNumbers);
    }
    Ok(())
}

/// Whether `id`, which consists of digits and colons, is one 32-bit number, or two separated by a colon.
fn are_numbers(id: impl Iterator<Item = u8>) -> bool {
    let (mut numbers, mut number) = (1, None);
    for byte in id {
        number = match (byte, number) {
            (b':', Some(_)) => {
                numbers += 1;
                None
            }
            (b':', None) => return false,
            (digit, number) => {
                let number = number.unwrap_or(0_u32).checked_mul(10);
                let Some(number) = number.and_then(|n| n.checked_add(u32::from(digit - b'0'))) else {
                    return false;
                };
                Some(number)
            }
        };
    }
    number.is_some() && numbers <= 2
}

fn allowed(byte: u8, rules: IdRules) -> bool {
    match rules {
        IdRules::Mimir => byte.is_ascii_alphanumeric() || b"!-_.*'()".contains(&byte),
        IdRules::Thanos => byte.is_ascii_graphic() && byte != b'/' && byte != b'\\',
        IdRules::VictoriaMetrics => byte.is_ascii_digit() || byte == b':',
    }
}

/// Untrusted bytes for one line of a log or an answer: escaped, and cut.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    match bytes.get(..TENANT_EXCERPT_BYTES_MAX) {
        Some(start) if start.len() < bytes.len() => format!("{}…", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests;
