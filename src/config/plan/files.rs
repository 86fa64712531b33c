//! The files that are read again while the configuration stays as it is: certificates and keys, passwords and tokens.
//! They are renewed more often than configurations.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Plan, Terms};
use crate::config::again::Again;
use crate::config::security::Security;

/// What was found in the files of a plan. A mistake in one file does not keep the others from being renewed.
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
        let (mut security, mut secrets) = (Again::default(), Again::default());
        let auth = [&self.auth, &self.admin_auth];
        let read = self.security.read_again(&self.terms.targets, &self.tls, auth);
        if let Some(read) = security.take(read) {
            let Security { tls, auth, admin_auth, files, .. } = read;
            (plan.tls, plan.auth, plan.admin_auth) = (tls, auth, admin_auth);
            plan.security_files = files;
        }
        let authorization = match self.credentials.read() {
            Ok(read) => Ok(Some(read).filter(|read| *read != self.terms.authorization)),
            Err(mistake) => Err(vec![mistake]),
        };
        if let Some(authorization) = secrets.take(authorization) {
            plan.terms = Arc::new(Terms { authorization, ..Terms::clone(&self.terms) });
        }
        plan.upstreams = Arc::new(self.upstreams.read_again(&mut security, &mut secrets));
        FilesRead { plan: (security.changed || secrets.changed).then_some(plan), security, secrets }
    }

    /// The files that [`Self::read_files_again`] reads.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let mut files = self.security_files.clone();
        files.extend(self.credentials.file().map(Path::to_owned));
        files.extend(self.upstreams.files());
        files
    }
}
