//! Checks what requests to the target carry besides the tenant: credentials and headers. Also the named upstreams.
#![forbid(unsafe_code)]

use super::build::Check;
use std::net::SocketAddr;
use std::path::Path;

use crate::auth::Secret;
use crate::config::credentials::{CredentialKey, Credentials, Given};
use crate::config::excerpt::found;
use crate::config::file::read_file;
use crate::config::header::TenantHeader;
use crate::config::key::Key;
use crate::config::mistake::{ConfigMistakes, Mistake, Origin};
use crate::config::static_headers::Others;
use crate::config::target::Target;
use crate::config::terms::Terms;
use crate::config::tls::TlsSettings;
use crate::config::upstreams::resolve::Main;
use crate::config::upstreams::{self, Upstreams};
use crate::model::{Destination, MetadataRule, PerDestination, TargetCoding};

/// The beginning of the settings that name targets for OTLP.
const OTLP: &str = "target_otlp_";

impl Check<'_> {
    /// The targets. None may be our own listener: we would send every request to ourselves, without end. A target for
    /// OTLP that nobody has set may be, as its port is also the usual one to receive OTLP at: then nothing is taken for
    /// it (see [`Plan::takes`](crate::config::Plan::takes)).
    pub(super) fn targets(&mut self, listen: Option<SocketAddr>) -> Option<PerDestination<Target>> {
        let config = self.config;
        let settings = [
            &config.target,
            &config.target_loki,
            &config.target_otlp_metrics,
            &config.target_otlp_logs,
            &config.target_otlp_traces,
        ];
        // All of them, so that every mistake is reported.
        let targets = settings.map(|setting| {
            let target = Target::parse(&setting.value).map_err(|text| self.blame(setting, text)).ok()?;
            let is_unset = setting.origin == Origin::Default && setting.key.path.starts_with(OTLP);
            if let Some(listen) = listen.filter(|listen| target.is_at(*listen) && !is_unset) {
                let text =
                    format!("the target is our own listen address ({listen}): requests would loop forever");
                self.blame_pair(setting, &config.listen, text);
            }
            Some(target)
        });
        let [Some(metrics), Some(logs), Some(otlp_metrics), Some(otlp_logs), Some(otlp_traces)] = targets
        else {
            return None;
        };
        Some(PerDestination::from([metrics, logs, otlp_metrics, otlp_logs, otlp_traces]))
    }

    /// How what goes to the targets is coded.
    fn codings(&self) -> PerDestination<TargetCoding> {
        let config = self.config;
        PerDestination::new(|destination| match destination {
            Destination::Metrics | Destination::Logs => TargetCoding::default(),
            Destination::OtlpMetrics => config.target_otlp_metrics_coding.value,
            Destination::OtlpLogs => config.target_otlp_logs_coding.value,
            Destination::OtlpTraces => config.target_otlp_traces_coding.value,
        })
    }

    /// What requests to the targets have in common, and what its secret comes from.
    pub(super) fn terms(&mut self, targets: Option<PerDestination<Target>>) -> Option<(Terms, Credentials)> {
        let (authentication, headers) = (self.authentication(), self.static_headers());
        let setting = &self.config.tenant_header;
        let tenant_header =
            TenantHeader::parse(&setting.value).map_err(|text| self.blame(setting, text)).ok();
        let (credentials, authorization) = authentication?;
        let terms = Terms {
            targets: targets?,
            codings: self.codings(),
            tenant_header: tenant_header?,
            authorization,
            headers: headers?,
            place: Terms::first_place(0),
        };
        Some((terms, credentials))
    }

    /// Checks the credentials and reads their file. Returns them with the value of the `Authorization` header.
    pub(super) fn authentication(&mut self) -> Option<(Credentials, Option<Secret>)> {
        let is_mistaken = CredentialKey::ALL.iter().any(|&key| self.credential(key).1 == Origin::Mistaken);
        let credentials = match Credentials::check(&self.given(), "auth.egress.") {
            Ok(credentials) => credentials,
            Err(mistakes) => {
                for mistake in mistakes {
                    // A setting that could not be read only appears to be missing.
                    if mistake.with.is_none() || !is_mistaken {
                        self.blame_credential(mistake.at, mistake.with, mistake.text);
                    }
                }
                return None;
            }
        };
        match credentials.read() {
            Ok(authorization) => Some((credentials, authorization)),
            Err(text) => {
                self.blame_credential(credentials.key()?, None, text);
                None
            }
        }
    }

    fn given(&self) -> Given {
        let config = self.config;
        Given {
            username: config.auth_egress_username.value.clone(),
            password: config.auth_egress_password.value.clone(),
            password_file: config.auth_egress_password_file.value.clone(),
            bearer_token: config.auth_egress_bearer_token.value.clone(),
            bearer_token_file: config.auth_egress_bearer_token_file.value.clone(),
        }
    }

    fn credential(&self, key: CredentialKey) -> (&'static Key, Origin) {
        let config = self.config;
        match key {
            CredentialKey::Username => (config.auth_egress_username.key, config.auth_egress_username.origin),
            CredentialKey::Password => (config.auth_egress_password.key, config.auth_egress_password.origin),
            CredentialKey::PasswordFile => {
                (config.auth_egress_password_file.key, config.auth_egress_password_file.origin)
            }
            CredentialKey::BearerToken => {
                (config.auth_egress_bearer_token.key, config.auth_egress_bearer_token.origin)
            }
            CredentialKey::BearerTokenFile => {
                (config.auth_egress_bearer_token_file.key, config.auth_egress_bearer_token_file.origin)
            }
        }
    }

    /// Reports a mistake at the setting, or at the one that it contradicts if only that was set.
    fn blame_credential(&mut self, at: CredentialKey, with: Option<CredentialKey>, text: String) {
        let place = self.credential(at);
        let (key, origin) = match (place.1, with) {
            (Origin::Default, Some(with)) => self.credential(with),
            _ => place,
        };
        if origin != Origin::Mistaken {
            self.mistakes.push(Mistake::of(key, origin, text));
        }
    }

    /// The lines of the headers that every request carries, if there are any.
    pub(super) fn static_headers(&mut self) -> Option<Option<Secret>> {
        let config = self.config;
        let setting = &config.upstream_headers;
        let is_set = |key: &CredentialKey| self.credential(*key).1 != Origin::Default;
        let credentials = CredentialKey::ALL.into_iter().find(is_set).map(|key| self.credential(key).0.path);
        let others = Others {
            tenant_header: &config.tenant_header.value,
            passed: &config.upstream_pass_headers.value,
            credentials,
        };
        match setting.value.check(&others) {
            Ok(lines) => Some(lines),
            Err(mistakes) => {
                mistakes.into_iter().for_each(|text| self.blame(setting, text));
                None
            }
        }
    }
}

