//! The file of access rules: a YAML list. Each rule names credentials and says which tenants they may write to. The
//! first rule that matches a credential decides; without one, it may write to none.
//!
//! ```yaml
//! - for: {user: alice}
//!   tenants: [shop, shop-*]                 # series may go to these; `*` stands for any text
//! - for: [{token: agent}, {certificate_cn: agent-*}]
//!   tenant: infra                           # all series go to this one
//! - for: {certificate_dns: '*.agents.example.com'}
//!   tenant: {from: certificate_dns, match: '(.+)\.agents\.example\.com', as: $1}
//! - for: {jwt: {sub: 'service-*'}}
//!   tenants: {from: jwt}                    # those that the token names
//! - for: {user: gateway}
//!   trust_header: true                      # the request's tenant header decides
//! - for: {anyone: true}                     # any other credential, or none
//!   tenants: [public]
//! ```
#![forbid(unsafe_code)]

use super::excerpt::found;
use super::mistake::{ConfigMistakes, Mistake};
use super::yaml::{self, Content, Name, Node};
use crate::auth::Tokens;
use crate::auth::access::{Access, AccessFault, AccessRule, Source, What, Who};
use crate::auth::password::Users;
use crate::tenant::IdRules;
use crate::tenant::map::{MapFault, MapRule, Matches, Target, TenantAllow, TenantMap};

/// The credentials that can occur. A rule for any other one never applies.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The users.
    pub users: &'a Users,
    /// The tokens.
    pub tokens: &'a Tokens,
    /// Whether JWTs are accepted.
    pub jwts: bool,
    /// Whether JWTs name tenants.
    pub jwt_tenants: bool,
    /// Whether the certificates of senders are verified.
    pub certificates: bool,
    /// Whether a request may name its tenant in a header.
    pub tenant_header: bool,
}

impl Credentials<'_> {
    /// Why a rule for `who` never applies.
    fn missing(&self, who: &Who) -> Option<String> {
        match who {
            Who::User(name) if !self.users.contains_key(name.as_str()) => {
                Some(format!("there is no user {}; auth.ingress.web_config_file has the users", found(name)))
            }
            Who::Token(name) if !self.tokens.names().any(|known| known == name) => {
                Some(format!("there is no token {}; auth.ingress.tokens_file has the tokens", found(name)))
            }
            Who::Jwt(_) if !self.jwts => Some("no JWT is accepted; set auth.ingress.jwt.jwks_file".into()),
            Who::CertificateCn(_) | Who::CertificateDns(_) | Who::CertificateUri(_) if !self.certificates => {
                Some("no certificate of a sender is verified; set auth.ingress.tls_config.client_auth".into())
            }
            _ => None,
        }
    }
}

/// Parses the `text` of access rules. `file` is the name used in errors. Forced tenants have to follow `id_rules`. If
/// the credentials are not known, rules for others are not reported.
///
/// # Errors
/// All mistakes, each with its line.
pub fn read_access(
    file: &str,
    text: &str,
    id_rules: IdRules,
    credentials: Option<&Credentials<'_>>,
) -> Result<Access, ConfigMistakes> {
    let mut reader = Reader { mistakes: Vec::new(), rules: Vec::new(), lines: Vec::new() };
    match yaml::read(text) {
        Ok(document) => reader.document(document),
        Err(fault) => reader.mistake(fault.line, "", fault.text),
    }
    if let Some(credentials) = credentials {
        reader.check_credentials(credentials);
    }
    let Reader { mut mistakes, rules, lines } = reader;
    let line = |at: usize| lines.get(at).copied().unwrap_or(1);
    match Access::new(rules, id_rules) {
        Ok(access) if mistakes.is_empty() => return Ok(access),
        Ok(_) => {}
        Err(faults) => mistakes.extend(faults.into_iter().map(|(at, fault)| {
            let text = match fault {
                AccessFault::Repeated { earlier } => {
                    format!("never applies: the rule on line {} is for the same", line(earlier))
                }
                fault => fault.to_string(),
            };
            Mistake::in_line(line(at), "", text)
        })),
    }
    Err(ConfigMistakes::new(file, mistakes))
}

struct Reader {
    mistakes: Vec<Mistake>,
    rules: Vec<AccessRule>,
    /// The line on which each rule begins.
    lines: Vec<usize>,
}

const CREDENTIALS: &str = "user, token, certificate_cn, certificate_dns, certificate_uri, jwt and anyone";

impl Reader {
    fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    fn document(&mut self, document: Node) {
        let (line, kind) = (document.line, document.kind());
        match document.content {
            Content::List(items) if !items.is_empty() => items.into_iter().for_each(|item| self.rule(item)),
            Content::List(_) | Content::Null => {
                self.mistake(
                    line,
                    "",
                    "has no rules, so nothing could be written; remove the setting to allow everything",
                );
            }
            Content::Text(_) | Content::Map(_) => {
                self.mistake(line, "", format!("wants a list of rules (`- for: …`), not {kind}"));
            }
        }
    }

