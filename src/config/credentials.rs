//! What Tenantry identifies itself with at an upstream: a user name and password, or a bearer token. The secret is in
//! the configuration or in a file of its own.
//!
//! Design constraints:
//!
//! * The file is read with the configuration, and again when it changes ([`Credentials::read`]). What is wrong with it
//!   must never reach a request: a secret is checked before it becomes a header.
//! * No error text and no `Debug` shows a secret.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::file::read_file;
use super::header::basic_authorization;
use crate::auth::Secret;
use crate::limits::CREDENTIAL_BYTES_MAX;

/// The keys of credentials, the same for every upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialKey {
    Username,
    Password,
    PasswordFile,
    BearerToken,
    BearerTokenFile,
}

impl CredentialKey {
    pub(super) const ALL: [Self; 5] =
        [Self::Username, Self::Password, Self::PasswordFile, Self::BearerToken, Self::BearerTokenFile];

    /// The key's name, without its section.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Password => "password",
            Self::PasswordFile => "password_file",
            Self::BearerToken => "bearer_token",
            Self::BearerTokenFile => "bearer_token_file",
        }
    }
}

/// The settings as written. What is empty is not set.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) password_file: String,
    pub(super) bearer_token: Secret,
    pub(super) bearer_token_file: String,
}

impl Given {
    pub(super) fn is_set(&self, key: CredentialKey) -> bool {
        let text = match key {
            CredentialKey::Username => self.username.as_bytes(),
            CredentialKey::Password => self.password.expose(),
            CredentialKey::PasswordFile => self.password_file.as_bytes(),
            CredentialKey::BearerToken => self.bearer_token.expose(),
            CredentialKey::BearerTokenFile => self.bearer_token_file.as_bytes(),
        };
        !text.is_empty()
    }

    fn first_set(&self, keys: &[CredentialKey]) -> Option<CredentialKey> {
        keys.iter().copied().find(|&key| self.is_set(key))
    }
}

/// A mistake in the settings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CredentialMistake {
    pub(super) at: CredentialKey,
    /// The setting that it contradicts.
    pub(super) with: Option<CredentialKey>,
    pub(super) text: String,
}

/// How requests to an upstream are authorized, and by what that is read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials(Option<Kind>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// HTTP basic authentication (RFC 7617). The name has no colon.
    Basic { username: String, password: From },
    /// A bearer token (RFC 6750).
    Bearer(From),
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Setting(Secret),
    File(PathBuf),
}

impl Credentials {
    /// Checks the settings. `section` stands before the keys in the texts of mistakes.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn check(given: &Given, section: &str) -> Result<Self, Vec<CredentialMistake>> {
        use CredentialKey::{BearerToken, BearerTokenFile, Password, PasswordFile, Username};
        let mut mistakes = Vec::new();
        let mut clash = |at: CredentialKey, with: CredentialKey, text: &str| {
            let (a, b) = (with.name(), at.name());
            let text = format!("{section}{a} and {section}{b} are both set{text}");
            mistakes.push(CredentialMistake { at, with: Some(with), text });
        };
        for (value, file) in [(Password, PasswordFile), (BearerToken, BearerTokenFile)] {
            if given.is_set(value) && given.is_set(file) {
                clash(file, value, ": keep one of the two");
            }
        }
        let basic = given.first_set(&[Username, Password, PasswordFile]);
        let bearer = given.first_set(&[BearerToken, BearerTokenFile]);
        if let (Some(basic), Some(bearer)) = (basic, bearer) {
            clash(bearer, basic, ", but a request has either a user name or a token: keep one of the two");
        } else if basic.is_some() {
            mistakes.extend(pair_mistake(given, section));
        }
        if given.username.contains(':') {
            let text = "must not contain a colon: basic authentication ends the name there";
            mistakes.push(CredentialMistake { at: Username, with: None, text: text.into() });
        }
        for (at, fault) in [
            (Username, text_fault(given.username.as_bytes())),
            (Password, text_fault(given.password.expose())),
            (BearerToken, token_fault(given.bearer_token.expose())),
        ] {
            mistakes.extend(fault.map(|text| CredentialMistake { at, with: None, text: text.into() }));
        }
        if mistakes.is_empty() { Ok(Self(Kind::of(given))) } else { Err(mistakes) }
    }

    /// The setting that the secret is in, or the path of its file.
    pub(super) fn key(&self) -> Option<CredentialKey> {
        Some(match self.0.as_ref()? {
            Kind::Basic { password: From::Setting(_), .. } => CredentialKey::Password,
            Kind::Basic { password: From::File(_), .. } => CredentialKey::PasswordFile,
            Kind::Bearer(From::Setting(_)) => CredentialKey::BearerToken,
            Kind::Bearer(From::File(_)) => CredentialKey::BearerTokenFile,
        })
    }

    /// The file of the secret, if it is in one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self.0.as_ref()? {
            Kind::Basic { password: From::File(path), .. } | Kind::Bearer(From::File(path)) => Some(path),
            Kind::Basic { .. } | Kind::Bearer(From::Setting(_)) => None,
        }
    }

    /// The value of the `Authorization` header, if there are credentials. Reads the file of the secret.
    ///
    /// # Errors
    /// The path of the file, and what is wrong with it.
    pub(super) fn read(&self) -> Result<Option<Secret>, String> {
        let read = match &self.0 {
            None => return Ok(None),
            Some(Kind::Basic { username, password }) => {
                password.read(text_fault).map(|password| basic_authorization(username, &password))
            }
            Some(Kind::Bearer(token)) => token.read(token_fault).map(|token| {
                let value = [b"Bearer ", token.expose()].concat();
                Secret::new(value)
            }),
        };
        read.map(Some)
    }
}

