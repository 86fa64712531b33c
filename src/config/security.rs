//! TLS and authentication, read from the files that settings name.
//!
//! A web configuration has both, so they are read together.

use std::path::PathBuf;

use rustls::pki_types::UnixTime;

use super::auth::{Auth, AuthMistake, AuthSettings};
use super::target::Target;
use super::tls::{Tls, TlsMistakes, TlsSettings};
use crate::model::PerDestination;

/// The settings, by which the files can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SecuritySettings {
    /// Without the TLS of web configurations.
    pub(super) tls: TlsSettings,
    /// For the listener for pushes.
    pub(super) auth: AuthSettings,
    /// For the admin listeners.
    pub(super) admin_auth: AuthSettings,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Security {
    pub(super) tls: Tls,
    pub(super) auth: Auth,
    pub(super) admin_auth: Auth,
    pub(super) files: Vec<PathBuf>,
    pub(super) notices: Vec<String>,
    /// Whether the web configuration for pushes has TLS.
    pub(super) has_web_tls: bool,
}

/// All mistakes in the files.
#[derive(Debug, Default)]
pub(super) struct SecurityMistakes {
    pub(super) tls: TlsMistakes,
    pub(super) auth: Vec<AuthMistake>,
    pub(super) admin_auth: Vec<AuthMistake>,
}

impl SecuritySettings {
    /// Reads the files.
    ///
    /// # Errors
    /// All mistakes in them.
    pub(super) fn read(
        &self,
        targets: &PerDestination<Target>,
        now: UnixTime,
    ) -> Result<Security, SecurityMistakes> {
        let mut mistakes = SecurityMistakes::default();
        let (auth, admin);
        (auth, mistakes.auth) = self.auth.read();
        (admin, mistakes.admin_auth) = self.admin_auth.read();
        let has_web_tls = auth.tls.is_some();
        let settings = self.tls.clone().with_web(auth.tls, admin.tls);
        let tls = settings.read(targets, now).unwrap_or_else(|found| {
            mistakes.tls = found;
            Tls::default()
        });
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let files = [settings.files(targets), auth.files, admin.files].concat();
        let notices = [auth.notices, admin.notices].concat();
        Ok(Security { tls, auth: auth.auth, admin_auth: admin.auth, files, notices, has_web_tls })
    }

    /// Reads the files again, for what runs with this TLS and these credentials. `None` if nothing has changed.
    ///
    /// # Errors
    /// All mistakes in them, one per line.
    pub(super) fn read_again(
        &self,
        targets: &PerDestination<Target>,
        running: &Tls,
        [auth, admin_auth]: [&Auth; 2],
    ) -> Result<Option<Security>, Vec<String>> {
        let read = self.read(targets, UnixTime::now()).map_err(SecurityMistakes::lines)?;
        let tls = read.tls.after(running);
        let changed = tls.differs_in(running)
            || tls.differs_out(running)
            || !read.auth.changed(auth).is_empty()
            || !read.admin_auth.changed(admin_auth).is_empty();
        Ok(changed.then_some(Security { tls, ..read }))
    }
}

impl SecurityMistakes {
    fn is_empty(&self) -> bool {
        self.tls.is_empty() && self.auth.is_empty() && self.admin_auth.is_empty()
    }

    fn lines(self) -> Vec<String> {
        let of_auth = self.auth.iter().chain(&self.admin_auth).flat_map(|mistake| match mistake {
            AuthMistake::Unreadable(_, text) => vec![text.clone()],
            AuthMistake::Content(mistakes) => mistakes.to_string().lines().map(str::to_owned).collect(),
        });
        of_auth.chain(self.tls.lines()).collect()
    }
}
