//! Builds what the files of TLS and of authentication are read by, and reports their mistakes at the settings that name
//! them.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use rustls::pki_types::UnixTime;

use super::build::Check;
use crate::auth::JwtRules;
use crate::config::auth::{AccessSettings, AuthFile, AuthMistake, AuthSettings};
use crate::config::excerpt::found;
use crate::config::header::TenantHeader;
use crate::config::key::Key;
use crate::config::mistake::{Mistake, Origin};
use crate::config::security::{Security, SecurityMistakes, SecuritySettings};
use crate::config::setting::Setting;
use crate::config::target::Target;
use crate::config::tls::TlsSettings;
use crate::model::PerDestination;
use crate::tenant::TenantRules;
use crate::tls::client::ClientSettings;
use crate::tls::material::{self, CertificateFiles, Place};
use crate::tls::names::{Choices, ClientAuth};
use crate::tls::server::ServerSettings;

/// A setting of TLS, and the files that it names.
struct Named<'c> {
    key: &'static Key,
    origin: Origin,
    files: Vec<&'c str>,
}

impl<'c> Named<'c> {
    fn file(setting: &'c Setting<String>) -> Self {
        Self::files(setting, vec![setting.value.as_str()])
    }

    fn files<T>(setting: &'c Setting<T>, files: Vec<&'c str>) -> Self {
        Self { key: setting.key, origin: setting.origin, files }
    }
}

fn some_path(setting: &Setting<String>) -> Option<PathBuf> {
    Some(PathBuf::from(&setting.value)).filter(|path| !path.as_os_str().is_empty())
}