impl Kind {
    /// Of settings without a mistake.
    fn of(given: &Given) -> Option<Self> {
        let from = |value: &Secret, file: &str| match file {
            "" => From::Setting(value.clone()),
            file => From::File(PathBuf::from(file)),
        };
        if !given.username.is_empty() {
            let password = from(&given.password, &given.password_file);
            return Some(Self::Basic { username: given.username.clone(), password });
        }
        let has_token = !given.bearer_token.is_empty() || !given.bearer_token_file.is_empty();
        has_token.then(|| Self::Bearer(from(&given.bearer_token, &given.bearer_token_file)))
    }
}

impl From {
    fn read(&self, fault: impl Fn(&[u8]) -> Option<&'static str>) -> Result<Secret, String> {
        let path = match self {
            Self::Setting(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let wrong = |text: &str| format!("{} {text}", path.display());
        let text = read_file(path).map(Zeroizing::new).map_err(|text| wrong(&text))?;
        // Editors and `echo` end a file with a line end.
        let secret = text.trim();
        match fault(secret.as_bytes()) {
            _ if secret.is_empty() => Err(wrong("is empty")),
            Some(fault) => Err(wrong(fault)),
            None => Ok(Secret::new(secret)),
        }
    }
}

/// A name needs a password, and a password a name.
fn pair_mistake(given: &Given, section: &str) -> Option<CredentialMistake> {
    use CredentialKey::{Password, PasswordFile, Username};
    let password = given.first_set(&[Password, PasswordFile]);
    match (given.is_set(Username), password) {
        (true, None) => {
            let text = format!(
                "{section}username is set, but {section}password is not: set both (or {section}password_file), or none"
            );
            Some(CredentialMistake { at: Username, with: Some(Password), text })
        }
        (false, Some(at)) => {
            let text =
                format!("{section}{} is set, but {section}username is not: set both or none", at.name());
            Some(CredentialMistake { at, with: Some(Username), text })
        }
        _ => None,
    }
}

/// What is wrong with a name or a password.
fn text_fault(text: &[u8]) -> Option<&'static str> {
    // The bytes of other characters than ASCII are no controls. Those of U+0080 to U+009F are C2 80 to C2 9F.
    let is_control = |text: &[u8]| match text {
        [byte, ..] if byte.is_ascii_control() => true,
        [0xC2, 0x80..=0x9F, ..] => true,
        _ => false,
    };
    if text.len() > CREDENTIAL_BYTES_MAX {
        return Some("is longer than any that an upstream takes");
    }
    let found = (0..text.len()).any(|at| text.get(at..).is_some_and(is_control));
    found.then_some("must not contain line ends or other control characters")
}

/// What is wrong with a token. It stands in the header as it is (RFC 9110 section 5.5).
fn token_fault(token: &[u8]) -> Option<&'static str> {
    text_fault(token).or_else(|| {
        let is_visible = token.iter().all(u8::is_ascii_graphic);
        (!is_visible).then_some("must be of visible ASCII characters, without spaces")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(settings: &[(CredentialKey, &str)]) -> Given {
        let of = |wanted| settings.iter().find(|(key, _)| *key == wanted).map_or("", |(_, value)| *value);
        Given {
            username: of(CredentialKey::Username).into(),
            password: Secret::new(of(CredentialKey::Password)),
            password_file: of(CredentialKey::PasswordFile).into(),
            bearer_token: Secret::new(of(CredentialKey::BearerToken)),
            bearer_token_file: of(CredentialKey::BearerTokenFile).into(),
        }
    }

    fn mistakes(settings: &[(CredentialKey, &str)]) -> Vec<String> {
        let mistakes = Credentials::check(&given(settings), "x.").unwrap_err();
        mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at.name(), mistake.text)).collect()
    }

