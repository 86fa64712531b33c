//! A YAML document as a tree whose nodes remember their lines.
//!
//! Design constraints:
//!
//! * All mistakes of a file are reported at once, each with its line. A serde deserializer stops at the first one. So
//!   the file is read event by event into a tree, and [`super::source`] checks the tree.
//! * A scalar keeps its text. `default: 007` names the tenant `007`, and `1.10` does not lose its zero: the key decides
//!   what its text means.
//! * A configuration comes from an operator, not from the network. Still, a file of nested aliases must not exhaust the
//!   memory, so the number of nodes and their depth are bounded.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::limits::{CONFIG_DEPTH_MAX, CONFIG_NODES_MAX};

/// A node and the line on which it begins (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

/// The content of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No value: `key:`, `~` or `null`.
    Null,
    /// A text, without its quotes and escapes.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file. A key may occur twice.
    Map(Vec<(Name, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Why the text is not YAML, or exceeds our limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Node {
    fn null(line: usize) -> Self {
        Self { line, content: Content::Null }
    }

    fn count(&self) -> usize {
        1 + match &self.content {
            Content::Null | Content::Text(_) => 0,
            Content::List(items) => items.iter().map(Self::count).sum(),
            Content::Map(entries) => entries.iter().map(|(_, node)| 1 + node.count()).sum(),
        }
    }

    /// The kind of content, for error texts.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Text(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a section",
        }
    }
}

/// Parses the first document of `text`; an empty text is [`Content::Null`]. A second document is an error.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let options = granit_parser::options! {
        flow_nesting_limit: CONFIG_DEPTH_MAX,
        block_nesting_limit: CONFIG_DEPTH_MAX,
    };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        nodes_left: CONFIG_NODES_MAX,
    };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Node::null(1))),
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if document.is_some() => {
                return Err(Fault {
                    line: span.start.line(),
                    text: "a second YAML document begins here; only one is read: remove it".into(),
                });
            }
            event => document = Some(reader.node(event, span)?),
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Fault> {
        let line = span.start.line();
        let anchor = event.anchor_id();
        let content = match event {
            Event::Scalar(text, style, _, tag) => scalar(text, style, tag.is_some()),
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => self.map()?,
            Event::Alias(id) => self.alias(id, line)?,
            _ => Content::Null,
        };
        let node = Node { line, content };
        self.spend(1, line)?;
        if let Some(id) = anchor.filter(|&id| id != 0) {
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Content, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Content::List(items)),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Content, Fault> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(Content::Map(entries)),
                next => next,
            };
            let Node { line, content } = self.node(event, span)?;
            let text = match content {
                Content::Text(text) => text,
                Content::Null => "null".into(),
                Content::List(_) | Content::Map(_) => {
                    return Err(Fault { line, text: "a key has to be a plain word".into() });
                }
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            entries.push((Name { line, text }, value));
        }
    }

    fn alias(&mut self, id: usize, line: usize) -> Result<Content, Fault> {
        let Some(target) = self.anchors.get(&id).cloned() else {
            return Err(Fault { line, text: "an alias inside its own anchor".into() });
        };
        self.spend(target.count(), line)?;
        Ok(target.content)
    }

    fn spend(&mut self, nodes: usize, line: usize) -> Result<(), Fault> {
        match self.nodes_left.checked_sub(nodes) {
            Some(left) => self.nodes_left = left,
            None => {
                let text = format!("more than {CONFIG_NODES_MAX} values: it is not a Tenantry configuration");
                return Err(Fault { line, text });
            }
        }
        Ok(())
    }
}

/// A plain `null` is no value; a quoted or tagged one is a text.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tagged: bool) -> Content {
    let plain = style == ScalarStyle::Plain && !tagged;
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Content::Null;
    }
    Content::Text(text.into_owned())
}

