//! The file of `tenant.map`: a YAML list of rules. Each rule selects values of the tenant label and says what happens
//! to them. The first match decides.
//!
//! ```yaml
//! - exact: infra             # this value
//!   tenant: platform
//! - prefix: dev-             # values that begin with this
//!   tenant: development
//! - regex: '(.+)-(eu|us)'    # values that match as a whole
//!   tenant: $1
//! - regex: 'test-.*'
//!   drop: true               # the series are left out, and the sender is not told
//! ```
#![forbid(unsafe_code)]

use super::mistake::{ConfigMistakes, Mistake};
use super::yaml::{self, Content, Name, Node};
use crate::tenant::map::{MapFault, MapRule, Matches, Target, TenantMap};
use crate::tenant::{IdFault, IdRules, check_id};

/// Parses the `text` of a map. `file` is the name used in errors. IDs have to follow `id_rules`.
///
/// # Errors
/// All mistakes, each with its line.
pub fn read_tenant_map(file: &str, text: &str, id_rules: IdRules) -> Result<TenantMap, ConfigMistakes> {
    let mut reader = Reader { id_rules, mistakes: Vec::new(), rules: Vec::new(), lines: Vec::new() };
    match yaml::read(text) {
        Ok(document) => reader.document(document),
        Err(fault) => reader.mistakes.push(Mistake::in_line(fault.line, "", fault.text)),
    }
    let Reader { mut mistakes, rules, lines, .. } = reader;
    let map = TenantMap::new(rules);
    match map {
        Ok(map) if mistakes.is_empty() => return Ok(map),
        Ok(_) => {}
        Err(faults) => {
            let line = |at: usize| lines.get(at).copied().unwrap_or(1);
            let told = |(at, fault)| match fault {
                MapFault::Repeated { earlier } => {
                    let text = format!("never applies: the rule on line {} is for the same", line(earlier));
                    Mistake::in_line(line(at), "", text)
                }
                fault => Mistake::in_line(line(at), "", fault.to_string()),
            };
            mistakes.extend(faults.into_iter().map(told));
        }
    }
    Err(ConfigMistakes::new(file, mistakes))
}

struct Reader {
    id_rules: IdRules,
    mistakes: Vec<Mistake>,
    rules: Vec<MapRule>,
    /// The line on which each rule begins.
    lines: Vec<usize>,
}

/// The keys found in one rule.
#[derive(Default)]
struct Keys {
    matches: Option<(Name, Node)>,
    target: Option<(Name, Node)>,
    /// A mistake has been reported, and the rule is incomplete because of it.
    broken: bool,
}

impl Reader {
    fn document(&mut self, document: Node) {
        match document.content {
            Content::List(items) => items.into_iter().for_each(|item| self.rule(item)),
            Content::Null => {}
            Content::Text(_) | Content::Map(_) => {
                let text = format!("wants a list of rules (`- exact: …`), not {}", document.kind());
                self.mistake(document.line, "", text);
            }
        }
    }

    fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    fn rule(&mut self, item: Node) {
        let (line, kind) = (item.line, item.kind());
        let Content::Map(entries) = item.content else {
            return self.mistake(line, "", format!("a rule wants keys with values (`exact: …`), not {kind}"));
        };
        let mut keys = Keys::default();
        for (name, node) in entries {
            self.key(&mut keys, name, node);
        }
        let matches = match keys.matches {
            Some((name, node)) => self.matches(&name, node),
            None if keys.broken => None,
            None => {
                self.mistake(line, "", "the values are missing; give `exact`, `prefix` or `regex`");
                None
            }
        };
        let is_pattern = matches!(matches, Some(Matches::Regex(_)));
        let target = match keys.target {
            Some((name, node)) => self.target(&name, node, is_pattern),
            None if keys.broken => None,
            None => {
                self.mistake(line, "", "the tenant is missing; give `tenant`, or `drop: true`");
                None
            }
        };
        if let (Some(matches), Some(target), false) = (matches, target, keys.broken) {
            self.rules.push(MapRule { matches, target });
            self.lines.push(line);
        }
    }

    fn key(&mut self, keys: &mut Keys, name: Name, node: Node) {
        let place = match name.text.as_str() {
            "exact" | "prefix" | "regex" => &mut keys.matches,
            "tenant" | "drop" => &mut keys.target,
            _ => {
                keys.broken = true;
                let text =
                    "unknown key; a rule has one of exact, prefix and regex, and one of tenant and drop";
                return self.mistake(name.line, &name.text, text);
            }
        };
        if let Some((first, _)) = place {
            keys.broken = true;
            let text = format!("`{}` is already given; a rule has only one of them", first.text);
            return self.mistake(name.line, &name.text, text);
        }
        *place = Some((name, node));
    }

    fn text(&mut self, name: &Name, node: Node) -> Option<String> {
        let kind = node.kind();
        match node.content {
            Content::Text(text) => Some(text),
            Content::Null | Content::List(_) | Content::Map(_) => {
                self.mistake(name.line, &name.text, format!("wants a single value, not {kind}"));
                None
            }
        }
    }

