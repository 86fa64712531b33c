//! Operators' rules about label values: a map to tenants ([`TenantMap`]) and a list of allowed tenants
//! ([`TenantAllow`]).
//!
//! Design constraints:
//!
//! * A map is read from the top and the first match decides, so the file shows what happens. It may have thousands of
//!   rules for single values; these are looked up, not tried one by one.
//! * Values are untrusted input. Patterns take time linear in the value (guaranteed by the regex crate) and match it as
//!   a whole. A pattern that matched a part of a value could give one tenant's data to another.
//! * A rule that can never apply is reported as a mistake.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use regex::bytes::{Captures, Regex, RegexSet};

use crate::text::quote;

/// The values that a rule applies to. Rules are text because values are UTF-8; a value that is not matches no pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Matches {
    /// This value.
    Exact(String),
    /// Values with this prefix.
    Prefix(String),
    /// Values that the pattern matches as a whole, in the syntax of the regex crate. `.` also matches line ends.
    Regex(String),
}

/// What happens to a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// It is mapped to this tenant. With a [`Matches::Regex`], `$1`, `${12}` and `${name}` insert what the group
    /// matched, and `$$` inserts a dollar.
    Tenant(String),
    /// Its series are dropped.
    Drop,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapRule {
    /// The values that it applies to.
    pub matches: Matches,
    /// What happens to them.
    pub target: Target,
}

/// As in the file, on one line of harmless text: `prefix: "dev-", tenant: "development"`.
impl fmt::Display for MapRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match &self.matches {
            Matches::Exact(value) => ("exact", value),
            Matches::Prefix(prefix) => ("prefix", prefix),
            Matches::Regex(pattern) => ("regex", pattern),
        };
        let mut line = format!("{kind}: ");
        quote(text.as_bytes(), &mut line);
        match &self.target {
            Target::Tenant(tenant) => {
                line.push_str(", tenant: ");
                quote(tenant.as_bytes(), &mut line);
            }
            Target::Drop => line.push_str(", drop: true"),
        }
        f.write_str(&line)
    }
}

/// A mistake in a rule, to be corrected by the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapFault {
    /// An earlier rule has the same value or prefix.
    #[error("never applies: rule {} is for the same", .earlier + 1)]
    Repeated {
        /// The index of that rule, from 0.
        earlier: usize,
    },
    /// Empty values do not exist, and an empty prefix would match every value.
    #[error("must not be empty")]
    Empty,
    /// Only [`Target::Drop`] drops series.
    #[error("the tenant must not be empty; `drop: true` leaves series out")]
    EmptyTenant,
    /// The pattern is invalid or too large.
    #[error("is not a regular expression: {0}")]
    Pattern(String),
    /// The tenant refers to a group that the pattern does not have, or the reference is malformed.
    #[error("`{0}` stands for no group of the pattern; write `$$` for a dollar")]
    Group(String),
    /// All patterns together are too large.
    #[error("all patterns together are too large: {0}")]
    TooLarge(String),
}

/// The result of mapping a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mapped<'a> {
    /// The value itself: no rule applies.
    Itself,
    /// This tenant.
    Tenant(Cow<'a, [u8]>),
    /// None: its series are dropped.
    Dropped,
}

/// An ordered list of rules. The first match decides. Values without a match stay as they are.
#[derive(Clone, Debug)]
pub struct TenantMap {
    rules: Vec<MapRule>,
    /// The tenants of rules that refer to groups, by rule index.
    templates: HashMap<usize, Template>,
    /// Rule indexes by value, and by prefix.
    exact: HashMap<Box<[u8]>, usize>,
    prefixes: HashMap<Box<[u8]>, usize>,
    /// The distinct lengths of the prefixes.
    prefix_lengths: Vec<usize>,
    patterns: RegexSet,
    /// The rule indexes of `patterns`.
    pattern_rules: Vec<usize>,
}

