//! Regular expressions as Go has them (RE2), on bytes: names are ASCII.

use std::fmt;

use regex::bytes::{Captures, Regex, RegexBuilder};

/// The longest, as CoreDNS has it.
const LONGEST: usize = 10_000;
/// The room that a compiled one may take, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A regular expression that matches anywhere in a name.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles one.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > LONGEST {
            return Err(format!("the regular expression is longer than {LONGEST} characters"));
        }
        let built = RegexBuilder::new(text).unicode(false).size_limit(MOST_BYTES).build();
        built.map(Pattern).map_err(|error| {
            let lines = error.to_string();
            let last = lines.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{text:?} is no regular expression: {last}")
        })
    }

    /// Whether it matches.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }

    /// The groups of the first match, the whole one being number 0; one that took no part is empty.
    pub fn groups<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        let captures: Captures<'n> = self.0.captures(name.as_bytes())?;
        let group =
            |number| captures.get(number).and_then(|found| std::str::from_utf8(found.as_bytes()).ok());
        Some((0..captures.len()).map(|number| group(number).unwrap_or_default()).collect())
    }

    /// How many groups there are besides the whole.
    pub fn group_count(&self) -> usize {
        self.0.captures_len() - 1
    }

    /// The number of a group by its name.
    pub fn group_named(&self, name: &str) -> Option<usize> {
        self.0.capture_names().position(|group| group == Some(name))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_number_and_name() {
        let pattern = Pattern::new(r"^(?P<a>\d+)-(b)?(c)\.x\.$").unwrap();
        assert_eq!(pattern.groups("17-c.x.").unwrap(), ["17-c.x.", "17", "", "c"]);
        assert_eq!(
            (pattern.group_count(), pattern.group_named("a"), pattern.group_named("b")),
            (3, Some(1), None)
        );
        assert!(pattern.groups("x-c.x.").is_none());
    }

    #[test]
    fn what_is_none_is_said_in_one_line() {
        for text in ["(", "a**{", r"(?=a)", r"\1", &"a".repeat(10_001)] {
            assert_eq!(Pattern::new(text).unwrap_err().lines().count(), 1, "{text}");
        }
    }
}
