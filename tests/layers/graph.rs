//! Which files of `src` import which others: `use` declarations and paths, read as text, followed through re-exports to
//! the file that defines the item. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};

/// A file's imports, and what else it says.
#[derive(Default)]
struct File {
    uses: Vec<Use>,
    /// Without `use` declarations, comments and tests.
    code: String,
}

/// One imported name.
struct Use {
    /// From the crate's root.
    path: Vec<String>,
    /// What the file calls it.
    name: String,
    is_public: bool,
}

/// The files by the modules that they hold: `split/loki.rs` is `["split", "loki"]`.
pub(crate) struct Graph(BTreeMap<Vec<String>, File>);

/// For each module those that it imports, with the names of what it imports.
type Edges = BTreeMap<Vec<String>, BTreeMap<Vec<String>, BTreeSet<String>>>;

impl Graph {
    pub(crate) fn new(sources: &[(String, String)]) -> Self {
        let shipped = sources.iter().filter(|(file, _)| !is_test(file));
        Self(shipped.map(|(file, source)| (module(file), File::new(&module(file), source))).collect())
    }

    /// The imports that are part of a circle of files of one room, as text: file, imported file, and imported names.
    pub(crate) fn circular(&self) -> Vec<String> {
        let edges: Edges = self.0.keys().map(|from| (from.clone(), self.imported_by(from))).collect();
        let reached: BTreeMap<_, _> = edges.keys().map(|from| (from, reach(&edges, from))).collect();
        let all = edges.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
        let circular = all.filter(|(from, (to, _))| reached[to].contains(*from));
        circular.map(|(from, (to, names))| format!("{} -> {}: {names:?}", file(from), file(to))).collect()
    }

    /// The modules of the same room whose items this one uses for itself, and these items' names.
    fn imported_by(&self, module: &[String]) -> BTreeMap<Vec<String>, BTreeSet<String>> {
        let file = &self.0[module];
        let used = file.uses.iter().filter(|import| !import.is_public || has_word(&file.code, &import.name));
        let paths = used.map(|import| import.path.clone()).chain(self.paths(module));
        let mut found: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
        for path in paths {
            let target = self.resolve(&path, 0).filter(|target| target.first() == module.first());
            if let Some(target) = target.filter(|target| target != module) {
                found.entry(target).or_default().extend(path.last().cloned());
            }
        }
        found
    }

    /// The paths in a file's code: those that begin with `crate`, `super` or `self`, and those that begin with a child.
    fn paths(&self, module: &[String]) -> Vec<Vec<String>> {
        let code = &self.0[module].code;
        let children =
            self.0.keys().filter(|other| other.len() == module.len() + 1 && other.starts_with(module));
        let children = children.map(|child| child[module.len()].as_str());
        let mut found = Vec::new();
        for head in ["crate", "super", "self"].into_iter().chain(children) {
            for (at, _) in code.match_indices(&format!("{head}::")) {
                let before = &code[..at];
                // `pub(in crate::split)` is a visibility, and imports nothing.
                let is_path = !before.ends_with(|letter: char| is_word(letter) || letter == ':');
                if is_path && !before.ends_with("(in ") {
                    let path = code[at..].split(|c: char| !is_word(c) && c != ':').next().unwrap_or_default();
                    found.push(absolute(module, path.split("::").filter(|segment| !segment.is_empty())));
                }
            }
        }
        found
    }

    /// The module that defines what is at a path. A re-export leads on to where its item comes from.
    fn resolve(&self, path: &[String], depth: usize) -> Option<Vec<String>> {
        let length = (1..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length]))?;
        let (module, rest) = path.split_at(length);
        let name = rest.first();
        let import = self.0[module].uses.iter().find(|import| Some(&import.name) == name);
        match import.filter(|_| depth < 8) {
            Some(import) if import.path.first() == module.first() => self.resolve(&import.path, depth + 1),
            Some(_) => None,
            None => Some(module.to_vec()),
        }
    }
}

impl File {
    fn new(module: &[String], source: &str) -> Self {
        let mut file = Self::default();
        let source = without_tests(source);
        let mut statements = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        while let Some(line) = statements.next() {
            let Some((visibility, tree)) = use_in(line) else {
                file.code.push_str(line);
                file.code.push('\n');
                continue;
            };
            let mut tree = tree.to_owned();
            while !tree.ends_with(';') {
                let Some(more) = statements.next() else { break };
                tree.push_str(more.trim());
            }
            for (path, name) in leaves(tree.trim_end_matches(';')) {
                let path = absolute(module, path.iter().map(String::as_str));
                file.uses.push(Use { path, name, is_public: !visibility.is_empty() });
            }
        }
        file
    }
}

/// The visibility of a `use` declaration that begins on this line, and what follows `use`.
fn use_in(line: &str) -> Option<(&str, &str)> {
    let (visibility, tree) = line.trim().split_once("use ")?;
    let is_visibility = visibility.is_empty() || visibility.starts_with("pub");
    is_visibility.then_some((visibility, tree))
}

/// The paths of a `use` tree, each with the name that it brings.
fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{').and_then(|group| group.strip_suffix('}')) {
        return at_commas(group).into_iter().flat_map(leaves).collect();
    }
    if let Some((head, rest)) = tree.split_once("::") {
        let with_head = |(mut path, mut name): (Vec<String>, String)| {
            path.insert(0, head.to_owned());
            if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                path.pop();
                name = head.to_owned();
            }
            (path, name)
        };
        return leaves(rest).into_iter().map(with_head).collect();
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree));
    if path.is_empty() { Vec::new() } else { vec![(vec![path.to_owned()], name.to_owned())] }
}

/// The members of a group.
fn at_commas(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_border = |letter: char| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    };
    group.split(is_border).collect()
}

/// A path as it is written in a module, from the crate's root. A path that begins with another crate's name ends in the
/// module itself, as the module has no child of that name.
fn absolute<'a>(module: &[String], path: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found = module.to_vec();
    for (at, segment) in path.enumerate() {
        match segment {
            "crate" if at == 0 => found.clear(),
            "super" => drop(found.pop()),
            "self" => {}
            other => found.push(other.to_owned()),
        }
    }
    found
}

/// Everything but the items under `#[cfg(test)]` and `#[cfg(all(test, …))]`.
pub(crate) fn without_tests(source: &str) -> String {
    let mut kept = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let attribute = line.trim_start();
        if !["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|test| attribute.starts_with(test)) {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let end = line.replace(attribute, "}");
        let mut item = lines.by_ref().skip_while(|line| line.trim_start().starts_with("#["));
        if item.next().is_some_and(|first| first.ends_with('{')) {
            item.find(|line| *line == end);
        }
    }
    kept
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("tests/")
}

/// The module that a file holds.
fn module(file: &str) -> Vec<String> {
    file.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
}

/// The file that holds a module.
fn file(module: &[String]) -> String {
    module.join("/") + ".rs"
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|letter| !is_word(letter)).any(|found| found == word)
}

/// What can be reached from a module.
fn reach(edges: &Edges, from: &[String]) -> BTreeSet<Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from.to_vec()];
    while let Some(next) = open.pop() {
        for to in edges.get(&next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    reached
}
