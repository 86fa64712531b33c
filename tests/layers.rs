//! Holds the layers of ARCHITECTURE.md: imports point down only, files of one room import one another in no circle, no
//! file is too long, and no line of prose too wide.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "layers/graph.rs"]
mod graph;

use std::fs;
use std::path::{Path, PathBuf};

use graph::Graph;

/// Which modules of this crate a place may import, besides itself. The longest prefix that fits counts. Test modules
/// follow the same rule.
const ALLOWED: &[(&str, &[&str])] = &[
    ("limits.rs", &[]),
    ("text", &[]),
    ("wire", &["limits", "text"]),
    ("tenant", &["limits", "text"]),
    ("selector", &["limits", "tenant", "text"]),
    ("model", &["limits", "tenant", "wire"]),
    ("http", &["limits", "model"]),
    ("split", &["limits", "model", "tenant", "wire"]),
    ("verdict", &["http", "limits", "model", "split", "tenant", "wire"]),
    ("spool", &["http", "limits", "log", "metrics", "model", "tenant", "wire"]),
    ("tls", &["limits"]),
    ("trace", &["limits", "wire"]),
    ("metrics", &["limits", "model", "tenant"]),
    ("format.rs", &["http", "model", "split"]),
    ("log", &["limits", "text"]),
    ("auth", &["limits", "tenant", "tls"]),
    ("config", &["auth", "limits", "log", "model", "tenant", "tls", "trace"]),
    ("io", &["auth", "limits", "tls"]),
    ("io/driver.rs", &["config", "limits"]),
    ("shared", &["config", "http", "limits", "model", "selector", "split", "tenant", "tls", "trace"]),
    ("exchange", &["auth", "config", "http", "metrics", "model", "shared", "spool", "tenant", "trace"]),
    ("upstream", &["config", "exchange", "http", "io", "limits", "model", "shared", "tenant", "tls", "wire"]),
    (
        "ingest",
        &[
            "auth", "config", "exchange", "format", "http", "io", "limits", "log", "metrics", "model",
            "selector", "shared", "split", "tenant", "tls", "trace", "verdict",
        ],
    ),
    (
        "explain",
        &[
            "auth", "config", "format", "http", "limits", "model", "selector", "split", "tenant", "text",
            "verdict", "wire",
        ],
    ),
    (
        "egress",
        &[
            "config", "exchange", "http", "io", "limits", "log", "metrics", "model", "shared", "split",
            "spool", "tenant", "trace", "upstream", "verdict", "wire",
        ],
    ),
    (
        "core",
        &[
            "config", "egress", "exchange", "ingest", "io", "limits", "metrics", "model", "shared", "spool",
            "upstream",
        ],
    ),
    (
        "admin",
        &[
            "auth", "config", "exchange", "explain", "http", "io", "limits", "log", "metrics", "model",
            "profile", "selector", "shared", "tenant", "tls",
        ],
    ),
    ("profile", &["limits", "wire"]),
    ("service.rs", &[]),
    ("signal.rs", &[]),
    (
        "supervisor",
        &[
            "admin", "auth", "config", "core", "exchange", "io", "limits", "log", "metrics", "model",
            "service", "shared", "signal", "spool", "trace", "upstream",
        ],
    ),
    (
        "cli",
        &[
            "auth",
            "config",
            "explain",
            "format",
            "http",
            "limits",
            "log",
            "model",
            "selector",
            "split",
            "spool",
            "supervisor",
            "tenant",
            "text",
            "wire",
        ],
    ),
];

/// Pure: no I/O, no runtime, no unsafe.
const PURE: &[&str] = &[
    "auth.rs",
    "auth/access",
    "auth/header",
    "auth/identity",
    "auth/jwt/keys",
    "auth/mac",
    "auth/password/queue",
    "auth/secret",
    "auth/token",
    "explain",
    "format.rs",
    "http",
    "limits.rs",
    "metrics",
    "model",
    "selector",
    "split",
    "spool/error.rs",
    "spool/fields.rs",
    "spool/index.rs",
    "spool/limits.rs",
    "spool/record.rs",
    "spool/spooled.rs",
    "spool/stream.rs",
    "tenant",
    "text",
    "tls",
    "upstream/backoff.rs",
    "verdict",
    "wire",
];