impl Check<'_> {
    /// Reads the file of `upstreams`. Its mistakes are reported with the lines of that file.
    pub(super) fn upstreams(
        &mut self,
        main: Option<&(Terms, Credentials)>,
        tls: &TlsSettings,
        listen: Option<SocketAddr>,
    ) -> Option<Upstreams> {
        let config = self.config;
        let setting = &config.upstreams;
        let file = setting.value.as_str();
        if file.is_empty() {
            return Some(Upstreams::default());
        }
        self.metadata_can_be_routed();
        let text = match read_file(Path::new(file)) {
            Ok(text) => text,
            Err(text) => {
                self.blame(setting, format!("{} {text}", found(file)));
                return None;
            }
        };
        let others = Others {
            tenant_header: &config.tenant_header.value,
            passed: &config.upstream_pass_headers.value,
            credentials: None,
        };
        // With mistakes in the main configuration, those of the file are reported all the same.
        let unknown = (Terms::unknown(), Credentials::default());
        let (terms, credentials) = main.unwrap_or(&unknown);
        let main = Main { terms, credentials, tls: &tls.egress, others, listen };
        let mut mistakes = Vec::new();
        let entries = upstreams::read::read(&text, &mut mistakes);
        let upstreams = upstreams::resolve::resolve(&entries, &main, &mut mistakes);
        if mistakes.is_empty() {
            self.rest_has_targets(terms, listen, upstreams.as_ref()?);
            return upstreams;
        }
        self.mistakes.extend(ConfigMistakes::new(file, mistakes).elsewhere());
        None
    }

    /// If a named upstream takes data of some tenants by OTLP, that of the others goes to the main target: which has to
    /// be another one than ourselves then.
    fn rest_has_targets(&mut self, terms: &Terms, listen: Option<SocketAddr>, upstreams: &Upstreams) {
        let Some(listen) = listen else { return };
        for destination in Destination::ALL {
            let is_taken = upstreams.ids().any(|id| id.destination() == destination);
            if destination.signal().is_some() && is_taken && terms.targets.of(destination).is_at(listen) {
                let key = destination.key();
                let text = format!(
                    "upstreams take {key} for some tenants, and that of all others would loop forever: set {key}, whose \
                     default is our own listen address"
                );
                self.blame(&self.config.upstreams, text);
            }
        }
    }

    /// Metadata names no tenant. If each sender has a prefix of its own, the prefix of a tenant that metadata is routed
    /// to may be another sender's, and its upstream cannot be told.
    fn metadata_can_be_routed(&mut self) {
        let config = self.config;
        if config.metadata.value == MetadataRule::Route && config.tenant_prefix_prefer_source.value {
            let text = "with metadata: route and tenant.prefix_prefer_source, the upstream of metadata cannot be told: \
                        switch one of them off";
            self.blame(&config.upstreams, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::config::{Again, Plan};
    use crate::model::Destination;

    fn given(text: &str) -> Result<Plan, Vec<String>> {
        let parsed = crate::config::parse("f", text, []);
        parsed.map_err(|mistakes| mistakes.to_string().lines().map(str::to_owned).collect())
    }

    /// The text has exactly these mistakes: for each the place, and what it says.
    #[track_caller]
    fn refused(text: &str, expected: &[(&str, &str)]) {
        let mistakes = given(text).unwrap_err();
        assert_eq!(mistakes.len(), expected.len(), "{text}\n{mistakes:#?}");
        for (mistake, (place, said)) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(&format!("{place}: ")), "{text}\n{mistake}");
            assert!(mistake.contains(said) && !mistake.contains("canary"), "{text}\n{mistake}");
        }
    }

    #[test]
    fn mistakes_are_reported_at_the_settings_without_their_values() {
        let egress = |text: &str| format!("auth:\n  egress:\n{text}");
        refused(
            &egress("    username: u\n    password: canary\n    password_file: /f\n"),
            &[("f:5: auth.egress.password_file", "auth.egress.password and auth.egress.password_file")],
        );
        refused(
            &egress("    username: u\n    password: canary\n    bearer_token: canary\n"),
            &[("f:5: auth.egress.bearer_token", "auth.egress.username and auth.egress.bearer_token")],
        );
        refused(
            &egress("    bearer_token: canary\n    bearer_token_file: /f\n"),
            &[("f:4: auth.egress.bearer_token_file", "auth.egress.bearer_token and")],
        );
        refused(&egress("    password_file: /f\n"), &[("f:3: auth.egress.password_file", "username is not")]);
        refused(
            &egress("    bearer_token: can ary\n"),
            &[("f:3: auth.egress.bearer_token", "without spaces")],
        );
        refused(
            &egress("    bearer_token_file: /none\n"),
            &[("f:3: auth.egress.bearer_token_file", "/none cannot be read")],
        );
        // What could not be read only appears to be missing.
        refused(
            &egress("    username: u\n    password_file: [canary]\n"),
            &[("f:4: auth.egress.password_file", "a single value")],
        );
        refused(
            "upstream:\n  headers: {X-A: \"canary\\n\", x-b: \"\\0canary\", X-C: c, x-c: canary}",
            &[("f:2: upstream.headers", "x-b"), ("f:2: upstream.headers", "x-c is listed twice")],
        );
        refused(
            "auth: {egress: {bearer_token: canary}}\nupstream: {headers: {Authorization: canary}}",
            &[("f:2: upstream.headers", "auth.egress.bearer_token")],
        );
        refused(
            "upstream: {headers: {X-A: canary}, pass_headers: [x-a]}",
            &[("f:1: upstream.headers", "upstream.pass_headers")],
        );
        refused(
            "tenant: {header: X-Team}\nupstream: {headers: {x-team: canary}}",
            &[("f:2: upstream.headers", "names a tenant")],
        );
    }

    #[test]
    fn a_target_for_otlp_that_is_not_set_may_be_our_own_address_and_takes_nothing() {
        for (listen, unset) in [
            ("127.0.0.1:4318", ""),
            (":4318", ""),
            (":4318", "target_otlp_metrics: ''\ntarget_otlp_traces:\n"),
        ] {
            let logs = "target_otlp_logs: http://loki:3100/otlp/v1/logs";
            let plan = given(&format!("listen: {listen}\n{unset}{logs}")).unwrap();
            let taken = Destination::ALL.map(|destination| plan.takes(destination));
            assert_eq!(taken, [true, true, false, true, false], "{listen} {unset}");
        }
        assert!(Destination::ALL.into_iter().all(|destination| given("").unwrap().takes(destination)));
        refused(
            "listen: :4318\ntarget_otlp_traces: localhost:4318/v1/traces",
            &[("f:2: target_otlp_traces", "loop forever")],
        );
    }

    #[test]
    fn an_upstream_for_otlp_needs_a_main_target_that_is_not_our_own_address() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "- {name: a, tenants: [a], target_otlp_logs: 'http://loki:3100'}\n")
            .unwrap();
        let text = format!("listen: :4318\nupstreams: {}\n", file.path().display());
        refused(&text, &[("f:2: upstreams", "set target_otlp_logs")]);
        given(&format!("{text}target_otlp_logs: other:3100")).unwrap();
        // One without a target of its own has the main one's.
        std::fs::write(file.path(), "- {name: a, tenants: [a]}\n").unwrap();
        let each = ["target_otlp_metrics", "target_otlp_logs", "target_otlp_traces"];
        refused(&text, &each.map(|key| ("f:2: upstreams", key)));
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "auth: {egress: {bearer_token: canary}}\nupstream: {headers: {X-A: canary}}";
        let plan = given(text).unwrap();
        let effective = plan.effective();
        assert!(effective.contains("auth.egress.bearer_token=***"), "{effective}");
        assert!(effective.contains("upstream.headers={X-A: \"***\"}"), "{effective}");
        assert!(!effective.contains("canary") && !format!("{plan:?}").contains("canary"));
        assert_eq!(plan.terms.authorization.as_ref().unwrap().expose(), b"Bearer canary");
        assert_eq!(plan.terms.headers.as_ref().unwrap().expose(), b"X-A: canary\r\n");
    }

    #[test]
    fn a_file_that_changed_gives_new_terms_at_the_same_place_and_a_bad_one_keeps_the_old() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\n").unwrap();
        let path = file.path().to_path_buf();
        let plan = given(&format!("auth: {{egress: {{bearer_token_file: {}}}}}", path.display())).unwrap();
        assert_eq!(plan.watched_files(), std::slice::from_ref(&path));
        assert!(plan.read_files_again().plan.is_none());

        std::fs::write(&path, " two ").unwrap();
        let read = plan.read_files_again();
        assert!(read.security.is_quiet() && read.secrets.changed);
        let renewed = read.plan.unwrap();
        assert_eq!(renewed.terms.authorization.as_ref().unwrap().expose(), b"Bearer two");
        assert_eq!(renewed.terms.place, plan.terms.place);
        assert!(!Arc::ptr_eq(&renewed.terms, &plan.terms));

        std::fs::write(&path, "\n").unwrap();
        let read = renewed.read_files_again();
        let mistakes = vec![format!("{} is empty", path.display())];
        assert_eq!(read.secrets, Again { changed: false, mistakes });
        assert!(read.plan.is_none());
    }
}
