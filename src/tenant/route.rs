//! Which of several lists of patterns a tenant is in. The first list decides.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use regex::bytes::RegexSet;

use super::map::{MapFault, glob, one_line};
use super::{Grant, TenantId, TenantRules};

/// Lists of tenants: IDs without their prefix, in which `*` stands for any text, even none.
#[derive(Clone, Debug)]
pub struct TenantRoutes {
    patterns: Vec<Vec<String>>,
    /// The first list that has an ID.
    exact: HashMap<Box<[u8]>, usize>,
    globs: RegexSet,
    /// The list of each of `globs`, in ascending order.
    glob_lists: Vec<usize>,
}

impl PartialEq for TenantRoutes {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for TenantRoutes {}

impl TenantRoutes {
    /// Compiles the lists.
    ///
    /// # Errors
    /// If all patterns together are too large.
    pub fn new(patterns: Vec<Vec<String>>) -> Result<Self, MapFault> {
        let mut exact = HashMap::new();
        let (mut globs, mut glob_lists) = (Vec::new(), Vec::new());
        for (list, pattern) in
            patterns.iter().enumerate().flat_map(|(at, list)| list.iter().map(move |p| (at, p)))
        {
            if pattern.contains('*') {
                globs.push(glob(pattern));
                glob_lists.push(list);
            } else {
                exact.entry(pattern.as_bytes().into()).or_insert(list);
            }
        }
        let globs = RegexSet::new(globs).map_err(|error| MapFault::TooLarge(one_line(&error)))?;
        Ok(Self { patterns, exact, globs, glob_lists })
    }

    /// The number of the first list that has `id`.
    pub(crate) fn find(&self, id: &[u8]) -> Option<usize> {
        let exact = self.exact.get(id).copied();
        // Patterns cost the most. They are skipped if all of them are in later lists.
        if self.glob_lists.first().is_none_or(|first| exact.is_some_and(|exact| exact <= *first)) {
            return exact;
        }
        let glob = self.globs.matches(id).iter().next().and_then(|at| self.glob_lists.get(at).copied());
        exact.into_iter().chain(glob).min()
    }
}

impl TenantRules {
    /// The tenant's ID without the prefix that it has in requests of a sender with this grant, whose tenant header is
    /// `source`.
    pub fn without_prefix<'a>(&self, id: &'a TenantId, source: Option<&str>, grant: &Grant) -> &'a str {
        self.strip_prefix(id, source, grant).unwrap_or(id.as_str())
    }

    /// The same; `None` if the ID has another prefix, as one from before a reload may have.
    pub(crate) fn strip_prefix<'a>(
        &self,
        id: &'a TenantId,
        source: Option<&str>,
        grant: &Grant,
    ) -> Option<&'a str> {
        let [prefix, dash] = self.prefix_parts(source, grant);
        id.as_str().strip_prefix(prefix)?.strip_prefix(dash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(lists: &[&[&str]]) -> TenantRoutes {
        let owned = lists.iter().map(|list| list.iter().map(|&pattern| pattern.to_owned()).collect());
        TenantRoutes::new(owned.collect()).unwrap()
    }

    #[test]
    fn the_first_list_decides() {
        let routes = routes(&[&["a", "eu-*"], &["eu-1", "b", "*x*"], &["a", "x", "c"], &["*"]]);
        for (id, list) in [("a", 0), ("eu-1", 0), ("eu-", 0), ("b", 1), ("x", 1), ("c", 3), ("", 3)] {
            // `c` is exactly in the third list, before the fourth has it by a pattern.
            let expected = if id == "c" { 2 } else { list };
            assert_eq!(routes.find(id.as_bytes()), Some(expected), "{id}");
        }
    }

    #[test]
    fn what_is_in_no_list_is_not_found() {
        let routes = routes(&[&["a", "b*c"]]);
        for id in ["", "A", "aa", "b", "bcd", "xbc", "b\nd"] {
            assert_eq!(routes.find(id.as_bytes()), None, "{id:?}");
        }
        assert_eq!(routes.find(b"b.[\nc"), Some(0), "only * has a meaning");
        assert_eq!(TenantRoutes::new(Vec::new()).unwrap().find(b"a"), None);
    }

    #[test]
    fn it_agrees_with_asking_the_lists_one_by_one() {
        use crate::tenant::map::TenantAllow;
        let lists: &[&[&str]] = &[&["a*", "b"], &["*b", "c"], &["abc", "*"], &["d"]];
        let routes = routes(lists);
        let allow: Vec<_> = lists
            .iter()
            .map(|list| TenantAllow::new(list.iter().map(|&p| p.to_owned()).collect()).unwrap())
            .collect();
        for id in ["a", "b", "ab", "abc", "c", "cb", "d", "e", ""] {
            let expected = allow.iter().position(|list| list.allows(id.as_bytes()));
            assert_eq!(routes.find(id.as_bytes()), expected, "{id}");
        }
    }

    #[test]
    fn the_prefix_can_be_taken_off_again() {
        let rules =
            TenantRules { prefix: "eu-".into(), default: Some("d".into()), ..TenantRules::of_label(b"t") };
        let source = TenantRules { prefix_prefer_source: true, ..rules.clone() };
        for (rules, value, header) in [
            (&rules, Some("eu-a"), Some("x")),
            (&rules, None, None),
            (&source, Some("x-a"), Some("x")),
            (&source, Some("a"), None),
            (&source, None, Some("")),
        ] {
            let id = rules.resolve(value.map(str::as_bytes), header).unwrap();
            assert_eq!(rules.without_prefix(&id, header, &Grant::Any), value.unwrap_or("d"));
        }
    }
}