impl PartialEq for TenantMap {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for TenantMap {}

/// A tenant assembled from what the groups of a pattern match.
#[derive(Clone, Debug)]
struct Template {
    pattern: Regex,
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Group(usize),
}

impl TenantMap {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// All mistakes, each with the index of its rule, from 0.
    pub fn new(rules: Vec<MapRule>) -> Result<Self, Vec<(usize, MapFault)>> {
        let mut map = Self {
            rules: Vec::new(),
            templates: HashMap::new(),
            exact: HashMap::new(),
            prefixes: HashMap::new(),
            prefix_lengths: Vec::new(),
            patterns: RegexSet::empty(),
            pattern_rules: Vec::new(),
        };
        let mut faults = Vec::new();
        let mut patterns = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            if let Err(fault) = map.add(at, rule, &mut patterns) {
                faults.push((at, fault));
            }
        }
        map.prefix_lengths = map.prefixes.keys().map(|prefix| prefix.len()).collect();
        map.prefix_lengths.sort_unstable();
        map.prefix_lengths.dedup();
        if faults.is_empty() {
            match RegexSet::new(&patterns) {
                Ok(set) => map.patterns = set,
                Err(error) => faults.push((0, MapFault::TooLarge(one_line(&error)))),
            }
        }
        map.rules = rules;
        if faults.is_empty() { Ok(map) } else { Err(faults) }
    }

    fn add(&mut self, at: usize, rule: &MapRule, patterns: &mut Vec<String>) -> Result<(), MapFault> {
        if rule.target == Target::Tenant(String::new()) {
            return Err(MapFault::EmptyTenant);
        }
        let (known, key) = match &rule.matches {
            Matches::Exact(value) => (&mut self.exact, value),
            Matches::Prefix(prefix) => (&mut self.prefixes, prefix),
            Matches::Regex(pattern) => return self.add_pattern(at, pattern, &rule.target, patterns),
        };
        if key.is_empty() {
            return Err(MapFault::Empty);
        }
        if let Some(earlier) = known.get(key.as_bytes()) {
            return Err(MapFault::Repeated { earlier: *earlier });
        }
        known.insert(key.as_bytes().into(), at);
        Ok(())
    }

    fn add_pattern(
        &mut self,
        at: usize,
        pattern: &str,
        target: &Target,
        patterns: &mut Vec<String>,
    ) -> Result<(), MapFault> {
        if pattern.is_empty() {
            return Err(MapFault::Empty);
        }
        let whole = anchored(pattern);
        let compile =
            |pattern: &str| Regex::new(pattern).map_err(|error| MapFault::Pattern(one_line(&error)));
        // Compiled as written first, so that errors quote the author's text.
        compile(pattern)?;
        let compiled = compile(&whole)?;
        if let Target::Tenant(tenant) = target {
            let pieces = pieces(tenant, &compiled)?;
            if pieces.iter().any(|piece| matches!(piece, Piece::Group(_))) || tenant.contains("$$") {
                self.templates.insert(at, Template { pattern: compiled, pieces });
            }
        }
        self.pattern_rules.push(at);
        patterns.push(whole);
        Ok(())
    }