impl Check<'_> {
    /// Reads the files of TLS and of authentication, and reports each mistake at the setting that names the file.
    pub(super) fn security(
        &mut self,
        targets: &PerDestination<Target>,
        tenant: Option<&TenantRules>,
    ) -> (SecuritySettings, Option<Security>) {
        let settings = SecuritySettings {
            tls: TlsSettings {
                ingress: self.ingress_tls(),
                egress: self.egress_tls(),
                ..TlsSettings::default()
            },
            auth: self.auth(tenant),
            admin_auth: self.admin_auth(),
        };
        let before = self.mistakes.len();
        match settings.read(targets, UnixTime::now()) {
            Ok(read) => {
                self.one_source_of_tls(&settings, &read);
                let sound = self.mistakes.len() == before;
                (settings, Some(read).filter(|_| sound))
            }
            Err(mistakes) => {
                self.blame_files(&settings, mistakes);
                (settings, None)
            }
        }
    }

    /// The TLS of `listen` is either in the web configuration or in `auth.ingress.tls_config`.
    fn one_source_of_tls(&mut self, settings: &SecuritySettings, read: &Security) {
        if settings.tls.ingress.is_some() && read.has_web_tls {
            let text =
                "has a tls_server_config, and auth.ingress.tls_config.cert_file is set as well: remove one";
            self.blame(&self.config.auth_ingress_web_config_file, text);
        }
    }

    fn blame_files(&mut self, settings: &SecuritySettings, mistakes: SecurityMistakes) {
        let config = self.config;
        let more = &config.auth_ingress_more_certificates;
        let web = [Named::file(&config.auth_ingress_web_config_file)];
        let ingress = [
            Named::file(&config.auth_ingress_cert_file),
            Named::file(&config.auth_ingress_key_file),
            Named::file(&config.auth_ingress_client_ca_file),
            Named::files(more, more.value.iter().flat_map(|pair| pair.split(':')).collect()),
            Named::files(&config.auth_ingress_client_auth, Vec::new()),
            Named::files(&config.auth_ingress_min_version, Vec::new()),
            Named::files(&config.auth_ingress_cipher_suites, Vec::new()),
        ];
        let egress = [
            Named::file(&config.auth_egress_ca_bundle_file),
            Named::file(&config.auth_egress_cert_file),
            Named::file(&config.auth_egress_key_file),
            Named::files(&config.auth_egress_server_name, Vec::new()),
        ];
        let admin = [Named::file(&config.auth_admin_web_config_file)];
        let ingress = if settings.tls.ingress.is_some() { &ingress[..] } else { &web };
        mistakes.tls.ingress.iter().for_each(|mistake| self.blame_file(ingress, mistake));
        mistakes.tls.egress.iter().for_each(|mistake| self.blame_file(&egress, mistake));
        mistakes.tls.admin.iter().for_each(|mistake| self.blame_file(&admin, mistake));
        for mistake in mistakes.auth {
            self.blame_auth(mistake, |file| match file {
                AuthFile::Web => &config.auth_ingress_web_config_file,
                AuthFile::Tokens => &config.auth_ingress_tokens_file,
                AuthFile::Jwks => &config.auth_ingress_jwks_file,
                AuthFile::Access => &config.access,
            });
        }
        for mistake in mistakes.admin_auth {
            self.blame_auth(mistake, |file| match file {
                AuthFile::Tokens => &config.auth_admin_tokens_file,
                _ => &config.auth_admin_web_config_file,
            });
        }
    }

    fn blame_auth<'s>(&mut self, mistake: AuthMistake, setting: impl Fn(AuthFile) -> &'s Setting<String>) {
        match mistake {
            AuthMistake::Unreadable(file, text) => self.blame(setting(file), text),
            AuthMistake::Content(mistakes) => self.mistakes.extend(mistakes.elsewhere()),
        }
    }

    fn auth(&mut self, tenant: Option<&TenantRules>) -> AuthSettings {
        let config = self.config;
        AuthSettings {
            web: some_path(&config.auth_ingress_web_config_file),
            tokens: some_path(&config.auth_ingress_tokens_file),
            jwts: self.jwts(),
            access: tenant.and_then(|tenant| self.access(tenant)),
        }
    }

    fn admin_auth(&self) -> AuthSettings {
        AuthSettings {
            web: some_path(&self.config.auth_admin_web_config_file),
            tokens: some_path(&self.config.auth_admin_tokens_file),
            ..AuthSettings::default()
        }
    }

    fn jwts(&mut self) -> Option<(PathBuf, JwtRules)> {
        let config = self.config;
        let claim = &config.auth_ingress_jwt_tenants_claim;
        let Some(path) = some_path(&config.auth_ingress_jwks_file) else {
            let text = "has no effect without auth.ingress.jwt.jwks_file";
            for list in [&config.auth_ingress_jwt_audiences, &config.auth_ingress_jwt_issuers] {
                if !list.value.is_empty() {
                    self.blame(list, text);
                }
            }
            if !claim.value.is_empty() {
                self.blame(claim, text);
            }
            return None;
        };
        let rules = JwtRules {
            audiences: config.auth_ingress_jwt_audiences.value.clone(),
            issuers: config.auth_ingress_jwt_issuers.value.clone(),
            leeway: config.auth_ingress_jwt_leeway.value,
            tenants_claim: Some(claim.value.clone()).filter(|claim| !claim.is_empty()),
        };
        Some((path, rules))
    }

    fn access(&mut self, tenant: &TenantRules) -> Option<AccessSettings> {
        let config = self.config;
        let file = some_path(&config.access)?;
        if tenant.prefix_prefer_source {
            let text = "lets a sender choose the prefix of its tenants, which access rules are to prevent: switch it off";
            self.blame(&config.tenant_prefix_prefer_source, text);
        }
        let header = TenantHeader::parse(&config.tenant_header.value);
        Some(AccessSettings {
            file,
            verifies_certificates: config.auth_ingress_client_auth.value.verifies(),
            has_tenant_header: header.is_ok_and(|header| !header.inbound().is_empty()),
            id_rules: tenant.id_rules,
        })
    }

    fn blame_file(&mut self, settings: &[Named<'_>], mistake: &material::Mistake) {
        let named = |setting: &&Named<'_>| match &mistake.place {
            Place::File(path) => setting.files.iter().any(|file| path.as_os_str() == *file),
            Place::Setting(name) => setting.key.path.ends_with(name),
        };
        let text = match &mistake.place {
            Place::File(path) => format!("{} {}", path.display(), mistake.reason),
            Place::Setting(_) => mistake.reason.to_string(),
        };
        if let Some(setting) = settings.iter().find(named).or(settings.first())
            && setting.origin != Origin::Mistaken
        {
            self.mistakes.push(Mistake::of(setting.key, setting.origin, text));
        }
    }

    /// Without a certificate `listen` speaks plain HTTP: settings that are to protect it must not be passed over.
    fn certificate_is_needed(&mut self) {
        let config = self.config;
        let text = "has no effect without auth.ingress.tls_config.cert_file: `listen` would speak plain HTTP";
        if config.auth_ingress_client_auth.value != ClientAuth::None {
            self.blame(&config.auth_ingress_client_auth, text);
        }
        for setting in [&config.auth_ingress_client_ca_file, &config.auth_ingress_min_version] {
            if !setting.value.is_empty() {
                self.blame(setting, text);
            }
        }
        for setting in [&config.auth_ingress_more_certificates, &config.auth_ingress_cipher_suites] {
            if !setting.value.is_empty() {
                self.blame(setting, text);
            }
        }
    }

    fn ingress_tls(&mut self) -> Option<ServerSettings> {
        let config = self.config;
        let (cert, key) = (&config.auth_ingress_cert_file, &config.auth_ingress_key_file);
        if cert.value.is_empty() && key.value.is_empty() {
            self.certificate_is_needed();
        }
        let first = self.certificate(cert, key)?;
        let mut certificates = vec![first];
        for pair in &config.auth_ingress_more_certificates.value {
            match pair.split_once(':') {
                Some((certificate, key)) => {
                    certificates.push(CertificateFiles { certificate: certificate.into(), key: key.into() });
                }
                None => {
                    let text = format!("{} is not of the form CERT_FILE:KEY_FILE", found(pair));
                    self.blame(&config.auth_ingress_more_certificates, text);
                }
            }
        }
        Some(ServerSettings {
            certificates,
            client_auth: config.auth_ingress_client_auth.value,
            client_ca: some_path(&config.auth_ingress_client_ca_file),
            choices: Choices {
                min_version: Some(config.auth_ingress_min_version.value.clone())
                    .filter(|name| !name.is_empty()),
                cipher_suites: config.auth_ingress_cipher_suites.value.clone(),
                ..Choices::default()
            },
            client_allowed_sans: Vec::new(),
            prefer_server_cipher_suites: true,
        })
    }

    fn egress_tls(&mut self) -> ClientSettings {
        let config = self.config;
        let name = &config.auth_egress_server_name.value;
        ClientSettings {
            ca: some_path(&config.auth_egress_ca_bundle_file),
            certificate: self.certificate(&config.auth_egress_cert_file, &config.auth_egress_key_file),
            server_name: Some(name.clone()).filter(|name| !name.is_empty()),
            insecure_skip_verify: config.auth_egress_insecure_skip_verify.value,
            choices: Choices::default(),
        }
    }

    /// A certificate and its key: both are set, or none.
    fn certificate(&mut self, cert: &Setting<String>, key: &Setting<String>) -> Option<CertificateFiles> {
        match (cert.value.is_empty(), key.value.is_empty()) {
            (true, true) => None,
            (false, false) => Some(CertificateFiles {
                certificate: cert.value.as_str().into(),
                key: key.value.as_str().into(),
            }),
            (false, true) => {
                let text = format!("{} is set, but {} is not: set both or none", cert.key.path, key.key.path);
                self.blame_pair(cert, key, text);
                None
            }
            (true, false) => {
                let text = format!("{} is set, but {} is not: set both or none", key.key.path, cert.key.path);
                self.blame_pair(key, cert, text);
                None
            }
        }
    }
}
