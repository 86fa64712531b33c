//! Placeholders in a contender's command and configuration.

/// The placeholders that there are; what stands for each is known only when a run begins.
pub const PLACEHOLDERS: [&str; 5] = ["listen", "metrics", "sink", "dir", "loadgen"];

/// What stands for each placeholder in one run.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// `{listen}`: where the contender is to listen for pushes, `127.0.0.1:PORT`.
    pub(super) listen: String,
    /// `{metrics}`: a free address for whatever else it listens at.
    pub(super) metrics: String,
    /// `{sink}`: the upstream.
    pub(super) sink: String,
    /// `{dir}`: a directory of its own for this run, which holds its files.
    pub(super) dir: String,
    /// `{loadgen}`: this program.
    pub(super) loadgen: String,
}

impl Values {
    fn of(&self, name: &str) -> Option<&str> {
        match name {
            "listen" => Some(&self.listen),
            "metrics" => Some(&self.metrics),
            "sink" => Some(&self.sink),
            "dir" => Some(&self.dir),
            "loadgen" => Some(&self.loadgen),
            _ => None,
        }
    }

    /// `text` with its placeholders filled in; one that is unknown stays as it is, which [`unknown`] had told.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(name) => match self.of(name) {
                    Some(value) => filled.push_str(value),
                    None => filled.push_str(&format!("{{{name}}}")),
                },
            }
        }
        filled
    }
}

/// The first placeholder in `text` that there is not.
pub(super) fn unknown(text: &str) -> Option<&str> {
    pieces(text).find_map(|piece| match piece {
        Piece::Placeholder(name) if !PLACEHOLDERS.contains(&name) => Some(name),
        _ => None,
    })
}

enum Piece<'a> {
    Text(&'a str),
    /// The name between braces.
    Placeholder(&'a str),
}

/// `text` cut at its placeholders. One is a name of small letters in braces; in two pairs of braces it is the name in
/// one pair. Any other brace is a brace: configurations are full of them.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = first_piece(rest);
        rest = after;
        Some(piece)
    })
}

fn first_piece(text: &str) -> (Piece<'_>, &str) {
    for (at, _) in text.match_indices('{') {
        let (before, braces) = text.split_at(at);
        let escaped =
            braces.strip_prefix("{{").and_then(name_and_rest).filter(|(_, rest)| rest.starts_with('}'));
        if escaped.is_some() || braces.strip_prefix('{').and_then(name_and_rest).is_some() {
            if !before.is_empty() {
                return (Piece::Text(before), braces);
            }
            if let Some((name, rest)) = escaped {
                // From the inner brace to the inner brace.
                return (Piece::Text(&braces[1..name.len() + 3]), &rest[1..]);
            }
        }
        if let Some((name, rest)) = braces.strip_prefix('{').and_then(name_and_rest) {
            return (Piece::Placeholder(name), rest);
        }
    }
    (Piece::Text(text), "")
}

/// A name and what follows its closing brace.
fn name_and_rest(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_name.then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let text = |text: &str| text.to_owned();
        Values { listen: text("L"), metrics: text("M"), sink: text("S"), dir: text("/d"), loadgen: text("G") }
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
        assert_eq!(unknown("{listen} {metrcs}"), Some("metrcs"));
        assert_eq!(unknown("{listen} {{metrcs}} { x } {Version}"), None);
    }
}