    fn matches(&mut self, name: &Name, node: Node) -> Option<Matches> {
        let text = self.text(name, node)?;
        Some(match name.text.as_str() {
            "exact" => Matches::Exact(text),
            "prefix" => Matches::Prefix(text),
            _ => Matches::Regex(text),
        })
    }

    fn target(&mut self, name: &Name, node: Node, is_pattern: bool) -> Option<Target> {
        let text = self.text(name, node)?;
        if name.text == "drop" {
            if text == "true" {
                return Some(Target::Drop);
            }
            self.mistake(name.line, &name.text, "wants `true`, or give `tenant` in its place");
            return None;
        }
        // A tenant with group references is known only for a given value. And with a prefix, an ID that is too long or
        // reserved may become valid, or the other way round. So only characters are checked here.
        let refers = is_pattern && text.contains('$');
        if let (false, Err(fault @ IdFault::Character(_))) =
            (refers, check_id(text.as_bytes(), self.id_rules))
        {
            self.mistake(name.line, &name.text, format!("is no tenant ID: {fault}"));
            return None;
        }
        Some(Target::Tenant(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantRules;
    use std::sync::Arc;

    /// The mistakes of a map, one per line.
    fn mistakes(text: &str) -> Vec<String> {
        let mistakes = read_tenant_map("map.yml", text, IdRules::Mimir).unwrap_err();
        mistakes.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn rules_map_values_in_the_files_order() {
        let text = "\
- exact: infra
  tenant: platform
- {prefix: dev-, tenant: development}
- tenant: $1
  regex: '(.+)-(eu|us)'
- regex: test-.*
  drop: true
- exact: 007
  tenant: 'null'
";
        let map = read_tenant_map("map.yml", text, IdRules::Mimir).unwrap();
        let rules = TenantRules { map: Some(Arc::new(map)), ..TenantRules::of_label(b"t") };
        for (value, tenant) in [
            ("infra", "platform"),
            ("dev-eu", "development"),
            ("shop-eu", "shop"),
            ("other", "other"),
            ("007", "null"),
            // The rule above is asked first.
            ("test-eu", "test"),
        ] {
            assert_eq!(rules.resolve(Some(value.as_bytes()), None).unwrap().as_str(), tenant);
        }
        let dropped = rules.resolve(Some(b"test-1"), None).unwrap_err();
        assert_eq!(dropped.to_string(), "the map drops \"test-1\" (from label t)");
    }

    #[test]
    fn an_empty_file_has_no_rules() {
        for text in ["", "# nothing yet\n", "[]"] {
            assert_eq!(
                read_tenant_map("map.yml", text, IdRules::Mimir),
                Ok(TenantMap::new(Vec::new()).unwrap())
            );
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = "\
- exact: a
  tenant: x
- exact: a
  prefix: b
  tenant: y
- exakt: a
  tenant: x
- tenant: x
- prefix: b
- just words
- regex: a(
  drop: true
- exact: c
  drop: false
- exact: [d]
  tenant: two words
- exact:
  tenant: ''
- regex: (.*)
  tenant: $2
- exact: e
  tenant: x
  drop: true
- exact: a
  tenant: z
";
        assert_eq!(
            mistakes(text),
            [
                "map.yml:4: prefix: `exact` is already given; a rule has only one of them",
                "map.yml:6: exakt: unknown key; a rule has one of exact, prefix and regex, and one of tenant and drop",
                "map.yml:8: the values are missing; give `exact`, `prefix` or `regex`",
                "map.yml:9: the tenant is missing; give `tenant`, or `drop: true`",
                "map.yml:10: a rule wants keys with values (`exact: …`), not a single value",
                "map.yml:11: is not a regular expression: unclosed group",
                "map.yml:14: drop: wants `true`, or give `tenant` in its place",
                "map.yml:15: exact: wants a single value, not a list",
                "map.yml:16: tenant: is no tenant ID: it contains ' ', which is not allowed",
                "map.yml:17: exact: wants a single value, not nothing",
                "map.yml:19: `$2` stands for no group of the pattern; write `$$` for a dollar",
                "map.yml:23: drop: `tenant` is already given; a rule has only one of them",
                "map.yml:24: never applies: the rule on line 1 is for the same",
            ]
        );
    }

    #[test]
    fn anything_but_a_list_is_reported() {
        assert_eq!(mistakes("exact: a"), ["map.yml:1: wants a list of rules (`- exact: …`), not a section"]);
        assert_eq!(mistakes("a: ["), mistakes("a: ["));
        assert!(
            mistakes("- exact: 'a\n")[0].starts_with("map.yml:1: not YAML"),
            "{:?}",
            mistakes("- exact: 'a\n")
        );
        assert_eq!(
            mistakes("- exact: a\n  tenant: ''\n"),
            ["map.yml:1: the tenant must not be empty; `drop: true` leaves series out"]
        );
    }
}