/// The only I/O below a pure place: it reads files for the others, which take them as bytes.
const READS_FILES: &str = "tls/files.rs";

/// Where Rust sources are, from the repository's root.
const SOURCES: &[&str] = &["src", "tests", "loadgen/src", "loadgen/tests", "fuzz", "benches"];

/// Where prose is.
const PROSE: &[&str] =
    &["", "configs", "configs/helm/tenantry", "configs/kubernetes", "loadgen", "packaging", "perf"];

/// Lines of a file, at most.
const LINES_MAX: usize = 600;

/// Columns of a comment or of prose, at most. What is code is rustfmt's business.
const COLUMNS_MAX: usize = 120;

/// The Rust sources below a folder: their paths from there, and their text.
fn sources_in(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // A fuzz target's build folder is no source.
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    walk(&root, &mut files);
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.into_iter().map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn sources() -> Vec<(String, String)> {
    sources_in("src")
}

fn belongs(file: &str, place: &str) -> bool {
    file == place || file == format!("{place}.rs") || file.starts_with(&format!("{place}/"))
}

/// The modules of the crate that a source names after `crate::`, also in groups.
fn imports(source: &str) -> Vec<String> {
    let code: Vec<_> = source.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found: Vec<_> =
        code.match_indices("crate::").flat_map(|(at, _)| heads(&code[at + 7..])).collect();
    found.retain(|module| {
        !module.is_empty() && module.chars().all(|c| c.is_lowercase() || c == '_' || c.is_numeric())
    });
    found
}

/// The first names of a path, or of each path of a group.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut found) = (1, vec![word(group.trim_start())]);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    found
}

#[test]
fn every_way_to_write_an_import_is_seen() {
    let source = "use crate::a::{b, c};\nuse crate::{d::{self, e}, f, g::{h, i::{j, k}}, l};\nfn x() { crate::m::y() }";
    assert_eq!(imports(source), ["a", "d", "f", "g", "l", "m"]);
}

/// The other checks do not follow paths with two `super`.
#[test]
fn no_path_leaves_its_module_by_two_steps() {
    for (file, source) in sources() {
        assert!(!source.contains("super::super::"), "{file}");
    }
}

