//! What can be wrong with the files and settings of TLS.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub reason: Reason,
}

/// Where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In a setting, by its key.
    Setting(&'static str),
}

/// What is wrong. Another try helps only after the file, or the clock, is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(String),
    /// It is not PEM, or is broken off.
    #[error("is not valid PEM: {0}")]
    NotPem(String),
    /// It has no `CERTIFICATE` section.
    #[error("contains no certificate")]
    NoCertificate,
    /// A section is no certificate.
    #[error("certificate {number} in it is malformed")]
    Malformed {
        /// Its place in the file, from 1.
        number: usize,
    },
    /// It has no private key.
    #[error("contains no private key")]
    NoKey,
    /// The key is encrypted. A server has no way to ask for the passphrase.
    #[error("its key has a passphrase; write it without: openssl pkey -in FILE -out NEW_FILE")]
    Encrypted,
    /// The key is of a kind that can't be used.
    #[error("its key can't be used: {0}")]
    UnusableKey(String),
    /// The key belongs to another certificate.
    #[error("its key does not belong to the certificate in {}", certificate.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// A certificate has expired.
    #[error("certificate {number} in it ({subject}) expired at {at}")]
    Expired {
        /// Its place in the file, from 1.
        number: usize,
        /// Its subject.
        subject: String,
        /// Its last moment.
        at: String,
    },
    /// A certificate is not valid yet.
    #[error("certificate {number} in it ({subject}) is not valid before {at}; is the clock right?")]
    NotYetValid {
        /// Its place in the file, from 1.
        number: usize,
        /// Its subject.
        subject: String,
        /// Its first moment.
        at: String,
    },
    /// The certificate's extended key usage does not allow what it is to be used for.
    #[error("its certificate is for another purpose: its extended key usage lacks {0}")]
    WrongPurpose(&'static str),
    /// None of its certificates is an authority's.
    #[error("contains no certificate of an authority (CA:TRUE)")]
    NoAuthority,
    /// The system has no roots.
    #[error("the system has no usable root certificates: {0}")]
    NoSystemRoots(String),
    /// A setting needs another.
    #[error("{0}")]
    Setting(&'static str),
    /// A name that can't be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// rustls refuses the combination.
    #[error("can't be used: {0}")]
    Refused(String),
}

impl Mistake {
    pub(super) fn in_file(path: &Path, reason: Reason) -> Self {
        Self { place: Place::File(path.to_owned()), reason }
    }

    /// A mistake in a setting.
    pub fn in_setting(setting: &'static str, reason: Reason) -> Self {
        Self { place: Place::Setting(setting), reason }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}: {}", path.display(), self.reason),
            Place::Setting(key) => write!(f, "{key}: {}", self.reason),
        }
    }
}

/// A name that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing has this name.
    #[error("there is no {kind} named {name:?}; known are {known}")]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// The name as written.
        name: String,
        /// Names that could be used.
        known: String,
    },
    /// It exists, but not here.
    #[error("{name} is not supported: {why}")]
    Unsupported {
        /// The name as written.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// The lowest version is above the highest.
    #[error("the lowest version, {min}, is above the highest, {max}")]
    Versions {
        /// The lowest.
        min: String,
        /// The highest.
        max: String,
    },
}
