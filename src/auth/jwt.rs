//! JWTs as bearer tokens (RFC 7519), signed with one of an issuer's keys.
//!
//! Design constraints:
//!
//! * jsonwebtoken reads and checks tokens, and ring verifies their signatures. `exp` is required, `nbf` holds if it is
//!   there. The audience must be one of those configured; a token for an audience is refused if none is configured (RFC
//!   7519 section 4.1.3).
//! * A signature takes up to 100 µs to verify, and a sender uses its token for many requests. So a valid token is
//!   remembered by a keyed hash until it expires. Tokens that are not valid are not remembered: nothing that a client
//!   makes up takes another's place.
//! * What a token costs is bounded: its length, and the number of keys that are tried.
#![forbid(unsafe_code)]

mod keys;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::Value;

pub use self::keys::{Keys, KeysFault};
use super::identity::JwtIdentity;
use super::mac::{Mac, MacKey};
use super::secret::Secret;
use crate::limits::{JWT_KEYS_TRIED_MAX, JWTS_REMEMBERED_MAX};

/// What a token has to fulfil besides its signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtRules {
    /// `aud` must name one of these. If there are none, it must be absent.
    pub audiences: Vec<String>,
    /// `iss` must be one of these. If there are none, any is accepted.
    pub issuers: Vec<String>,
    /// How far clocks may differ, for `exp` and `nbf`. Counted in whole seconds.
    pub leeway: Duration,
    /// The claim that names the tenants: a name, or a path like `resource.tenants`. `None` if tokens name none.
    pub tenants_claim: Option<String>,
}

/// Why a JWT is refused. Only `Early` may change by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwtFault {
    /// It is not a JWT, or not one that is understood.
    #[error("it is malformed")]
    Malformed,
    /// Its `crit` header requires an extension (RFC 7515 section 4.1.11).
    #[error("it requires an extension that is not supported")]
    Critical,
    /// Its algorithm is not one of the keys'.
    #[error("no key is for its algorithm")]
    Algorithm,
    /// No key has its `kid`.
    #[error("no key has its kid")]
    Key,
    /// The signature is not by one of the keys.
    #[error("its signature is not by one of the keys")]
    Signature,
    /// A claim that is required is missing, or has the wrong form.
    #[error("a claim that is required is missing or malformed")]
    Claim,
    /// `exp` is over.
    #[error("it has expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("it is not valid yet")]
    Early,
    /// `aud` names another audience.
    #[error("it is for another audience")]
    Audience,
    /// `iss` is another issuer.
    #[error("it is by another issuer")]
    Issuer,
    /// The claim that names the tenants is neither a string nor a list of strings.
    #[error("the claim with its tenants is neither a string nor a list of strings")]
    Tenants,
}

/// Checks JWTs, and remembers valid ones. Shared by all cores.
pub struct Jwts {
    keys: Keys,
    rules: JwtRules,
    validation: Validation,
    mac_key: MacKey,
    /// By the first byte of the keyed hash, so that cores rarely wait for each other.
    remembered: Vec<Mutex<Remembered>>,
}

const SHARDS: usize = 16;

/// Valid tokens in two halves. If the newer one is full, it becomes the older one, which is forgotten.
#[derive(Default)]
struct Remembered {
    newer: HashMap<Mac, Valid>,
    older: HashMap<Mac, Valid>,
}

#[derive(Clone)]
struct Valid {
    /// The last second at which it is valid, since the epoch, with the leeway.
    until: u64,
    identity: Arc<JwtIdentity>,
}

impl Remembered {
    fn find(&self, mac: &Mac, now: u64) -> Option<Arc<JwtIdentity>> {
        let valid = self.newer.get(mac).or_else(|| self.older.get(mac))?;
        (now <= valid.until).then(|| Arc::clone(&valid.identity))
    }

    fn insert(&mut self, mac: Mac, valid: Valid) {
        if self.newer.len() >= JWTS_REMEMBERED_MAX / SHARDS / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(mac, valid);
    }
}

impl Jwts {
    /// Prepares to check tokens.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn new(keys: Keys, rules: JwtRules) -> io::Result<Self> {
        keys::install();
        let leeway = rules.leeway.as_secs();
        let mut validation = Validation { leeway, validate_nbf: true, ..Validation::default() };
        let mut required = vec!["exp"];
        if !rules.audiences.is_empty() {
            validation.set_audience(&rules.audiences);
            required.push("aud");
        }
        if !rules.issuers.is_empty() {
            validation.set_issuer(&rules.issuers);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let remembered = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Ok(Self { keys, rules, validation, mac_key: MacKey::random()?, remembered })
    }

