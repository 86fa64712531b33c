//! Why a series goes to its tenant, or to none.
//!
//! This is for people and takes its time. The tenant is found by the code that also splits requests
//! ([`TenantRules::settle`]), so that both always agree.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{Grant, Rule, TenantError, TenantId, TenantRules};
use crate::text::quote;

/// The label that names the tenant: of those that the series has with a value, the first by priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecidingLabel {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its value; not empty.
    pub value: Box<[u8]>,
    /// Its priority, from 0.
    pub priority: usize,
}

/// What is decided about one series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The deciding label, if the series has one. If a [`Rule::Header`] or [`Rule::Grant`] decides, its value does not
    /// matter.
    pub label: Option<DecidingLabel>,
    /// The rule that decides; `None` if there is no label and no default.
    pub rule: Option<Rule>,
    /// The tenant, or why there is none.
    pub tenant: Result<TenantId, TenantError>,
    /// Whether the deciding label is removed before the series is sent.
    pub label_removed: bool,
}

impl Decision {
    /// The decision as one word: `tenant`, `missing`, `invalid`, `denied` or `dropped`.
    pub fn word(&self) -> &'static str {
        match &self.tenant {
            Ok(_) => "tenant",
            Err(TenantError::Missing { .. }) => "missing",
            Err(TenantError::Invalid { .. }) => "invalid",
            Err(TenantError::Denied { .. }) => "denied",
            Err(TenantError::Dropped { .. }) => "dropped",
        }
    }
}

impl TenantRules {
    /// Decides about a series. `value_of` returns the value of its label of a name, if it has one with a value; of
    /// several, the first. `source` is the request's tenant header, and `grant` that of its sender. `label_remove` is
    /// the setting for this kind of data.
    pub fn decide<'v>(
        &self,
        mut value_of: impl FnMut(&[u8]) -> Option<Cow<'v, [u8]>>,
        source: Option<&str>,
        grant: &Grant,
        label_remove: bool,
    ) -> Decision {
        let label = self.labels.iter().enumerate().find_map(|(priority, name)| {
            let value = value_of(name).filter(|value| !value.is_empty())?;
            Some(DecidingLabel { name: name.clone(), value: value.into_owned().into(), priority })
        });
        let value = label.as_ref().map(|label| &*label.value);
        let (rule, tenant) = self.settle(value, source, grant);
        let tenant = tenant.map_err(|reason| self.explain(reason, value, source, grant));
        let label_removed = label_remove && label.is_some() && tenant.is_ok();
        Decision { label, rule, tenant, label_removed }
    }

    /// What a rule says, on one line of harmless text.
    pub fn describe(&self, rule: Rule) -> String {
        let mut text = String::new();
        match rule {
            Rule::Label => text.push_str("the label's value is the tenant"),
            Rule::Map(at) => {
                let of_map = self.map.as_ref().and_then(|map| map.rule(at));
                text.push_str(&format!("rule {} of tenant.map", at.saturating_add(1)));
                if let Some(of_map) = of_map {
                    text.push_str(&format!(": {of_map}"));
                }
            }
            Rule::Default => {
                text.push_str("tenant.default: ");
                quote(self.default_id().unwrap_or_default(), &mut text);
            }
            Rule::Header => text.push_str("the tenant header, by an access rule that trusts it"),
            Rule::Grant => text.push_str("the access rule of the sender names the tenant"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tenant::map::{MapRule, Matches, Target, TenantMap};

    fn rules() -> TenantRules {
        let rule = |matches, target| MapRule { matches, target };
        let map = TenantMap::new(vec![
            rule(Matches::Prefix("dev-".into()), Target::Tenant("development".into())),
            rule(Matches::Regex("test-.*".into()), Target::Drop),
        ]);
        TenantRules {
            labels: vec![(*b"team").into(), (*b"namespace").into()],
            prefix: "eu-".into(),
            map: Some(Arc::new(map.unwrap())),
            ..TenantRules::of_label(b"")
        }
    }

    fn decide(rules: &TenantRules, labels: &[(&str, &str)], source: Option<&str>, grant: &Grant) -> Decision {
        let value_of = |name: &[u8]| {
            let found = labels.iter().find(|(known, _)| known.as_bytes() == name);
            found.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
        };
        rules.decide(value_of, source, grant, true)
    }

    /// The decision, the tenant if there is one, and what the rule says.
    fn told(rules: &TenantRules, labels: &[(&str, &str)]) -> (&'static str, String, String) {
        let decision = decide(rules, labels, None, &Grant::Any);
        let rule = decision.rule.map_or(String::new(), |rule| rules.describe(rule));
        (decision.word(), decision.tenant.map_or(String::new(), |id| id.to_string()), rule)
    }

    #[test]
    fn each_rule_is_named() {
        let defaulted = TenantRules { default: Some("x\u{202e}y".into()), ..rules() };
        let told = |rules: &TenantRules, labels: &[(&str, &str)], expected: (&'static str, &str, &str)| {
            let expected = (expected.0, expected.1.to_owned(), expected.2.to_owned());
            assert_eq!(told(rules, labels), expected, "{labels:?}");
        };
        told(&rules(), &[("namespace", "a")], ("tenant", "eu-a", "the label's value is the tenant"));
        let mapped = "rule 1 of tenant.map: prefix: \"dev-\", tenant: \"development\"";
        told(&rules(), &[("namespace", "dev-1")], ("tenant", "eu-development", mapped));
        let dropped = "rule 2 of tenant.map: regex: \"test-.*\", drop: true";
        told(&rules(), &[("namespace", "test-1")], ("dropped", "", dropped));
        told(&rules(), &[("other", "a")], ("missing", "", ""));
        told(&rules(), &[("team", "a b")], ("invalid", "", "the label's value is the tenant"));
        let default = "tenant.default: \"x\\u202ey\"";
        told(&defaulted, &[("team", "")], ("invalid", "", default));
    }

    #[test]
    fn the_label_is_the_first_with_a_value() {
        let labels = [("namespace", "a"), ("team", "")];
        let decision = decide(&rules(), &labels, None, &Grant::Any);
        let expected = DecidingLabel { name: (*b"namespace").into(), value: (*b"a").into(), priority: 1 };
        assert_eq!(decision.label, Some(expected));
        assert!(decision.label_removed);
        let refused = decide(&rules(), &[("team", "a b")], None, &Grant::Any);
        assert!(refused.label.is_some() && !refused.label_removed);
    }

    #[test]
    fn grants_decide_before_labels() {
        let forced = Grant::Forced("f".into());
        for (grant, source, rule) in [
            (&forced, None, Rule::Grant),
            (&Grant::Header, Some("f"), Rule::Header),
            (&Grant::Header, None, Rule::Label),
        ] {
            let decision = decide(&rules(), &[("team", "a")], source, grant);
            let tenant = if rule == Rule::Label { "eu-a" } else { "eu-f" };
            assert_eq!((decision.rule, decision.tenant.unwrap().as_str()), (Some(rule), tenant));
            assert!(decision.label_removed, "as the splitter does");
        }
        let denied = decide(&rules(), &[("team", "a")], None, &Grant::Named(["b".into()].into()));
        assert_eq!(denied.word(), "denied");
    }
}