    /// Reports rules that never apply: for credentials that do not exist, or by a header that is not read.
    fn check_credentials(&mut self, credentials: &Credentials<'_>) {
        for (rule, line) in self.rules.iter().zip(&self.lines) {
            let missing = rule.who.iter().filter_map(|who| credentials.missing(who));
            self.mistakes.extend(missing.map(|text| Mistake::in_line(*line, "for", text)));
            let from_jwt =
                matches!(rule.what, What::TenantsOfJwt | What::ForcedFrom { source: Source::Jwt, .. });
            if from_jwt && !credentials.jwt_tenants {
                let text = "JWTs name no tenants; set auth.ingress.jwt.tenants_claim";
                self.mistakes.push(Mistake::in_line(*line, "from", text));
            }
            if rule.what == What::TrustHeader && !credentials.tenant_header {
                let text = "the tenant is in two headers (tenant.header), which requests cannot name it by";
                self.mistakes.push(Mistake::in_line(*line, "trust_header", text));
            }
        }
    }

    fn rule(&mut self, item: Node) {
        let (line, kind, before) = (item.line, item.kind(), self.mistakes.len());
        let Content::Map(fields) = item.content else {
            return self.mistake(line, "", format!("a rule wants keys with values (`for: …`), not {kind}"));
        };
        let (mut who, mut what) = (None, None);
        for (name, node) in fields {
            match name.text.as_str() {
                "for" if who.is_none() => who = Some(self.who(&name, node)),
                "for" => self.mistake(name.line, "for", "is already given; list several credentials in it"),
                "tenants" | "tenant" | "trust_header" => match &what {
                    None => what = Some((name.text.clone(), self.what(&name, node))),
                    Some((first, _)) => {
                        let text = format!("`{first}` is already given; a rule has only one of them");
                        self.mistake(name.line, &name.text, text);
                    }
                },
                _ => {
                    let text = "unknown key; a rule has `for`, and one of tenants, tenant and trust_header";
                    self.mistake(name.line, &name.text, text);
                }
            }
        }
        if self.mistakes.len() == before && who.is_none() {
            self.mistake(line, "", "the credentials are missing; give `for`");
        }
        if self.mistakes.len() == before && what.is_none() {
            self.mistake(line, "", "what is allowed is missing; give `tenants`, `tenant` or `trust_header`");
        }
        if let (Some(who), Some((_, Some(what)))) = (who, what)
            && self.mistakes.len() == before
        {
            self.rules.push(AccessRule { who, what });
            self.lines.push(line);
        }
    }

    /// The credentials of a rule: one, or a list of them.
    fn who(&mut self, name: &Name, node: Node) -> Vec<Who> {
        let items = match node.content {
            Content::List(items) => items,
            content => vec![Node { content, ..node }],
        };
        if items.is_empty() {
            self.mistake(name.line, "for", "lists no credentials");
        }
        items.into_iter().filter_map(|item| self.credential(item)).collect()
    }

    fn credential(&mut self, item: Node) -> Option<Who> {
        let (line, kind) = (item.line, item.kind());
        let Content::Map(fields) = item.content else {
            self.mistake(line, "for", format!("wants a credential (`user: …`), not {kind}"));
            return None;
        };
        let mut fields = fields.into_iter();
        let (Some((name, node)), None) = (fields.next(), fields.next()) else {
            // Both readings of several keys, all of them or any of them, would be plausible.
            self.mistake(line, "for", "wants one credential per item; write a list (`- user: …`)");
            return None;
        };
        let key = format!("for.{}", name.text);
        let who = match name.text.as_str() {
            "user" => Who::User,
            "token" => Who::Token,
            "certificate_cn" => Who::CertificateCn,
            "certificate_dns" => Who::CertificateDns,
            "certificate_uri" => Who::CertificateUri,
            "jwt" => return self.jwt(&key, node),
            "anyone" => return self.is_true(&key, &node).then_some(Who::Anyone),
            _ => {
                self.mistake(name.line, &key, format!("unknown credential; possible are {CREDENTIALS}"));
                return None;
            }
        };
        self.text(&key, &node).map(who)
    }

    fn jwt(&mut self, key: &str, node: Node) -> Option<Who> {
        let Content::Map(fields) = node.content else {
            return self.is_true(key, &node).then_some(Who::Jwt(None));
        };
        let mut subject = None;
        for (name, node) in fields {
            let key = format!("{key}.{}", name.text);
            match name.text.as_str() {
                "sub" if subject.is_none() => subject = Some(self.text(&key, &node)?),
                "sub" => self.mistake(name.line, &key, "is already given"),
                _ => self.mistake(name.line, &key, "unknown key; possible is `sub`"),
            }
        }
        if subject.is_none() {
            self.mistake(node.line, key, "wants `true` for every JWT, or `sub: …`");
        }
        subject.map(|subject| Who::Jwt(Some(subject)))
    }

