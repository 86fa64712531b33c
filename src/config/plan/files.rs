//! The files that are read again while the configuration stays as it is: certificates and keys, passwords and tokens.
//! They are renewed more often than configurations.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Plan, Terms};
use crate::config::security::Security;

/// What was found in files of one kind. A mistake is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// The same as before.
    Unchanged,
    /// Something else, which the new plan uses.
    Changed,
    /// Mistakes. What was read before stays in use.
    Mistaken(Vec<String>),
}

/// What was found in the files of a plan. A mistake in one kind of file does not keep the other from being renewed.
#[derive(Clone, Debug)]
pub struct FilesRead {
    /// The plan with what has changed; `None` if nothing has. Its authentication has to be started.
    pub plan: Option<Plan>,
    /// The files of TLS and of authentication.
    pub security: Again,
    /// Passwords and tokens for upstreams.
    pub secrets: Again,
}

impl Plan {
    /// Reads certificates, keys and secrets again.
    pub fn read_files_again(&self) -> FilesRead {
        let mut plan = self.clone();
        let security = match self.security.read_again(self) {
            Ok(None) => Again::Unchanged,
            Ok(Some(Security { tls, auth, admin_auth, files, .. })) => {
                (plan.tls, plan.auth, plan.admin_auth) = (tls, auth, admin_auth);
                plan.security_files = files;
                Again::Changed
            }
            Err(mistakes) => Again::Mistaken(mistakes),
        };
        let secrets = match self.credentials.read() {
            Ok(authorization) if authorization == self.terms.authorization => Again::Unchanged,
            Ok(authorization) => {
                plan.terms = Arc::new(Terms { authorization, ..Terms::clone(&self.terms) });
                Again::Changed
            }
            Err(mistake) => Again::Mistaken(vec![mistake]),
        };
        let has_changed = [&security, &secrets].contains(&&Again::Changed);
        FilesRead { plan: has_changed.then_some(plan), security, secrets }
    }

    /// The files that [`Self::read_files_again`] reads.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let mut files = self.security_files.clone();
        files.extend(self.credentials.file().map(Path::to_owned));
        files
    }
}