    /// Maps `value`.
    pub(crate) fn map<'a>(&'a self, value: &[u8]) -> Mapped<'a> {
        self.first_rule(value).map_or(Mapped::Itself, |at| self.apply(at, value))
    }

    /// The rule at this index, from 0.
    pub fn rule(&self, at: usize) -> Option<&MapRule> {
        self.rules.get(at)
    }

    /// What the rule at this index, which is the first that matches `value`, makes of it.
    pub(super) fn apply<'a>(&'a self, at: usize, value: &[u8]) -> Mapped<'a> {
        match (&self.rules[at].target, self.templates.get(&at)) {
            (Target::Drop, _) => Mapped::Dropped,
            (Target::Tenant(_), Some(template)) => Mapped::Tenant(
                template
                    .pattern
                    .captures(value)
                    .map(|groups| template.fill(&groups))
                    .unwrap_or_default()
                    .into(),
            ),
            (Target::Tenant(tenant), None) => Mapped::Tenant(tenant.as_bytes().into()),
        }
    }

    /// The index of the first rule that matches `value`.
    pub(super) fn first_rule(&self, value: &[u8]) -> Option<usize> {
        let exact = self.exact.get(value).copied();
        let prefix =
            |length: &usize| value.get(..*length).and_then(|begin| self.prefixes.get(begin).copied());
        let sure = self.prefix_lengths.iter().filter_map(prefix).chain(exact).min();
        // Patterns cost the most. They are skipped if all of them come later.
        if self.pattern_rules.first().is_none_or(|first| sure.is_some_and(|sure| sure < *first)) {
            return sure;
        }
        let pattern = self.patterns.matches(value).iter().next().map(|at| self.pattern_rules[at]);
        sure.into_iter().chain(pattern).min()
    }
}

impl Template {
    fn fill(&self, groups: &Captures<'_>) -> Vec<u8> {
        let mut tenant = Vec::new();
        for piece in &self.pieces {
            tenant.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Group(group) => groups.get(*group).map(|found| found.as_bytes()).unwrap_or_default(),
            });
        }
        tenant
    }
}

/// Parses a tenant that may refer to groups of `pattern`.
fn pieces(tenant: &str, pattern: &Regex) -> Result<Vec<Piece>, MapFault> {
    let mut pieces = Vec::new();
    let mut rest = tenant;
    while let Some((text, behind)) = rest.split_once('$') {
        pieces.push(Piece::Text(text.to_owned()));
        let digits = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (group, behind) = if let Some(behind) = behind.strip_prefix('$') {
            pieces.push(Piece::Text("$".to_owned()));
            rest = behind;
            continue;
        } else if let Some((name, behind)) =
            behind.strip_prefix('{').and_then(|inside| inside.split_once('}'))
        {
            (name, behind)
        } else {
            behind.split_at(digits)
        };
        let number = match group.parse::<usize>() {
            Ok(number) => (number < pattern.captures_len()).then_some(number),
            Err(_) => pattern.capture_names().position(|name| name == Some(group)),
        };
        pieces.push(Piece::Group(number.ok_or_else(|| MapFault::Group(format!("${group}")))?));
        rest = behind;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

/// `pattern`, anchored to match whole values only.
pub(crate) fn anchored(pattern: &str) -> String {
    format!(r"\A(?s:{pattern})\z")
}

/// The regular expression for a text in which `*` stands for any text.
pub(super) fn glob(pattern: &str) -> String {
    let texts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    anchored(&texts.join(".*"))
}

/// An error of the regex crate on one line. It draws a picture whose last line says what is wrong.
pub(crate) fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// The tenants that senders may name: IDs without their prefix, in which `*` stands for any text, even none.
#[derive(Clone, Debug)]
pub struct TenantAllow {
    patterns: Vec<String>,
    exact: HashSet<Box<[u8]>>,
    globs: RegexSet,
}

impl PartialEq for TenantAllow {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for TenantAllow {}

impl TenantAllow {
    /// Compiles `patterns`. An empty list allows no tenant.
    ///
    /// # Errors
    /// If all patterns together are too large.
    pub fn new(patterns: Vec<String>) -> Result<Self, MapFault> {
        let (globs, exact): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.contains('*'));
        let globs = RegexSet::new(globs.into_iter().map(|pattern| glob(pattern)))
            .map_err(|error| MapFault::TooLarge(one_line(&error)))?;
        let exact = exact.into_iter().map(|id| id.as_bytes().into()).collect();
        Ok(Self { patterns, exact, globs })
    }

    /// Whether `id` is allowed.
    pub(crate) fn allows(&self, id: &[u8]) -> bool {
        self.exact.contains(id) || self.globs.is_match(id)
    }
}

#[cfg(test)]
mod tests;
