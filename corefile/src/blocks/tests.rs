//! Blocks of texts, written down again.

use super::*;

/// Files and variables from memory.
struct Memory(&'static [(&'static str, &'static str)]);

impl Surroundings for Memory {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "PORT").then(|| "5353".to_owned())
    }

    fn import(&self, from: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
        let found = self.0.iter().filter(|(name, _)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *name == pattern,
        });
        let found: Vec<_> = found.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        match found.is_empty() && !pattern.contains('*') {
            true => Err(format!("there is no such file beside {from}")),
            false => Ok(found),
        }
    }
}

fn told(text: &str) -> Result<Vec<String>, String> {
    let files = Memory(&[
        ("custom/a.override", "log\n"),
        ("custom/b.override", "hosts {\n 10.0.0.1 a\n}\n"),
        ("stub.server", "corp:53 {\n forward . 10.0.0.1\n}\n"),
    ]);
    let words = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect::<Vec<_>>().join(" ");
    let blocks = read("Corefile", text, &files).map_err(|problem| problem.to_string())?;
    let mut lines = Vec::new();
    for block in &blocks {
        lines.push(format!("[{}]", words(&block.keys)));
        for Directive { name, words: after, body, nested } in &block.directives {
            let body: Vec<String> =
                body.iter().map(|line| format!("{} {}", line.name.text, words(&line.words))).collect();
            let nested = if *nested { " nested" } else { "" };
            lines.push(format!(
                "{}:{} {} {}{body:?}{nested}",
                name.place.file,
                name.place.line,
                name.text,
                words(after)
            ));
        }
    }
    Ok(lines)
}

#[test]
fn blocks_have_zones_and_plugins() {
    assert_eq!(
        told(".:53 example.org,\n  example.net {\n errors\n cache 30 {\n  disable success a\n }\n}\nb { }")
            .unwrap(),
        [
            "[.:53 example.org example.net]",
            "Corefile:3 errors []",
            "Corefile:4 cache 30[\"disable success a\"]",
            "[b]"
        ]
    );
    assert_eq!(
        told(".\nlog\nerrors").unwrap(),
        ["[.]", "Corefile:2 log []", "Corefile:3 errors []"],
        "no braces"
    );
    assert_eq!(told(".\n{\nlog\n}").unwrap(), ["[.]", "Corefile:3 log []"]);
    assert_eq!(told("# nothing\n").unwrap(), [""; 0]);
    assert_eq!(told(".").unwrap(), ["[.]"]);
}

#[test]
fn snippets_imports_and_variables_are_put_in() {
    assert_eq!(
        told("(usual) {\n errors\n log\n}\n.:{$PORT} {\n import usual\n forward . 127.0.0.1:{%PORT%}{$NONE}\n}\n").unwrap(),
        ["[.:5353]", "Corefile:2 errors []", "Corefile:3 log []", "Corefile:7 forward . 127.0.0.1:5353[]"]
    );
    assert_eq!(
        told(". {\n import custom/*\n import nothing/*\n}\nimport stub.server\n").unwrap(),
        [
            "[.]",
            "custom/a.override:1 log []",
            "custom/b.override:1 hosts [\"10.0.0.1 a\"]",
            "[corp:53]",
            "stub.server:2 forward . 10.0.0.1[]"
        ]
    );
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    for (text, expected) in [
        (". {\n errors", "Corefile:2: the file ends before the } of a server block"),
        (". {\n cache {\n", "Corefile:2: the file ends before the } of cache"),
        (". {\n}\n}", "Corefile:3: this } closes nothing"),
        ("{\n}", "Corefile:1: a server block needs a zone"),
        ("a, {\n}", "Corefile:1: a zone is missing"),
        ("a,", "Corefile:1: a zone is missing"),
        (". {\n import nobody\n}", "Corefile:2: import nobody: there is no such file beside Corefile"),
        (". {\n import a b\n}", "Corefile:2: import takes one argument"),
        ("(a) {\n import a\n}\n. {\n import a\n}", "Corefile:2: more than 10000 imports"),
        ("(a) {\n}\n(a) {\n}", "Corefile:3: the snippet (a) is there already"),
        ("(a) {\n", "Corefile:1: the file ends before the } of a snippet"),
    ] {
        let error = told(text).unwrap_err();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}
