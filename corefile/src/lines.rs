//! The lexer: characters -> words, and words -> lines and braces, as Caddy has them (caddyfile/lexer.go). A
//! word ends at white space, or at the closing quote where it begins with one; `#` begins a comment, even
//! within a word.

use std::sync::Arc;

use crate::problem::Place;

/// A word, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// The words of a line up to a brace, or a brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Words on one line; never empty.
    Words(Vec<Word>),
    /// `{`
    Open(Place),
    /// `}`
    Close(Place),
}

impl Item {
    /// Where it stands.
    pub(crate) fn place(&self) -> &Place {
        match self {
            Item::Words(words) => &words[0].place,
            Item::Open(place) | Item::Close(place) => place,
        }
    }
}

/// Reads a whole text.
pub(crate) fn items(file: &Arc<str>, text: &str) -> Vec<Item> {
    let (mut items, mut line_of_words) = (Vec::new(), 0);
    for (word, end) in words(file, text) {
        let begins_line = word.place.line != line_of_words;
        line_of_words = end;
        match (word.text.as_str(), items.last_mut()) {
            ("{", _) => items.push(Item::Open(word.place)),
            ("}", _) => items.push(Item::Close(word.place)),
            (_, Some(Item::Words(words))) if !begins_line => words.push(word),
            _ => items.push(Item::Words(vec![word])),
        }
    }
    items
}

/// Each word, and the line on which it ends.
fn words(file: &Arc<str>, text: &str) -> Vec<(Word, u32)> {
    let (mut words, mut line) = (Vec::new(), 1);
    let mut characters = text.strip_prefix('\u{feff}').unwrap_or(text).chars();
    let place = |line| Place { file: file.clone(), line };
    let mut word: Option<Word> = None;
    while let Some(character) = characters.next() {
        match character {
            // Caddy drops it wherever it stands.
            '\r' => {}
            '#' => {
                words.extend(word.take().map(|word| (word, line)));
                if characters.by_ref().any(|character| character == '\n') {
                    line += 1;
                }
            }
            '"' if word.is_none() => {
                let begins = place(line);
                let text = quoted(&mut characters, &mut line);
                words.push((Word { text, place: begins }, line));
            }
            _ if character.is_whitespace() => {
                words.extend(word.take().map(|word| (word, line)));
                line += u32::from(character == '\n');
            }
            _ => {
                let begun = word.get_or_insert_with(|| Word { text: String::new(), place: place(line) });
                begun.text.push(character);
            }
        }
    }
    words.extend(word.take().map(|word| (word, line)));
    words
}

/// The rest of a quoted word. Only quotes may be escaped; one that is never closed ends with the text.
fn quoted(characters: &mut std::str::Chars<'_>, line: &mut u32) -> String {
    let (mut text, mut escaped) = (String::new(), false);
    for character in characters {
        match character {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => return text,
            '\n' => *line += 1,
            _ => {}
        }
        if escaped && character != '"' {
            text.push('\\');
        }
        text.push(character);
        escaped = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let item = |item: &Item| match item {
            Item::Words(words) => {
                let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
                format!("{} {}", item.place().line, words.join("|"))
            }
            Item::Open(place) => format!("{} {{", place.line),
            Item::Close(place) => format!("{} }}", place.line),
        };
        items(&"f".into(), text).iter().map(item).collect()
    }

    #[test]
    fn words_lines_and_braces() {
        assert_eq!(
            told(".:53 {\n  errors\n\n forward . 1.1.1.1 {\r\n  expire 5s\n}\n}\n"),
            ["1 .:53", "1 {", "2 errors", "4 forward|.|1.1.1.1", "4 {", "5 expire|5s", "6 }", "7 }"]
        );
        assert_eq!(told(". { errors }"), ["1 .", "1 {", "1 errors", "1 }"], "all on one line");
        assert_eq!(told("a{ b}c {$X} {{"), ["1 a{|b}c|{$X}|{{"], "braces within words are letters");
    }

    #[test]
    fn quotes_and_comments() {
        assert_eq!(told("a \"b c\" \"\" \"d\\\"e\\.f\" g\"h\n"), ["1 a|b c||d\"e\\.f|g\"h"]);
        assert_eq!(told("a \"b\nc\" d\ne"), ["1 a|b\nc|d", "3 e"], "a quoted word may go over lines");
        assert_eq!(told("# x {\na#b c\nd \"#\" # e\n\"f"), ["2 a", "3 d|#", "4 f"]);
        assert_eq!(told("\u{feff}a"), ["1 a"]);
        assert_eq!(told(""), [""; 0]);
    }
}