    /// Whether `token` has the form of a JWT: three parts with dots between them (RFC 7515 section 3.1).
    pub fn looks_like_one(token: &[u8]) -> bool {
        token.iter().filter(|&&byte| byte == b'.').count() == 2
    }

    /// Checks `token`. `now` decides whether a remembered token is still valid; a new one is checked by the system's
    /// clock.
    ///
    /// # Errors
    /// If it is not valid.
    pub fn check(&self, token: &Secret, now: SystemTime) -> Result<Arc<JwtIdentity>, JwtFault> {
        let mac = self.mac_key.mac(&[token.expose()]);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let shard = self.remembered.get(mac.below(SHARDS));
        let lock = |shard: &'_ Mutex<Remembered>, valid: Option<Valid>| {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            match valid {
                Some(valid) => {
                    shard.insert(mac, valid);
                    None
                }
                None => shard.find(&mac, now),
            }
        };
        if let Some(identity) = shard.and_then(|shard| lock(shard, None)) {
            return Ok(identity);
        }
        let valid = self.verify(token.expose())?;
        let identity = Arc::clone(&valid.identity);
        shard.and_then(|shard| lock(shard, Some(valid)));
        Ok(identity)
    }

    fn verify(&self, token: &[u8]) -> Result<Valid, JwtFault> {
        let header = decode_header(token).map_err(|error| fault(error.kind()))?;
        if header.crit.is_some() {
            return Err(JwtFault::Critical);
        }
        if !self.keys.knows(header.alg) {
            return Err(JwtFault::Algorithm);
        }
        let mut found = JwtFault::Key;
        for key in self.keys.candidates(header.kid.as_deref(), header.alg).take(JWT_KEYS_TRIED_MAX) {
            let mut validation = self.validation.clone();
            validation.algorithms = vec![header.alg];
            match decode::<Value>(token, &key.decoding, &validation) {
                Ok(valid) => return self.valid(&valid.claims),
                Err(error) => found = fault(error.kind()),
            }
            if found != JwtFault::Signature {
                break;
            }
        }
        Err(found)
    }

    fn valid(&self, claims: &Value) -> Result<Valid, JwtFault> {
        let exp = claims.get("exp").and_then(seconds).ok_or(JwtFault::Claim)?;
        let tenants = match &self.rules.tenants_claim {
            Some(path) => {
                find(claims, path).map_or(Ok(Vec::new()), tenants).map_err(|()| JwtFault::Tenants)?
            }
            None => Vec::new(),
        };
        let subject = claims.get("sub").and_then(Value::as_str).map(Into::into);
        let until = exp.saturating_add(self.rules.leeway.as_secs());
        Ok(Valid { until, identity: Arc::new(JwtIdentity { subject, tenants }) })
    }
}

impl fmt::Debug for Jwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwts").field("keys", &self.keys).field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn fault(kind: &ErrorKind) -> JwtFault {
    match kind {
        ErrorKind::InvalidSignature => JwtFault::Signature,
        ErrorKind::ExpiredSignature => JwtFault::Expired,
        ErrorKind::ImmatureSignature => JwtFault::Early,
        ErrorKind::InvalidAudience => JwtFault::Audience,
        ErrorKind::InvalidIssuer => JwtFault::Issuer,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => JwtFault::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => JwtFault::Claim,
        _ => JwtFault::Malformed,
    }
}

/// A NumericDate (RFC 7519 section 2), rounded down.
fn seconds(value: &Value) -> Option<u64> {
    let whole = || Some(Duration::try_from_secs_f64(value.as_f64()?).ok()?.as_secs());
    value.as_u64().or_else(whole)
}

/// The claim at `path`. A claim whose own name has dots, such as a URL, is found by that name.
fn find<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    let fields = claims.as_object()?;
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    let dots = path.match_indices('.');
    dots.filter_map(|(dot, _)| path.get(..dot).zip(path.get(dot + 1..)))
        .find_map(|(head, rest)| find(fields.get(head)?, rest))
}

fn tenants(value: &Value) -> Result<Vec<Box<str>>, ()> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.as_str().into()),
        // The IDs of VictoriaMetrics are numbers.
        Value::Number(number) if number.is_u64() => Ok(number.to_string().into()),
        _ => Err(()),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(one).collect(),
        single => one(single).map(|tenant| vec![tenant]),
    }
}

#[cfg(test)]
pub(in crate::auth) mod tests;
