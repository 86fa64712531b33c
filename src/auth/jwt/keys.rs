//! The public keys of a JWT's issuer (RFC 7517), and the signatures that they verify (RFC 7518 section 3).
//!
//! A key decides which algorithms a token may use, never the token. An RSA key verifies RSA signatures with any SHA-2
//! hash, and a curve has one algorithm. So there is neither `none` nor an HMAC keyed with a public key. Symmetric keys
//! are refused.
#![forbid(unsafe_code)]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, signature};
use ring::signature as verify;
use serde_json::{Map, Value};

use crate::limits::JWT_KEYS_MAX;

/// The keys of a JWKS that can verify signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
pub(super) struct Key {
    /// `kid` (RFC 7517 section 4.5).
    pub(super) id: Option<Box<str>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        fn bytes(key: &DecodingKey) -> [&[u8]; 2] {
            match key.kind() {
                DecodingKeyKind::SecretOrDer(bytes) => [bytes, &[]],
                DecodingKeyKind::RsaModulusExponent { n, e } => [n, e],
            }
        }
        (&self.id, &self.algorithms, bytes(&self.decoding))
            == (&other.id, &other.algorithms, bytes(&other.decoding))
    }
}

impl Eq for Key {}

/// Public keys are no secrets, but long.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, &key.algorithms))).finish()
    }
}

/// Why a JWKS cannot be used as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysFault {
    /// It is not JSON.
    #[error("is not JSON: {text} (column {column})")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        text: String,
    },
    /// It is JSON, but not a JWKS (RFC 7517 section 5).
    #[error("is not a JWKS: it has no list `keys`")]
    NoList,
    /// It has more than [`JWT_KEYS_MAX`] keys.
    #[error("has {0} keys, more than the {JWT_KEYS_MAX} that are accepted")]
    TooMany(usize),
    /// None of its keys can be used. Says why for each.
    #[error("has no key that can verify a signature{0}")]
    NoKey(String),
}

impl Keys {
    /// Reads a JWKS (RFC 7517 section 5). Also returns a notice for each key that is left out, as that section asks
    /// for.
    ///
    /// # Errors
    /// If it is none, or if no key can be used.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), KeysFault> {
        let value: Value = serde_json::from_str(text).map_err(|error| KeysFault::Json {
            line: error.line().max(1),
            column: error.column(),
            text: kind_of(&error).to_owned(),
        })?;
        let Some(entries) = value.get("keys").and_then(Value::as_array) else {
            return Err(KeysFault::NoList);
        };
        if entries.len() > JWT_KEYS_MAX {
            return Err(KeysFault::TooMany(entries.len()));
        }
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for (number, entry) in (1..).zip(entries) {
            match entry.as_object().ok_or("it is not an object").and_then(key) {
                Ok(key) => keys.push(key),
                Err(reason) => left_out.push(format!("key {number} is left out: {reason}")),
            }
        }
        if keys.is_empty() {
            let reasons = left_out.iter().map(|reason| format!("; {reason}")).collect();
            return Err(KeysFault::NoKey(reasons));
        }
        Ok((Self(keys), left_out))
    }

    /// The keys to try for a token with this header. With a `kid`, those of this name or of none.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let named = move |key: &&Key| match (id, &key.id) {
            (Some(id), Some(of_key)) => **of_key == *id,
            _ => true,
        };
        self.0.iter().filter(move |key| key.algorithms.contains(&algorithm)).filter(named)
    }

    /// The algorithms of all keys.
    pub(super) fn knows(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|key| key.algorithms.contains(&algorithm))
    }
}

/// serde_json's messages may quote the text, and a file that is not a JWKS may be a secret.
fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "it is malformed",
    }
}

