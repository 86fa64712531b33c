//! The status page: one document that needs nothing else.
//!
//! Design constraints:
//! - It has to work where the page of another server would not: behind a port-forward, without internet, on the first
//!   look at three in the morning. So everything is in the program, and in one answer.
//! - Names and texts on it are hostile. The page writes them as text only, and the Content-Security-Policy lets no
//!   script run and no style apply but the page's own, by their hashes. A page may not frame it.
//!
//! It is plain JavaScript without a framework and without a build step, so `cargo build` is all that a change takes.
//! Its files are joined once.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::pages::Page;

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// In this order: the last one starts the page.
const SCRIPT: &str = concat!(
    include_str!("page/format.js"),
    include_str!("page/dom.js"),
    include_str!("page/api.js"),
    include_str!("page/table.js"),
    include_str!("page/overview.js"),
    include_str!("page/tenants.js"),
    include_str!("page/tenant.js"),
    include_str!("page/forms.js"),
    include_str!("page/app.js"),
);

/// The document, and header lines for it.
static DOCUMENT: LazyLock<(String, String)> = LazyLock::new(|| {
    let html = HTML.replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1);
    let html = html.replacen("<script></script>", &format!("<script>{SCRIPT}</script>"), 1);
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "Content-Security-Policy: default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         Referrer-Policy: no-referrer\r\n",
        hash(STYLE),
        hash(SCRIPT),
    );
    (html, policy)
});

/// The document as a page of the admin port.
pub(super) fn page() -> Page {
    let (html, lines) = &*DOCUMENT;
    Page::html(html).with_lines(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_joined_and_need_nothing_from_elsewhere() {
        let (html, lines) = &*DOCUMENT;
        assert!(html.contains(STYLE) && html.contains(SCRIPT));
        assert_eq!((html.matches("<style").count(), html.matches("<script").count()), (1, 1));
        for hole in [
            "src=",
            "url(",
            "@import",
            "style=\"",
            " onclick",
            "innerHTML",
            "eval(",
            "https://",
            "</script>\n<script",
        ] {
            assert!(!html.contains(hole), "{hole}");
        }
        assert!(lines.lines().all(|line| !line.is_empty()) && lines.ends_with("\r\n"));
        // A test of size: it is sent over port-forwards.
        assert!(html.len() < 100_000, "{}", html.len());
    }
}
