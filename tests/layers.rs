//! Holds the layers of ARCHITECTURE.md: imports point down only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a place may import from this crate, besides itself; the longest prefix that fits counts.
/// Test modules are held to the same.
const ALLOWED: &[(&str, &[&str])] = &[
    ("limits.rs", &[]),
    ("wire", &["limits"]),
    ("tenant", &["limits"]),
    ("model", &["limits", "tenant"]),
    ("http", &["limits", "model"]),
    ("split", &["limits", "model", "tenant", "wire"]),
    ("verdict", &["http", "limits", "model", "split", "tenant", "wire"]),
    ("metrics", &["limits", "model", "tenant"]),
    ("log", &["limits"]),
    ("auth", &["limits", "tenant"]),
    ("config", &["auth", "limits", "model", "tenant"]),
    ("io", &["limits"]),
    ("io/driver.rs", &["config", "limits"]),
    ("shared", &["config", "http", "limits", "model", "split", "tenant"]),
    ("exchange", &["config", "http", "model", "shared", "tenant"]),
    ("upstream", &["config", "exchange", "http", "io", "limits", "model", "shared", "tenant", "wire"]),
    (
        "ingest",
        &[
            "config", "exchange", "http", "io", "limits", "log", "metrics", "model", "shared", "split",
            "tenant", "verdict",
        ],
    ),
    (
        "egress",
        &[
            "config", "exchange", "http", "io", "limits", "log", "metrics", "model", "shared", "split",
            "tenant", "upstream", "verdict",
        ],
    ),
    (
        "core.rs",
        &["config", "egress", "exchange", "ingest", "io", "limits", "metrics", "model", "shared", "upstream"],
    ),
    ("admin", &["config", "http", "io", "limits", "log", "metrics", "model", "shared", "tenant"]),
    ("signal.rs", &[]),
    (
        "supervisor",
        &[
            "admin", "config", "core", "exchange", "io", "limits", "log", "metrics", "model", "shared",
            "signal", "upstream",
        ],
    ),
    ("cli", &["config", "limits", "log", "supervisor"]),
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
    "http",
    "limits.rs",
    "metrics",
    "model",
    "split",
    "tenant",
    "upstream/backoff.rs",
    "verdict",
    "wire",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            (
                path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

fn belongs(file: &str, place: &str) -> bool {
    file == place || file == format!("{place}.rs") || file.starts_with(&format!("{place}/"))
}

/// The crate's modules that a source names: whatever follows `crate::`, be it in a group.
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

/// A path with two `super` might lead anywhere, unseen.
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
    let foreign =
        ["monoio", "std::net::Tcp", "std::fs", "std::thread", "rustix", "Instant::now", "SystemTime::now"];
    for (file, source) in sources() {
        if !PURE.iter().any(|place| belongs(&file, place)) {
            continue;
        }
        let code = source.split("#[cfg(test)]").next().unwrap();
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
