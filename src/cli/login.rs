//! The options that name a sender, for access rules.
#![forbid(unsafe_code)]

use clap::Args;

use crate::auth::Login;

/// Who sends a request.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoginArgs {
    /// Apply the access rules for this user
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    user: Option<String>,

    /// Apply the access rules for the bearer token of this name
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
}

impl LoginArgs {
    /// Whether there is one.
    pub(super) fn is_given(&self) -> bool {
        self.user.is_some() || self.token.is_some()
    }

    /// What the sender has proved.
    pub(super) fn login(&self) -> Login {
        match (&self.user, &self.token) {
            (Some(user), _) => Login::User(user.as_str().into()),
            (None, Some(token)) => Login::Token(token.as_str().into()),
            (None, None) => Login::None,
        }
    }
}