#[test]
fn every_file_imports_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for (file, source) in sources() {
        if matches!(file.as_str(), "lib.rs" | "main.rs") {
            continue;
        }
        let rule =
            ALLOWED.iter().filter(|(place, _)| belongs(&file, place)).max_by_key(|(place, _)| place.len());
        let Some((_, allowed)) = rule else {
            wrong.push(format!("{file}: no rule says what it may import"));
            continue;
        };
        let own = file.split(['/', '.']).next().unwrap();
        for module in imports(&source) {
            if module != own && !allowed.contains(&module.as_str()) {
                wrong.push(format!("{file}: imports {module}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn ingest_and_egress_know_only_the_tools_of_a_core() {
    for (file, source) in sources() {
        if belongs(&file, "ingest") || belongs(&file, "egress") {
            assert!(!source.contains("crate::core") && !source.contains("io::driver"), "{file}");
        }
    }
}

#[test]
fn admin_shares_no_thread_with_the_cores() {
    for (file, source) in sources() {
        assert!(!belongs(&file, "admin") || !source.contains("crate::core"), "{file}");
    }
}

#[test]
fn pure_modules_are_pure() {
    let foreign = [
        "monoio",
        "std::net::Tcp",
        "std::fs",
        "std::thread",
        "rustix",
        "Instant::now",
        "SystemTime::now",
        "files::",
    ];
    for (file, source) in sources() {
        if !PURE.iter().any(|place| belongs(&file, place)) || file == READS_FILES {
            continue;
        }
        let code = graph::without_tests(&source);
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            assert!(foreign.iter().all(|word| !line.contains(word)), "{file}: {line}");
        }
        let is_test = file.contains("tests");
        let holds_code =
            code.lines().any(|l| !l.trim().is_empty() && !l.starts_with("//") && !l.contains("mod "));
        if holds_code && !is_test && file != "limits.rs" {
            assert!(source.contains("#![forbid(unsafe_code)]"), "{file} must forbid unsafe code");
        }
    }
}

#[test]
fn files_of_one_room_import_one_another_in_no_circle() {
    let circular = Graph::new(&sources()).circular();
    assert!(circular.is_empty(), "imports that are part of a circle: {circular:#?}");
}

#[test]
fn a_circle_is_found_through_groups_and_re_exports_but_not_through_tests() {
    let circular = |sources: &[(&str, &str)]| {
        let sources: Vec<_> =
            sources.iter().map(|(file, text)| (format!("{file}.rs"), (*text).to_owned())).collect();
        let found = Graph::new(&sources).circular();
        found.iter().map(|import| import.split(':').next().unwrap().replace(".rs", "")).collect::<Vec<_>>()
    };
    let back = ("a/y", "use super::x::X;\nstruct Y;");
    let both = ["a/x -> a/y", "a/y -> a/x"];
    for front in [
        "use crate::a::{self, y::{Y as Z, *}};",
        "use std::io;\nuse super::{\n    b,\n    y::Y,\n};",
        "fn f() -> super::y::Y { y() }",
        "pub(super) use super::y::Y;\nfn f(y: Y) {}",
        "use super::Y;",
        "use crate::a::Y;",
    ] {
        assert_eq!(
            circular(&[("a", "mod x;\nmod y;\npub use y::Y;"), ("a/x", front), back]),
            both,
            "{front}"
        );
    }
    for harmless in [
        "pub use super::y::Y;",
        "use super::Other;",
        "// crate::a::y::Y\npub(in crate::a::y) struct X;",
        "#[cfg(test)]\nmod tests {\n    use crate::a::y::Y;\n}",
        "use y::Y;",
    ] {
        let sources = [("a", "mod x;\nmod y;\nstruct Other;"), ("a/x", harmless), back];
        assert!(circular(&sources).is_empty(), "{harmless}");
    }
    let child = ("a/x", "use super::A;\npub struct X;");
    assert!(circular(&[("a", "mod x;\npub use x::X;\nstruct A;"), child]).is_empty());
    for own_use in ["mod x;\nuse x::X;", "mod x;\npub use x::X;\nstruct A(X);", "mod x;\nstruct A(x::X);"] {
        assert_eq!(circular(&[("a", own_use), child]), ["a -> a/x", "a/x -> a"], "{own_use}");
    }
}

#[test]
fn no_file_is_too_long() {
    for folder in SOURCES {
        for (file, source) in sources_in(folder) {
            let lines = source.lines().count();
            assert!(lines <= LINES_MAX, "{folder}/{file} has {lines} lines");
        }
    }
}

fn too_wide(line: &str) -> bool {
    line.chars().count() > COLUMNS_MAX
}

#[test]
fn no_comment_is_too_wide() {
    for folder in SOURCES {
        for (file, source) in sources_in(folder) {
            let comments = source.lines().filter(|line| line.trim_start().starts_with("//"));
            let wide: Vec<_> = comments.filter(|line| too_wide(line)).collect();
            assert!(wide.is_empty(), "{folder}/{file}: {wide:?}");
        }
    }
}

/// Tables and code have one line for one thing.
#[test]
fn no_prose_is_too_wide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = PROSE.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    for page in paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let mut is_code = false;
        for line in fs::read_to_string(&page).unwrap().lines() {
            is_code ^= line.trim_start().starts_with("```");
            assert!(is_code || line.starts_with('|') || !too_wide(line), "{}: {line}", page.display());
        }
    }
}
