//! Which source file of a crate needs which, read from their text: paths that begin with `crate::` or
//! `super::`, by whatever re-exports they lead. A folder's own file (`foo.rs` beside `foo/`) leads what is in
//! the folder; that it names its own files is no need of them. Enough to find circles without compiling
//! anything.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path within the crate, or an item in one; the crate's root is the empty path.
type Path = Vec<String>;

/// The text of each file of a crate, without its tests, and what it says under other names.
struct Module {
    text: String,
    exports: BTreeMap<String, Path>,
}

/// The files that need each other, of a crate whose files below `src/` have these texts. Empty where none
/// does.
pub(crate) fn circle<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
    let modules: BTreeMap<Path, Module> = files.into_iter().map(|(file, text)| module(file, text)).collect();
    let needs: BTreeMap<&Path, BTreeSet<Path>> = modules
        .iter()
        // The root lists all.
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, module)| {
            let named = paths(path, &module.text).into_iter().map(|named| file_of(named, &modules));
            (path, named.filter(|file| !file.is_empty() && file != path).collect())
        })
        .collect();
    // What needs nothing that is left, or what nothing that is left needs, is in no circle.
    let mut left: BTreeSet<&Path> = needs.keys().copied().collect();
    let is_free = |path: &Path, left: &BTreeSet<&Path>| {
        needs[path].iter().all(|needed| !left.contains(needed))
            || left.iter().all(|it| !needs[*it].contains(path))
    };
    while let Some(free) = left.iter().copied().find(|path| is_free(path, &left)) {
        left.remove(free);
    }
    left.into_iter().map(|path| path.join("::")).collect()
}

fn module(file: &str, text: &str) -> (Path, Module) {
    let path = file.trim_end_matches(".rs");
    let path: Path = match path {
        "lib" | "main" => Path::new(),
        path => path.split('/').map(str::to_owned).collect(),
    };
    let is_test = path.last().is_some_and(|name| name == "tests");
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code =
        code.take_while(|line| !is_test && !line.starts_with("mod tests {")).collect::<Vec<_>>().join("\n");
    let exports = exports(&path, &code);
    (path, Module { text: code, exports })
}

/// What a module has under a name of its own, though it stands elsewhere.
fn exports(module: &[String], code: &str) -> BTreeMap<String, Path> {
    let statements = code.split("\npub").skip(1).filter_map(|rest| match rest.split_once("use ") {
        Some((visibility, rest)) if visibility.trim().is_empty() || visibility.ends_with(") ") => {
            rest.split(';').next()
        }
        _ => None,
    });
    let paths = statements.flat_map(|tree| items(&[], tree).0);
    paths.filter_map(|path| Some((path.last()?.clone(), absolute(module, &path)))).collect()
}

/// The path from the crate's root of what a module names by this one.
fn absolute(module: &[String], path: &[String]) -> Path {
    match path.split_first() {
        Some((first, rest)) if first == "crate" => rest.to_vec(),
        Some((first, rest)) if first == "super" => absolute(&module[..module.len().saturating_sub(1)], rest),
        Some((first, rest)) if first == "self" => absolute(module, rest),
        _ => [module, path].concat(),
    }
}

/// The file that holds what a path names.
fn file_of(path: Path, modules: &BTreeMap<Path, Module>) -> Path {
    let mut path = path;
    // Re-exports of re-exports end somewhere.
    for _ in 0..8 {
        let length =
            (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length])).unwrap_or_default();
        let (file, items) = path.split_at(length);
        let elsewhere = items.first().and_then(|item| modules.get(file)?.exports.get(item));
        match elsewhere.filter(|elsewhere| **elsewhere != path) {
            Some(elsewhere) => path = [&elsewhere[..], &items[1..]].concat(),
            None => return file.to_vec(),
        }
    }
    path
}

/// The paths within the crate that a module names.
fn paths(module: &[String], code: &str) -> BTreeSet<Path> {
    let parent = &module[..module.len() - 1];
    let mut found = BTreeSet::new();
    for (keyword, base) in [("crate::", &[][..]), ("super::", parent)] {
        for (at, _) in code.match_indices(keyword) {
            let is_within = |it: char| it.is_alphanumeric() || it == '_' || it == ':';
            if !code[..at].ends_with(is_within) {
                found.extend(items(base, &code[at + keyword.len()..]).0);
            }
        }
    }
    found
}

/// The items of a tree of paths, which begins the text, and what follows it: of `a::{b, c::d}` it is `a::b`
/// and `a::c::d`.
fn items<'a>(base: &[String], text: &'a str) -> (Vec<Path>, &'a str) {
    let (mut path, mut rest) = (base.to_vec(), text.trim_start());
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            let (mut found, mut rest) = (Vec::new(), inner.trim_start());
            while !rest.is_empty() && !rest.starts_with('}') {
                let (more, behind) = items(&path, rest);
                found.extend(more);
                let next = behind.trim_start().trim_start_matches(',').trim_start();
                if next.len() == rest.len() {
                    break;
                }
                rest = next;
            }
            return (found, rest.strip_prefix('}').unwrap_or(rest));
        }
        let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        match name {
            "super" if !base.is_empty() => drop(path.pop()),
            "self" if !path.is_empty() => {}
            "" => {}
            name => path.push(name.to_owned()),
        }
        rest = behind;
        match rest.strip_prefix("::") {
            Some(behind) => rest = behind.trim_start(),
            None => break,
        }
    }
    // A renamed item: `b as c`.
    let rest = match rest.trim_start().strip_prefix("as ") {
        Some(behind) => behind.trim_start_matches(|it: char| it.is_alphanumeric() || it == '_'),
        None => rest,
    };
    (vec![path], rest)
}

#[test]
fn a_circle_is_seen_through_groups_and_other_names_and_a_folder_may_lead_its_files() {
    let root = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use b::Thing;\n");
    let a = ("a.rs", "mod own;\nuse own::help;\nuse crate::{c::{self, Other}, Thing};\n");
    let own = ("a/own.rs", "use super::Kind;\npub(crate) fn help() {}\n");
    let [free, bound] = ["", "fn f() { super::a::g() }\n"].map(|b| ("b.rs", b));
    let c = ("c.rs", "// crate::a\nmod tests {\n    use crate::a;\n}\n");
    let found = |b| circle([root, a, own, b, c]).into_iter().collect::<Vec<_>>();
    assert_eq!(found(free), [""; 0]);
    assert_eq!(found(bound), ["a", "b"]);
}