    fn what(&mut self, name: &Name, node: Node) -> Option<What> {
        let key = name.text.as_str();
        match (key, &node.content) {
            ("trust_header", _) => self.is_true(key, &node).then_some(What::TrustHeader),
            ("tenants", Content::List(items)) => {
                let patterns: Option<Vec<_>> = items.iter().map(|item| self.text(key, item)).collect();
                match TenantAllow::new(patterns?) {
                    Ok(allow) => Some(What::Tenants(allow)),
                    Err(fault) => {
                        self.mistake(name.line, key, fault.to_string());
                        None
                    }
                }
            }
            ("tenants", Content::Map(_)) => self.tenants_from(node),
            ("tenants", _) => {
                self.mistake(
                    node.line,
                    key,
                    format!("wants a list, or `{{from: jwt}}`, not {}", node.kind()),
                );
                None
            }
            (_, Content::Map(_)) => self.tenant_from(node),
            _ => self.text(key, &node).map(What::Forced),
        }
    }

    /// `tenants: {from: jwt}`.
    fn tenants_from(&mut self, node: Node) -> Option<What> {
        let line = node.line;
        let [from, ..] = self.fields("tenants", node, ["from"])?;
        match from.as_ref().map(|(_, text)| text.as_str()) {
            Some("jwt") => return Some(What::TenantsOfJwt),
            Some(other) => {
                self.mistake(line, "tenants.from", format!("{} is not possible; write jwt", found(other)))
            }
            None => self.mistake(line, "tenants", "wants a list, or `{from: jwt}`"),
        }
        None
    }

    /// `tenant: {from: …, match: …, as: …}`.
    fn tenant_from(&mut self, node: Node) -> Option<What> {
        let line = node.line;
        let [from, pattern, tenant] = self.fields("tenant", node, ["from", "match", "as"])?;
        let Some((from_line, from)) = from else {
            self.mistake(line, "tenant", "wants a tenant ID, or `{from: …}`");
            return None;
        };
        let source = match from.as_str() {
            "user" => Source::User,
            "token" => Source::Token,
            "jwt" => Source::Jwt,
            "certificate_cn" => Source::CertificateCn,
            "certificate_dns" => Source::CertificateDns,
            "certificate_uri" => Source::CertificateUri,
            other => {
                let names = "user, token, jwt, certificate_cn, certificate_dns or certificate_uri";
                self.mistake(
                    from_line,
                    "tenant.from",
                    format!("{} is not possible; write {names}", found(other)),
                );
                return None;
            }
        };
        match (pattern, tenant) {
            (None, None) => Some(What::ForcedFrom { source, map: None }),
            (None, Some((line, _))) => {
                self.mistake(line, "tenant.as", "has no effect without `match`");
                None
            }
            (Some((line, pattern)), tenant) => {
                match translation(&pattern, tenant.map(|(_, tenant)| tenant)) {
                    Ok(map) => Some(What::ForcedFrom { source, map: Some(map) }),
                    Err(fault) => {
                        let key =
                            if matches!(fault, MapFault::Group(_)) { "tenant.as" } else { "tenant.match" };
                        self.mistake(line, key, fault.to_string());
                        None
                    }
                }
            }
        }
    }

    /// The texts of a section with these keys, each with its line. `None` after a mistake.
    fn fields<const N: usize>(
        &mut self,
        section: &str,
        node: Node,
        keys: [&str; N],
    ) -> Option<[Option<(usize, String)>; N]> {
        let mut values = [const { None }; N];
        let before = self.mistakes.len();
        let Content::Map(fields) = node.content else { return Some(values) };
        for (name, node) in fields {
            let key = format!("{section}.{}", name.text);
            let place =
                keys.iter().zip(&mut values).find(|(key, _)| **key == name.text).map(|(_, place)| place);
            match place {
                Some(place @ None) => *place = self.text(&key, &node).map(|text| (name.line, text)),
                Some(Some(_)) => self.mistake(name.line, &key, "is already given"),
                None => {
                    self.mistake(name.line, &key, format!("unknown key; possible are {}", keys.join(", ")))
                }
            }
        }
        (self.mistakes.len() == before).then_some(values)
    }

    fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.content {
            Content::Text(text) if !text.is_empty() => return Some(text.clone()),
            Content::Text(_) => self.mistake(node.line, key, "must not be empty"),
            _ => self.mistake(node.line, key, format!("wants a single value, not {}", node.kind())),
        }
        None
    }

    fn is_true(&mut self, key: &str, node: &Node) -> bool {
        let is_true = node.content == Content::Text("true".into());
        if !is_true {
            self.mistake(node.line, key, "wants `true`, or leave it out");
        }
        is_true
    }
}

/// A map of the names that `pattern` matches as a whole to `tenant`; to the pattern's first group if that is not given,
/// or to the name if the pattern has no group.
fn translation(pattern: &str, tenant: Option<String>) -> Result<TenantMap, MapFault> {
    let map = |tenant: String| {
        let rule = MapRule { matches: Matches::Regex(pattern.to_owned()), target: Target::Tenant(tenant) };
        TenantMap::new(vec![rule])
            .map_err(|faults| faults.into_iter().next().map_or(MapFault::Empty, |(_, fault)| fault))
    };
    match tenant {
        Some(tenant) => map(tenant),
        None => map("$1".into()).or_else(|fault| match fault {
            MapFault::Group(_) => map("$0".into()),
            fault => Err(fault),
        }),
    }
}

#[cfg(test)]
mod tests;
