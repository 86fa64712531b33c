//! The file of bearer tokens: a YAML list of names, each with a token's hash or with a file that has the token.
//!
//! ```yaml
//! - name: grafana-agent
//!   sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08   # printf %s TOKEN | sha256sum
//! - name: grafana-agent         # the same name again: the old and the new token, during a rotation
//!   token_file: /run/secrets/agent-token
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::excerpt::found;
use super::file::read_file;
use super::mistake::{ConfigMistakes, Mistake};
use super::yaml::{self, Content, Name, Node};
use crate::auth::header::is_token;
use crate::auth::token::{TokenHash, Tokens};
use crate::limits::{BEARER_BYTES_MAX, CREDENTIAL_NAME_BYTES_MAX, TOKEN_BYTES_MIN, TOKENS_MAX};

/// The content of a tokens' file.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TokensFile {
    /// The tokens.
    pub tokens: Tokens,
    /// The files that tokens were read from. If one changes, the tokens have to be read again.
    pub files: Vec<PathBuf>,
}

/// Parses the `text` of a tokens' file, and reads the files that it names. `file` is its path, used in errors and for
/// paths relative to it.
///
/// # Errors
/// All mistakes, each with its line. They quote no token and no hash.
pub fn read_tokens(file: &str, text: &str) -> Result<TokensFile, ConfigMistakes> {
    let directory = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut reader = Reader {
        directory,
        mistakes: Vec::new(),
        entries: Vec::new(),
        files: Vec::new(),
        lines: HashMap::new(),
    };
    match yaml::read(text) {
        Ok(document) => reader.document(document),
        Err(fault) => reader.mistakes.push(Mistake::in_line(fault.line, "", fault.text)),
    }
    if !reader.mistakes.is_empty() {
        return Err(ConfigMistakes::new(file, reader.mistakes));
    }
    Ok(TokensFile { tokens: Tokens::new(reader.entries), files: reader.files })
}

struct Reader<'a> {
    directory: &'a Path,
    mistakes: Vec<Mistake>,
    entries: Vec<(Arc<str>, TokenHash)>,
    files: Vec<PathBuf>,
    /// The line of each token.
    lines: HashMap<TokenHash, usize>,
}

/// The keys found in one entry.
#[derive(Default)]
struct Keys {
    name: Option<Arc<str>>,
    hash: Option<TokenHash>,
    source: Option<&'static str>,
    /// A mistake has been reported, and the entry is incomplete because of it.
    broken: bool,
}

