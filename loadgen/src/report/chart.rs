//! What all charts have in common: the canvas, the contenders' marks, the legend.

use super::markup::{Element, element};

/// Width of every chart, in its own units; on a page it shrinks with the window.
pub(super) const WIDTH: f64 = 960.0;

/// How contenders are told apart: colours of Okabe and Ito's palette, which colour-blind people can tell apart, and
/// shapes, for print. Further contenders begin again.
pub(super) const MARKS: usize = 6;

/// The colours, for light and for dark surroundings. It is part of the page and of every chart that stands alone.
pub(super) const STYLE: &str = "
.chart { font: 12px system-ui, sans-serif; }
.chart text { fill: #1b1f24; stroke: none; }
.chart .title { font-size: 15px; font-weight: 600; }
.chart .heading { font-weight: 600; }
.chart .muted { fill: #57606a; }
.chart .ground { fill: #ffffff; stroke: none; }
.chart .grid { stroke: #e3e6ea; }
.chart .axis { stroke: #8c959f; }
.chart .one { stroke: #57606a; stroke-dasharray: 3 3; }
.chart .line { fill: none; stroke-width: 2; }
.chart .whisker { fill: none; stroke-width: 1.2; opacity: .75; }
.chart .mark { stroke: none; }
.chart .dot { stroke: none; opacity: .55; }
.chart .failed { fill: none; stroke-width: 2; }
.chart .median { fill: none; stroke-width: 3; }
.chart .c0 { stroke: #0072b2; } .chart .mark.c0, .chart .dot.c0 { fill: #0072b2; }
.chart .c1 { stroke: #d55e00; } .chart .mark.c1, .chart .dot.c1 { fill: #d55e00; }
.chart .c2 { stroke: #009e73; } .chart .mark.c2, .chart .dot.c2 { fill: #009e73; }
.chart .c3 { stroke: #b6558d; } .chart .mark.c3, .chart .dot.c3 { fill: #b6558d; }
.chart .c4 { stroke: #b07d00; } .chart .mark.c4, .chart .dot.c4 { fill: #b07d00; }
.chart .c5 { stroke: #3d3d3d; } .chart .mark.c5, .chart .dot.c5 { fill: #3d3d3d; }
.chart .mark, .chart .dot { stroke: none; }
@media (prefers-color-scheme: dark) {
.chart text { fill: #e6edf3; }
.chart .muted { fill: #9da7b3; }
.chart .ground { fill: #0f1419; }
.chart .grid { stroke: #262d36; }
.chart .axis { stroke: #6e7681; }
.chart .one { stroke: #9da7b3; }
.chart .c0 { stroke: #56b4e9; } .chart .mark.c0, .chart .dot.c0 { fill: #56b4e9; }
.chart .c1 { stroke: #f28e2b; } .chart .mark.c1, .chart .dot.c1 { fill: #f28e2b; }
.chart .c2 { stroke: #2fc595; } .chart .mark.c2, .chart .dot.c2 { fill: #2fc595; }
.chart .c3 { stroke: #e69ac8; } .chart .mark.c3, .chart .dot.c3 { fill: #e69ac8; }
.chart .c4 { stroke: #f0e442; } .chart .mark.c4, .chart .dot.c4 { fill: #f0e442; }
.chart .c5 { stroke: #d0d7de; } .chart .mark.c5, .chart .dot.c5 { fill: #d0d7de; }
.chart .mark, .chart .dot { stroke: none; }
}
";

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// A name for its file, without extension.
    pub name: String,
    /// What it shows.
    pub title: String,
    pub(super) height: f64,
    pub(super) content: Vec<Element>,
}

impl Chart {
    /// An SVG file of its own.
    #[must_use]
    pub fn file(&self) -> String {
        let svg = self.svg(Some(element("style").style(STYLE)));
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{svg}\n")
    }

    /// The element for a page that has the style.
    pub(super) fn inline(&self) -> Element {
        self.svg(None).with("id", &self.name)
    }

    fn svg(&self, style: Option<Element>) -> Element {
        element("svg")
            .with("xmlns", "http://www.w3.org/2000/svg")
            .class("chart")
            .with("viewBox", format_args!("0 0 {WIDTH} {:.0}", self.height))
            .with("role", "img")
            .with("aria-label", &self.title)
            .children(style)
            .child(element("rect").class("ground").at("width", WIDTH).at("height", self.height))
            .children(self.content.iter().cloned())
    }
}

/// Text at a place.
pub(super) fn text(class: &str, x: f64, y: f64, text: &str) -> Element {
    element("text").class(class).at("x", x).at("y", y).text(text)
}

/// The same, its middle or its end at the place.
pub(super) fn anchored(class: &str, anchor: &str, x: f64, y: f64, label: &str) -> Element {
    text(class, x, y, label).with("text-anchor", anchor)
}

/// A straight line.
pub(super) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Element {
    element("line").class(class).at("x1", from.0).at("y1", from.1).at("x2", to.0).at("y2", to.1)
}

/// The mark of a contender at a place.
pub(super) fn mark(contender: usize, (x, y): (f64, f64)) -> Element {
    let number = contender % MARKS;
    let path = |corners: &[(f64, f64)]| {
        let corners: Vec<String> =
            corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        element("polygon").with("points", corners.join(" "))
    };
    let shape = match number {
        0 => element("circle").at("cx", x).at("cy", y).at("r", 4.0),
        1 => path(&[(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)]),
        2 => path(&[(0.0, -5.0), (4.6, 3.6), (-4.6, 3.6)]),
        3 => path(&[(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)]),
        4 => path(&[(0.0, 5.0), (4.6, -3.6), (-4.6, -3.6)]),
        _ => path(&[(-2.0, -5.0), (2.0, -5.0), (5.0, 0.0), (2.0, 5.0), (-2.0, 5.0), (-5.0, 0.0)]),
    };
    shape.class(format_args!("mark c{number}"))
}

/// A cross: there should be a figure, and the contender failed.
pub(super) fn cross(contender: usize, (x, y): (f64, f64)) -> Element {
    const ARM: f64 = 3.5;
    element("path").class(format_args!("failed c{}", contender % MARKS)).with(
        "d",
        format_args!(
            "M{:.1},{:.1}L{:.1},{:.1}M{:.1},{:.1}L{:.1},{:.1}",
            x - ARM,
            y - ARM,
            x + ARM,
            y + ARM,
            x - ARM,
            y + ARM,
            x + ARM,
            y - ARM
        ),
    )
}

/// A hint that a browser shows when the pointer rests on it.
pub(super) fn hint(text: &str) -> Element {
    element("title").text(text)
}

/// The contenders' marks and names in a row, from `x` on.
pub(super) fn legend(names: &[&str], x: f64, y: f64) -> Vec<Element> {
    /// About as wide as a letter is.
    const LETTER: f64 = 7.0;
    let mut at = x;
    let mut legend = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let class = format!("line c{}", index % MARKS);
        legend.push(line(&class, (at, y - 4.0), (at + 24.0, y - 4.0)));
        legend.push(mark(index, (at + 12.0, y - 4.0)));
        legend.push(text("", at + 30.0, y, name));
        at += 30.0 + LETTER * f64::from(u32::try_from(name.chars().count()).unwrap_or(u32::MAX)) + 22.0;
    }
    legend
}
