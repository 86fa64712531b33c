//! A file with the public keys of a JWT's issuer: a JWKS (RFC 7517 section 5), in JSON.
#![forbid(unsafe_code)]

use super::mistake::{ConfigMistakes, Mistake};
use crate::auth::jwt::{Keys, KeysFault};

/// Parses the `text` of a JWKS. `file` is the name used in errors. Also returns notices about keys that are left out.
///
/// # Errors
/// If it is no JWKS, or if none of its keys can verify a signature.
pub fn read_jwks(file: &str, text: &str) -> Result<(Keys, Vec<String>), ConfigMistakes> {
    match Keys::parse(text) {
        Ok((keys, left_out)) => {
            Ok((keys, left_out.into_iter().map(|notice| format!("{file}: {notice}")).collect()))
        }
        Err(fault) => {
            let mistake = match fault {
                KeysFault::Json { line, .. } => Mistake::in_line(line, "", fault.to_string()),
                _ => Mistake::in_file(fault.to_string()),
            };
            Err(ConfigMistakes::new(file, vec![mistake]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn keys_that_cannot_be_used_are_left_out() {
        let text = format!("{{\"keys\":[{KEY},{{\"kty\":\"oct\",\"k\":\"canary\"}}]}}");
        let (_, notices) = read_jwks("keys.json", &text).unwrap();
        assert_eq!(
            notices,
            ["keys.json: key 2 is left out: it is symmetric, so whatever can verify a token could make one"]
        );
    }

    #[test]
    fn a_file_without_a_key_is_a_mistake() {
        for (text, told) in [
            ("", "keys.json:1: is not JSON: it ends too early (column 0)"),
            ("{\n\"keys\": canary", "keys.json:2: is not JSON: it is malformed (column 9)"),
            ("[]", "keys.json: is not a JWKS: it has no list `keys`"),
            ("{\"keys\":{}}", "keys.json: is not a JWKS: it has no list `keys`"),
            ("{\"keys\":[]}", "keys.json: has no key that can verify a signature"),
            (
                "{\"keys\":[\"canary\",{\"kty\":\"oct\",\"k\":\"canary\"}]}",
                "keys.json: has no key that can verify a signature; key 1 is left out: it is not an object; key 2 is \
                 left out: it is symmetric, so whatever can verify a token could make one",
            ),
        ] {
            assert_eq!(read_jwks("keys.json", text).unwrap_err().to_string(), told);
        }
        let many = vec![KEY; 65].join(",");
        let told = read_jwks("keys.json", &format!("{{\"keys\":[{many}]}}")).unwrap_err().to_string();
        assert_eq!(told, "keys.json: has 65 keys, more than the 64 that are accepted");
    }
}