impl Reader<'_> {
    fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    fn document(&mut self, document: Node) {
        let (line, kind) = (document.line, document.kind());
        match document.content {
            Content::List(items) if items.is_empty() => self.mistake(line, "", "has no tokens"),
            Content::List(items) if items.len() > TOKENS_MAX => {
                self.mistake(
                    line,
                    "",
                    format!("has {} tokens, more than the {TOKENS_MAX} that are accepted", items.len()),
                );
            }
            Content::List(items) => items.into_iter().for_each(|item| self.entry(item)),
            Content::Null => self.mistake(line, "", "has no tokens"),
            Content::Text(_) | Content::Map(_) => {
                self.mistake(line, "", format!("wants a list of tokens (`- name: …`), not {kind}"));
            }
        }
    }

    fn entry(&mut self, item: Node) {
        let (line, kind) = (item.line, item.kind());
        let Content::Map(fields) = item.content else {
            return self.mistake(line, "", format!("a token wants keys with values (`name: …`), not {kind}"));
        };
        let mut keys = Keys::default();
        for (name, node) in fields {
            if self.key(&mut keys, &name, node).is_none() {
                keys.broken = true;
            }
        }
        if keys.broken {
            return;
        }
        if keys.name.is_none() {
            self.mistake(line, "", "the name is missing; give `name`");
        }
        if keys.hash.is_none() {
            self.mistake(line, "", "the token is missing; give `sha256` or `token_file`");
        }
        let (Some(name), Some(hash)) = (keys.name, keys.hash) else { return };
        if let Some(earlier) = self.lines.get(&hash) {
            return self.mistake(
                line,
                "",
                format!("the token is the same as the one on line {earlier}: remove one"),
            );
        }
        self.lines.insert(hash, line);
        self.entries.push((name, hash));
    }

    /// Reads one key. `None` after a mistake.
    fn key(&mut self, keys: &mut Keys, name: &Name, node: Node) -> Option<()> {
        let source = match name.text.as_str() {
            "name" if keys.name.is_none() => {
                keys.name = Some(self.name(name, &node)?);
                return Some(());
            }
            "name" => {
                self.mistake(name.line, "name", "is already given");
                return None;
            }
            "sha256" => "sha256",
            "token_file" => "token_file",
            _ => {
                self.mistake(
                    name.line,
                    "",
                    "unknown key; a token has a `name`, and one of `sha256` and `token_file`",
                );
                return None;
            }
        };
        if let Some(first) = keys.source.replace(source) {
            self.mistake(
                name.line,
                source,
                format!("`{first}` is already given; a token has only one of them"),
            );
            return None;
        }
        keys.hash = Some(if source == "sha256" { self.hash(name, &node)? } else { self.file(name, &node)? });
        Some(())
    }

    /// A value. An error does not quote it.
    fn text<'a>(&mut self, name: &Name, node: &'a Node) -> Option<&'a str> {
        match &node.content {
            Content::Text(text) if !text.is_empty() => Some(text),
            Content::Text(_) => {
                self.mistake(name.line, &name.text, "must not be empty");
                None
            }
            Content::Null | Content::List(_) | Content::Map(_) => {
                self.mistake(name.line, &name.text, format!("wants a single value, not {}", node.kind()));
                None
            }
        }
    }

    fn name(&mut self, name: &Name, node: &Node) -> Option<Arc<str>> {
        let text = self.text(name, node)?;
        if text.len() > CREDENTIAL_NAME_BYTES_MAX {
            self.mistake(name.line, "name", format!("has more than {CREDENTIAL_NAME_BYTES_MAX} bytes"));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.mistake(name.line, "name", "contains a control character");
            return None;
        }
        Some(text.into())
    }

    fn hash(&mut self, name: &Name, node: &Node) -> Option<TokenHash> {
        let hash = TokenHash::parse(self.text(name, node)?);
        let fault = match hash {
            None => "is not a SHA-256 hash of 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints it",
            Some(hash) if hash == TokenHash::of(b"") => "is the hash of nothing",
            Some(hash) if hash == TokenHash::of(b"\n") => "is the hash of an empty line",
            Some(_) => return hash,
        };
        self.mistake(name.line, "sha256", fault);
        None
    }

    /// Reads a token. White space around it, such as the line's end, is not part of it.
    fn file(&mut self, name: &Name, node: &Node) -> Option<TokenHash> {
        let path = self.directory.join(self.text(name, node)?);
        let shown = found(&path.to_string_lossy());
        let text = match read_file(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(fault) => {
                self.mistake(name.line, "token_file", format!("{shown} {fault}"));
                return None;
            }
        };
        let token = text.trim().as_bytes();
        let fault = match token {
            [] => "is empty".to_owned(),
            _ if token.len() < TOKEN_BYTES_MIN => format!("has a token of less than {TOKEN_BYTES_MIN} bytes"),
            _ if token.len() > BEARER_BYTES_MAX => {
                format!("has a token of more than {BEARER_BYTES_MAX} bytes")
            }
            _ if !is_token(token) => "is not one token of visible ASCII characters".to_owned(),
            _ => {
                self.files.push(path);
                return Some(TokenHash::of(token));
            }
        };
        self.mistake(name.line, "token_file", format!("{shown} {fault}"));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn mistakes(text: &str) -> Vec<String> {
        read_tokens("tokens.yml", text).unwrap_err().to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn tokens_come_from_hashes_and_from_files_beside_the_list() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "a-token-from-a-file\r\n").unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "another-token-from-a-file").unwrap();
        let list = folder.path().join("tokens.yml");
        let text = format!(
            "- {{name: a, sha256: {HASH}}}\n- name: a\n  token_file: token\n- {{token_file: {}, name: '007'}}\n",
            other.display()
        );
        let read = read_tokens(list.to_str().unwrap(), &text).unwrap();
        for (token, name) in [
            ("test", Some("a")),
            ("a-token-from-a-file", Some("a")),
            ("another-token-from-a-file", Some("007")),
            ("a-token-from-a-file\r\n", None),
        ] {
            assert_eq!(read.tokens.find(token.as_bytes()).map(|name| &**name), name, "{token}");
        }
        assert_eq!(read.files, [folder.path().join("token"), other]);
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_quote_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("empty", " \n"),
            ("short", "canary"),
            ("two", "canary-canary-1\ncanary-canary-2"),
            ("good", "test-test-test-1"),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let text = format!(
            "\
- {{name: a, sha256: {HASH}}}
- {{name: b, sha256: {HASH}}}
- {{name: c, sha256: canary}}
- {{name: c, sha256: [canary]}}
- sha256: {}
- {{name: c}}
- {{name: '', sha256: {}}}
- {{name: c, token_file: empty}}
- {{name: c, token_file: short}}
- {{name: c, token_file: two}}
- {{name: c, token_file: missing}}
- {{name: c, token_file: good, sha256: {HASH}}}
- canary
- {{name: c, tokn: canary}}
- {{name: c, canary}}
- {{name: c, name: d, token_file: good}}
- {{name: c, sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}}
- {{name: \"a\\nb\", token_file: good}}
- {{name: c, token_file:}}
",
            "0".repeat(64),
            "1".repeat(64),
        );
        let list = folder.path().join("tokens.yml");
        let list = list.to_str().unwrap();
        let told = read_tokens(list, &text).unwrap_err().to_string();
        let short = told.replace(folder.path().to_str().unwrap(), "DIR");
        let expected = [
            "DIR/tokens.yml:2: the token is the same as the one on line 1: remove one",
            "DIR/tokens.yml:3: sha256: is not a SHA-256 hash of 64 hexadecimal digits; `printf %s TOKEN | sha256sum` \
             prints it",
            "DIR/tokens.yml:4: sha256: wants a single value, not a list",
            "DIR/tokens.yml:5: the name is missing; give `name`",
            "DIR/tokens.yml:6: the token is missing; give `sha256` or `token_file`",
            "DIR/tokens.yml:7: name: must not be empty",
            "DIR/tokens.yml:8: token_file: \"DIR/empty\" is empty",
            "DIR/tokens.yml:9: token_file: \"DIR/short\" has a token of less than 16 bytes",
            "DIR/tokens.yml:10: token_file: \"DIR/two\" is not one token of visible ASCII characters",
            "DIR/tokens.yml:11: token_file: \"DIR/missing\" cannot be read: No such file or directory (os error 2)",
            "DIR/tokens.yml:12: sha256: `token_file` is already given; a token has only one of them",
            "DIR/tokens.yml:13: a token wants keys with values (`name: …`), not a single value",
            "DIR/tokens.yml:14: unknown key; a token has a `name`, and one of `sha256` and `token_file`",
            "DIR/tokens.yml:15: unknown key; a token has a `name`, and one of `sha256` and `token_file`",
            "DIR/tokens.yml:16: name: is already given",
            "DIR/tokens.yml:17: sha256: is the hash of nothing",
            "DIR/tokens.yml:18: name: contains a control character",
            "DIR/tokens.yml:19: token_file: wants a single value, not nothing",
        ];
        assert_eq!(short.lines().collect::<Vec<_>>(), expected);
        assert!(!told.contains("canary") && !told.contains(HASH));
    }

    #[test]
    fn a_file_without_tokens_is_a_mistake() {
        for text in ["", "# none yet", "[]"] {
            assert_eq!(mistakes(text), ["tokens.yml:1: has no tokens"]);
        }
        assert_eq!(
            mistakes("name: a"),
            ["tokens.yml:1: wants a list of tokens (`- name: …`), not a section"]
        );
        assert!(mistakes("- 'a\n")[0].starts_with("tokens.yml:1: not YAML"));
        let many = "- {name: a}\n".repeat(TOKENS_MAX + 1);
        assert_eq!(mistakes(&many), ["tokens.yml:1: has 4097 tokens, more than the 4096 that are accepted"]);
    }
}