fn not_yaml(error: &ScanError) -> Fault {
    let marker = error.marker();
    Fault { line: marker.line(), text: format!("not YAML: {} (column {})", error.info(), marker.col() + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> Node {
        Node { line, content: Content::Text(text.into()) }
    }

    fn map(text: &str) -> Vec<(Name, Node)> {
        match read(text).unwrap().content {
            Content::Map(entries) => entries,
            other => panic!("no mapping: {other:?}"),
        }
    }

    fn values(yaml: &str) -> Vec<Content> {
        map(yaml).into_iter().map(|(_, node)| node.content).collect()
    }

    #[test]
    fn nodes_know_their_lines() {
        let entries = map("# comment\na: 1\n\nb:\n  c: x\n  d:\n  - y\n  - z\n");
        assert_eq!(entries[0], (Name { line: 2, text: "a".into() }, text(2, "1")));
        assert_eq!(entries[1].0, Name { line: 4, text: "b".into() });
        let Content::Map(inner) = &entries[1].1.content else { panic!("no mapping") };
        assert_eq!(inner[0], (Name { line: 5, text: "c".into() }, text(5, "x")));
        assert_eq!(inner[1].0.line, 6);
        assert_eq!(inner[1].1.content, Content::List(vec![text(7, "y"), text(8, "z")]));
    }

    #[test]
    fn scalars_keep_their_text() {
        let kept = ["007", "1.10", "true", "0x1F", "2001-01-01", "a # b", "-1"];
        for scalar in kept {
            let written = if scalar.contains('#') { format!("'{scalar}'") } else { scalar.to_owned() };
            assert_eq!(values(&format!("k: {written}")), [Content::Text(scalar.into())]);
        }
    }

    #[test]
    fn only_an_unquoted_null_is_no_value() {
        let yaml = "a:\nb: ~\nc: null\nd: ''\ne: \"null\"\nf: !!str null\n";
        let text = |text: &str| Content::Text(text.into());
        let expected = [Content::Null, Content::Null, Content::Null, text(""), text("null"), text("null")];
        assert_eq!(values(yaml), expected);
    }

    #[test]
    fn empty_documents_have_no_value() {
        for yaml in ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"] {
            assert_eq!(read(yaml).map(|node| node.content), Ok(Content::Null), "{yaml:?}");
        }
    }

    #[test]
    fn repeated_keys_are_kept() {
        let entries = map("a: 1\na: 2\n");
        assert_eq!(entries.iter().map(|(name, _)| name.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn aliases_stand_for_their_anchors() {
        assert_eq!(values("a: &x 10s\nb: *x\n"), [Content::Text("10s".into()), Content::Text("10s".into())]);
        let entries = map("a: &x {k: v}\nb: *x\n");
        assert_eq!(entries[0].1.content, entries[1].1.content);
        assert_eq!(entries[1].1.line, 2);
    }

    #[test]
    fn nested_aliases_take_bounded_memory() {
        let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            let ten = vec![alias; 10].join(", ");
            yaml += &format!("a{level}: &a{level} [{ten}]\n");
        }
        assert!(read(&yaml).unwrap_err().text.contains("not a Tenantry configuration"));
    }

    #[test]
    fn nesting_is_bounded() {
        let flow = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(&flow).unwrap_err().line, 1);
        let block: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(read(&block).is_err());
    }

    #[test]
    fn yaml_errors_have_a_line() {
        for (yaml, line) in [
            ("a: 1\nb: [1, 2\n", 2),
            ("a: 1\n b: 2\n", 2),
            ("b: 1\na: 'x\n", 2),
            ("a: *nobody\n", 1),
            ("a: 1\n? [x]\n: 2\n", 2),
            ("a: 1\n---\nb: 2\n", 3),
        ] {
            let fault = read(yaml).unwrap_err();
            assert_eq!(fault.line, line, "{yaml:?}: {}", fault.text);
        }
    }

    #[test]
    fn an_alias_within_its_own_anchor_is_a_fault() {
        assert!(read("a: &x [*x]\n").is_err());
    }

    #[test]
    fn files_from_other_editors_read_the_same() {
        let plain = read("a: 1\nb:\n  c: x\n").unwrap();
        assert_eq!(read("a: 1\r\nb:\r\n  c: x\r\n").unwrap(), plain, "line ends of Windows");
        assert_eq!(read("\u{feff}a: 1\nb:\n  c: x\n").unwrap(), plain, "a byte-order mark");
        assert_eq!(read("a: 1\nb:\n  c: x").unwrap(), plain, "no line end at the end");
    }
}
