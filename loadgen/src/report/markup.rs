//! Elements of HTML and SVG: escaped and balanced because nothing else can be written.

use std::fmt::{self, Display, Write};

/// Elements that have no content, and no end tag in HTML.
const VOID: [&str; 2] = ["meta", "br"];

/// An element with its attributes and content.
#[derive(Clone, Debug)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Element(Element),
    Text(String),
    /// Ours, and known to be neither markup nor to contain any: a style sheet.
    Raw(&'static str),
}

/// An element without content.
pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), children: Vec::new() }
}

impl Element {
    /// With one attribute more.
    pub(super) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// With a length or a place; tenths of a pixel are plenty.
    pub(super) fn at(self, name: &'static str, pixels: f64) -> Self {
        self.with(name, Tenths(pixels))
    }

    /// With its class.
    pub(super) fn class(self, class: impl Display) -> Self {
        self.with("class", class)
    }

    /// With text behind what it has.
    pub(super) fn text(mut self, text: impl Display) -> Self {
        self.children.push(Node::Text(text.to_string()));
        self
    }

    /// With a style sheet, which must hold no `<` and no `&`.
    pub(super) fn style(mut self, sheet: &'static str) -> Self {
        self.children.push(Node::Raw(sheet));
        self
    }

    /// With an element behind what it has.
    pub(super) fn child(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    /// With elements behind what it has.
    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Puts an element behind what it has.
    pub(super) fn push(&mut self, child: Self) {
        self.children.push(Node::Element(child));
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"")?;
            escape(f, value)?;
            f.write_char('"')?;
        }
        if VOID.contains(&self.name) {
            return f.write_str("/>");
        }
        f.write_char('>')?;
        for child in &self.children {
            match child {
                Node::Element(element) => element.fmt(f)?,
                Node::Text(text) => escape(f, text)?,
                Node::Raw(text) => f.write_str(text)?,
            }
        }
        write!(f, "</{}>", self.name)
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '&' => f.write_str("&amp;")?,
            '"' => f.write_str("&quot;")?,
            // XML 1.0, section 2.2: other control characters cannot even be escaped.
            c if c.is_control() && !matches!(c, '\n' | '\t') => f.write_char('\u{fffd}')?,
            c => f.write_char(c)?,
        }
    }
    Ok(())
}

/// A number with at most one digit after the point.
struct Tenths(f64);

impl Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1}", self.0);
        f.write_str(text.strip_suffix(".0").unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let text =
            element("p").with("title", "a\"<b>").text("1 < 2 & \u{1b}[0m").child(element("br")).to_string();
        assert_eq!(text, "<p title=\"a&quot;&lt;b&gt;\">1 &lt; 2 &amp; \u{fffd}[0m<br/></p>");
        assert_eq!(
            element("circle").at("r", 2.0).at("cx", 1.25).to_string(),
            "<circle r=\"2\" cx=\"1.2\"></circle>"
        );
    }
}
