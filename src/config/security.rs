//! TLS and authentication, read from the files that settings name.
//!
//! A web configuration has both, so they are read together.

use std::path::PathBuf;

use rustls::pki_types::UnixTime;

use super::auth::{Auth, AuthMistake, AuthSettings, ReadAuth};
use super::plan::Plan;
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
        let auth = sound(self.auth.read(), &mut mistakes.auth);
        let admin = sound(self.admin_auth.read(), &mut mistakes.admin_auth);
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

    /// Reads the files again for the plan `running`. `None` if nothing has changed.
    ///
    /// # Errors
    /// All mistakes in them, one per line.
    pub(super) fn read_again(&self, running: &Plan) -> Result<Option<Security>, Vec<String>> {
        let read = self.read(&running.terms.targets, UnixTime::now()).map_err(SecurityMistakes::lines)?;
        let tls = read.tls.after(&running.tls);
        let changed = tls.differs_in(&running.tls)
            || tls.differs_out(&running.tls)
            || !read.auth.changed(&running.auth).is_empty()
            || !read.admin_auth.changed(&running.admin_auth).is_empty();
        Ok(changed.then_some(Security { tls, ..read }))
    }
}

/// What was read, or nothing and the mistakes noted.
fn sound(read: Result<ReadAuth, Vec<AuthMistake>>, mistakes: &mut Vec<AuthMistake>) -> ReadAuth {
    read.unwrap_or_else(|found| {
        *mistakes = found;
        ReadAuth::default()
    })
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
