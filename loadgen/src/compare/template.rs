//! Placeholders in a contender's command and configuration.

/// The placeholders that there are; what stands for each is known only when a run begins. `listen` is where the
/// contender is to listen for pushes, `metrics` a free address for whatever else it listens at, `sink` the upstream,
/// `dir` a directory of its own for this run, which holds its files, and `loadgen` this program.
pub const PLACEHOLDERS: [&str; 5] = ["listen", "metrics", "sink", "dir", "loadgen"];

/// What stands for each placeholder in one run.
#[derive(Clone, Debug)]
pub(super) struct Values(pub(super) [(&'static str, String); PLACEHOLDERS.len()]);

impl Values {
    /// `text` with its placeholders filled in; one that is unknown is empty, which [`unknown`] had told.
    pub(super) fn fill(&self, text: &str) -> String {
        let value = |wanted: &str| self.0.iter().find(|(name, _)| *name == wanted);
        expand(text, |name| value(name).map(|(_, value)| value.clone()).unwrap_or_default())
    }
}

/// The first placeholder in `text` that there is not.
pub(super) fn unknown(text: &str) -> Option<String> {
    let mut unknown = None;
    expand(text, |name| {
        if unknown.is_none() && !PLACEHOLDERS.contains(&name) {
            unknown = Some(name.to_owned());
        }
        String::new()
    });
    unknown
}

/// `text` with each placeholder replaced. One is a name of small letters in braces; in two pairs of braces it is the
/// name in one pair. Any other brace is a brace: configurations are full of them.
fn expand(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, braces)) = rest.split_once('{') {
        expanded.push_str(before);
        let (inner, closing) = braces.strip_prefix('{').map_or((braces, "}"), |inner| (inner, "}}"));
        let end = inner.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(inner.len());
        let (name, after) = inner.split_at(end);
        match after.strip_prefix(closing).filter(|_| !name.is_empty()) {
            Some(after) => {
                expanded.push_str(&if closing == "}" { value(name) } else { format!("{{{name}}}") });
                rest = after;
            }
            None => {
                expanded.push('{');
                rest = braces;
            }
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let pairs = [("listen", "L"), ("metrics", "M"), ("sink", "S"), ("dir", "/d"), ("loadgen", "G")];
        Values(pairs.map(|(name, value)| (name, value.to_owned())))
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_left_alone() {
        for (template, filled) in [
            ("http://{sink}/{listen}{metrics}", "http://S/LM"),
            ("acl x if { path /y } {dir}/z", "acl x if { path /y } /d/z"),
            ("/{{tenant}}/{sink}", "/{tenant}/S"),
            ("{{dir}}", "{dir}"),
            ("${Version} {} {", "${Version} {} {"),
            ("é{loadgen}é", "éGé"),
            ("", ""),
        ] {
            assert_eq!(values().fill(template), filled, "{template}");
        }
    }

    #[test]
    fn unknown_ones_are_told() {
        assert_eq!(unknown("{listen} {metrcs}"), Some("metrcs".to_owned()));
        assert_eq!(unknown("{listen} {{metrcs}} { x } {Version}"), None);
    }
}
