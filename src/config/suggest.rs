//! Guesses which key was meant by one that is unknown.
#![forbid(unsafe_code)]

use super::key::Key;

/// The text for an unknown key, with a guess at the key that was meant.
pub(super) fn unknown_key(keys: &'static [Key], section: &str, name: &str) -> String {
    if name == "<<" {
        return "merge keys are not supported; write the keys out".into();
    }
    format!("unknown key; {}", hint(keys, section, name))
}

/// Guesses the key that was meant. The same name in another section comes first, then similar names in this section,
/// then similar names anywhere.
fn hint(keys: &'static [Key], section: &str, name: &str) -> String {
    if let Some((its_section, its_name)) =
        paths(keys).find(|path| *path == name).and_then(|path| path.rsplit_once('.'))
    {
        return format!("write `{its_name}`, indented under `{}:`", its_section.replace('.', ":`, under `"));
    }
    let elsewhere: Vec<String> = paths(keys).filter(|path| last(path) == name).map(belongs).collect();
    if !elsewhere.is_empty() {
        return format!("`{name}` belongs {}", elsewhere.join(", or "));
    }
    let here = paths(keys).filter(|path| path.rsplit_once('.').map_or("", |(section, _)| section) == section);
    if let Some(path) = closest(here, name) {
        return format!("did you mean `{}`?", last(path));
    }
    match closest(paths(keys), name) {
        Some(path) => format!("did you mean `{}`, which belongs {}?", last(path), belongs(path)),
        None => "--print-default-config lists all keys".into(),
    }
}

fn belongs(path: &'static str) -> String {
    match path.rsplit_once('.') {
        Some((section, _)) => format!("under `{section}`"),
        None => "at the left margin, outside of every section".into(),
    }
}

fn last(path: &'static str) -> &'static str {
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

/// The paths of all keys and sections, each once.
fn paths(keys: &'static [Key]) -> impl Iterator<Item = &'static str> {
    let sections =
        keys.iter().flat_map(|key| key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end)));
    let paths: std::collections::BTreeSet<_> = sections.chain(keys.iter().map(|key| key.path)).collect();
    paths.into_iter()
}

/// The path whose last word is most similar to `name`, if any is similar enough.
fn closest(paths: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    let scored = paths.filter_map(|path| unlikeness(last(path), name).map(|score| (score, path)));
    scored.min_by_key(|(score, _)| *score).map(|(_, path)| path)
}

/// The distance between a known word and what was written, ignoring case. `None` if they are too different to be
/// confused: more than a third of the letters, and at least two, would have to change.
///
/// If one word contains the other, they also count as similar. Such matches rank behind all typos; the longer the
/// shared part, the better.
pub(super) fn unlikeness(known: &str, written: &str) -> Option<usize> {
    const PART_CHARS_MIN: usize = 4;
    const PART_SCORE: usize = 1000;
    // No typo is that long, and the distance takes quadratic time.
    if written.len() > 3 * known.len() {
        return None;
    }
    let (known, written) = (known.to_lowercase(), written.to_lowercase().replace('-', "_"));
    let edits = edit_distance(&known, &written);
    let shared = known.len().min(written.len());
    let edits_max = (known.len().max(written.len()) / 3).max(2).min(known.len().saturating_sub(1));
    let part = known.contains(&written) || written.contains(&known);
    if edits <= edits_max {
        Some(edits)
    } else if part && shared >= PART_CHARS_MIN {
        Some(PART_SCORE.saturating_sub(shared))
    } else {
        None
    }
}

/// The number of insertions, deletions, replacements and swaps of neighbours that turn one word into the other
/// ("optimal string alignment", a restricted Damerau–Levenshtein distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&last, j) + usize::from(from != to)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&to) && b.get(j - 1) == Some(&from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn edits_are_counted_with_swaps_as_one() {
        for (a, b, edits) in [
            ("label", "label", 0),
            ("label", "lable", 1),
            ("label", "labels", 1),
            ("label", "abel", 1),
            ("label", "lebel", 1),
            ("target", "tagret", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            // Optimal string alignment never edits a swapped pair again: 3, not 2.
            ("ca", "abc", 3),
        ] {
            assert_eq!(edit_distance(a, b), edits, "{a} {b}");
            assert_eq!(edit_distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn a_typo_leads_to_the_nearest_key_of_its_section() {
        for (section, name, hint) in [
            ("tenant", "lable", "did you mean `label`?"),
            ("tenant", "labelremove", "did you mean `label_remove`?"),
            ("tenant", "label-remove", "did you mean `label_remove`?"),
            ("tenant", "LabelRemove", "did you mean `label_remove`?"),
            ("tenant", "labels_list", "did you mean `label_list`?"),
            ("tenant", "Header", "did you mean `header`?"),
            ("", "tagret", "did you mean `target`?"),
            ("", "tenent", "did you mean `tenant`?"),
            ("", "listen_metrics", "did you mean `listen_metrics_address`?"),
            ("", "listen_metrics_include_tenant", "did you mean `metrics_include_tenant`?"),
            ("", "max_conn_duration", "did you mean `max_connection_duration`?"),
            ("auth.egress", "user", "did you mean `username`?"),
            ("limits", "body_byte_max", "did you mean `body_bytes_max`?"),
        ] {
            assert_eq!(unknown_key(KEYS, section, name), format!("unknown key; {hint}"), "{section} {name}");
        }
    }

    #[test]
    fn a_key_of_another_section_is_suggested_with_its_section() {
        for (section, name, hint) in [
            ("", "label", "`label` belongs under `tenant`"),
            ("", "username", "`username` belongs under `auth.egress`"),
            ("tenant", "timeout", "`timeout` belongs at the left margin, outside of every section"),
            ("auth.ingress", "egress", "`egress` belongs under `auth`"),
            ("tenant", "tls_config", "`tls_config` belongs under `auth.egress`, or under `auth.ingress`"),
            ("", "label_remve", "did you mean `label_remove`, which belongs under `tenant`?"),
            (
                "tenant",
                "tmeout",
                "did you mean `timeout`, which belongs at the left margin, outside of every section?",
            ),
            ("", "tenant.label", "write `label`, indented under `tenant:`"),
            ("", "auth.egress.username", "write `username`, indented under `auth:`, under `egress:`"),
        ] {
            assert_eq!(unknown_key(KEYS, section, name), format!("unknown key; {hint}"), "{section} {name}");
        }
    }

    #[test]
    fn an_unknown_key_without_a_similar_one_gets_no_guess() {
        let long = "label".repeat(100_000);
        for name in ["foo", "x", "", "remote_read", "scrape_configs", "überall", long.as_str()] {
            let text = unknown_key(KEYS, "", name);
            assert_eq!(text, "unknown key; --print-default-config lists all keys", "{name}");
        }
        assert!(unknown_key(KEYS, "tenant", "<<").contains("merge keys"));
    }
}