    use CredentialKey::{BearerToken, BearerTokenFile, Password, PasswordFile, Username};

    #[test]
    fn each_kind_becomes_a_header() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " \n hunter2\r\n").unwrap();
        let path = file.path().to_str().unwrap();
        for (settings, header, key) in [
            (&[(Username, "bob"), (Password, "hunter2")][..], "Basic Ym9iOmh1bnRlcjI=", Password),
            (&[(Username, "bob"), (PasswordFile, path)], "Basic Ym9iOmh1bnRlcjI=", PasswordFile),
            (&[(BearerToken, "a.b-c")], "Bearer a.b-c", BearerToken),
            (&[(BearerTokenFile, path)], "Bearer hunter2", BearerTokenFile),
        ] {
            let credentials = Credentials::check(&given(settings), "").unwrap();
            assert_eq!(credentials.read().unwrap().unwrap().expose(), header.as_bytes());
            assert_eq!(credentials.key(), Some(key));
            assert_eq!(credentials.file().is_some(), settings.iter().any(|(_, value)| *value == path));
            assert!(!format!("{credentials:?}").contains("hunter2"), "{credentials:?}");
        }
        let none = Credentials::check(&Given::default(), "").unwrap();
        assert_eq!((none.read(), none.key()), (Ok(None), None));
    }

    #[test]
    fn contradictions_name_both_keys() {
        let both = "are both set";
        for (settings, expected) in [
            (
                &[(Username, "u"), (Password, "p"), (PasswordFile, "/f")][..],
                vec![format!("password_file: x.password and x.password_file {both}: keep one of the two")],
            ),
            (
                &[(BearerToken, "t"), (BearerTokenFile, "/f")],
                vec![format!(
                    "bearer_token_file: x.bearer_token and x.bearer_token_file {both}: keep one of the two"
                )],
            ),
            (
                &[(Username, "u"), (BearerToken, "t")],
                vec![format!(
                    "bearer_token: x.username and x.bearer_token {both}, but a request has either a user name or a \
                     token: keep one of the two"
                )],
            ),
            (
                &[(PasswordFile, "/f"), (BearerTokenFile, "/t")],
                vec![format!(
                    "bearer_token_file: x.password_file and x.bearer_token_file {both}, but a request has either a \
                     user name or a token: keep one of the two"
                )],
            ),
            (
                &[(PasswordFile, "/f")],
                vec!["password_file: x.password_file is set, but x.username is not: set both or none".into()],
            ),
        ] {
            assert_eq!(mistakes(settings), expected);
        }
    }

    #[test]
    fn no_secret_is_shown_and_all_mistakes_are_reported() {
        let found = mistakes(&[
            (Username, "a:\nb"),
            (Password, "canary\n"),
            (PasswordFile, "/f"),
            (BearerToken, "canary canary"),
        ]);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(found.iter().all(|mistake| !mistake.contains("canary")), "{found:#?}");
        for token in ["a b", "a\u{7f}", "ä", "a\tb", "a\r\nX-A: b"] {
            assert_eq!(mistakes(&[(BearerToken, token)]).len(), 1, "{token:?}");
        }
        assert!(mistakes(&[(Username, "u"), (Password, "a\u{85}")])[0].contains("control"));
        let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
        assert!(mistakes(&[(BearerToken, &long)])[0].contains("longer"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let credentials = Credentials::check(&given(&[(BearerTokenFile, path)]), "").unwrap();
        for (content, said) in [
            ("", "is empty"),
            (" \n\t\r\n", "is empty"),
            ("canary\ncanary\n", "control characters"),
            ("canary canary", "without spaces"),
        ] {
            std::fs::write(file.path(), content).unwrap();
            let error = credentials.read().unwrap_err();
            assert!(error.starts_with(path) && error.contains(said), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        std::fs::write(file.path(), b"\xff").unwrap();
        assert!(credentials.read().unwrap_err().contains("is not UTF-8 text"));
        std::fs::remove_file(file.path()).unwrap();
        assert!(credentials.read().unwrap_err().contains("cannot be read"));
    }
}