fn key(fields: &Map<String, Value>) -> Result<Key, &'static str> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|usage| usage != "sig") {
        return Err("its `use` is not `sig`");
    }
    let operations = fields.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|operations| operations.iter().all(|operation| operation != "verify")) {
        return Err("its `key_ops` do not include `verify`");
    }
    let (mut algorithms, decoding) = match text("kty") {
        Some("RSA") => rsa(fields)?,
        Some("EC") => curve(fields)?,
        Some("OKP") => edwards(fields)?,
        Some("oct") => return Err("it is symmetric, so whatever can verify a token could make one"),
        Some(_) => return Err("its `kty` is none of RSA, EC and OKP"),
        None => return Err("it has no `kty`"),
    };
    if fields.contains_key("alg") {
        algorithms.retain(|algorithm| text("alg") == Some(name(*algorithm)));
    }
    if algorithms.is_empty() {
        return Err("its `alg` is not a signature by a key of its type");
    }
    Ok(Key { id: text("kid").map(Into::into), algorithms, decoding })
}

fn bytes(fields: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(fields.get(name)?.as_str()?).ok()
}

fn rsa(fields: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), &'static str> {
    let number = |name| {
        let bytes = bytes(fields, name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).map(<[u8]>::to_vec)
    };
    let (Some(n), Some(e)) = (number("n"), number("e")) else {
        return Err("its `n` or `e` is not base64url");
    };
    let bits = n.len() * 8 - n.first().map_or(0, |byte| usize::try_from(byte.leading_zeros()).unwrap_or(0));
    if !(2048..=8192).contains(&bits) {
        return Err("its `n` does not have 2048 to 8192 bits");
    }
    if e.len() > 4 || e.last().is_none_or(|last| last % 2 == 0) || e == [1] {
        return Err("its `e` is not an odd number from 3 to 4294967295");
    }
    let algorithms = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    Ok((algorithms.to_vec(), DecodingKey::from_rsa_raw_components(&n, &e)))
}

fn curve(fields: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), &'static str> {
    match fields.get("crv").and_then(Value::as_str) {
        Some("P-256") => {}
        // ring takes more than ten times as long for it as for P-256, and cores verify signatures.
        Some("P-384") => {
            return Err("its `crv` is P-384, which takes too long to verify; use P-256 or Ed25519");
        }
        _ => return Err("its `crv` is not P-256"),
    }
    let coordinate = |name| bytes(fields, name).filter(|bytes| bytes.len() == 32);
    let (Some(x), Some(y)) = (coordinate("x"), coordinate("y")) else {
        return Err("its `x` or `y` is not base64url of 32 bytes");
    };
    // An uncompressed point (SEC 1 section 2.3.3).
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Ok((vec![Algorithm::ES256], DecodingKey::from_ec_der(&point)))
}

fn edwards(fields: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), &'static str> {
    if fields.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err("its `crv` is not Ed25519");
    }
    match bytes(fields, "x").filter(|x| x.len() == 32) {
        Some(x) => Ok((vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&x))),
        None => Err("its `x` is not base64url of 32 bytes"),
    }
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        _ => "",
    }
}

/// Has jsonwebtoken verify signatures with ring, which TLS uses as well. Tokens are only verified here, never made.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error means that it was installed before.
    let _ = PROVIDER.install_default();
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let rsa: &verify::RsaParameters = match self.algorithm {
            Algorithm::RS256 => &verify::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &verify::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &verify::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &verify::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &verify::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &verify::RSA_PSS_2048_8192_SHA512,
            Algorithm::ES256 => return self.on_curve(&verify::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::EdDSA => return self.on_curve(&verify::ED25519, message, signature),
            _ => return Err(signature::Error::new()),
        };
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => verify::RsaPublicKeyComponents { n, e }
                .verify(rsa, message, signature)
                .map_err(|_| signature::Error::new()),
            DecodingKeyKind::SecretOrDer(_) => Err(signature::Error::new()),
        }
    }
}

impl Verifier {
    fn on_curve(
        &self,
        algorithm: &'static dyn verify::VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), signature::Error> {
        let key = self.key.try_get_as_bytes().map_err(|_| signature::Error::new())?;
        verify::UnparsedPublicKey::new(algorithm, key)
            .verify(message, signature)
            .map_err(|_| signature::Error::new())
    }
}
