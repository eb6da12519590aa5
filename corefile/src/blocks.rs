//! Lines -> server blocks and the plugins in them, with snippets, imports and variables put in, as Caddy does
//! it (caddyfile/parse.go). What a plugin's lines mean is not known here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::lines::{Item, Word, items};
use crate::problem::{Place, Problem};

/// How many imports may be followed, as CoreDNS has it for snippets: one may import itself.
const MOST_IMPORTS: usize = 10_000;
/// How many lines a Corefile may have with all that it imports.
const MOST_LINES: usize = 200_000;
/// How deep braces may stand within a plugin.
const DEEPEST: usize = 16;

/// What a Corefile may refer to.
pub trait Surroundings {
    /// The value of an environment variable; none where it is not set, which reads as nothing.
    fn variable(&self, name: &str) -> Option<String>;

    /// The files that `pattern` names, each with its text, in the order of their names. A relative pattern
    /// begins in the folder of the file `from`.
    ///
    /// # Errors
    /// Why one cannot be read, or that there is none where the pattern has no `*`.
    fn import(&self, from: &str, pattern: &str) -> Result<Vec<(String, String)>, String>;
}

/// A server block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Zones, with ports.
    pub(crate) keys: Vec<Word>,
    pub(crate) directives: Vec<Directive>,
}

/// A plugin as it stands in a block.
#[derive(Clone, Debug)]
pub(crate) struct Directive {
    pub(crate) name: Word,
    /// The words after it.
    pub(crate) words: Vec<Word>,
    /// The lines within its braces.
    pub(crate) body: Vec<Setting>,
    /// Whether braces stand within its braces: no plugin that is read has such.
    pub(crate) nested: bool,
}

/// A line within a plugin's braces.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: Word,
    pub(crate) words: Vec<Word>,
}

/// Reads a text into its server blocks.
pub(crate) fn read(file: &str, text: &str, around: &impl Surroundings) -> Result<Vec<Block>, Problem> {
    let file: Arc<str> = file.into();
    let items = VecDeque::from(items(&file, text));
    let mut reader = Reader {
        around,
        lines: items.len(),
        items,
        snippets: HashMap::new(),
        imports: 0,
        last: Place { file, line: 1 },
    };
    let mut blocks = Vec::new();
    while let Some(item) = reader.next()? {
        match item {
            Item::Words(words) => blocks.extend(reader.block(words)?),
            Item::Open(place) => {
                return Err(place.problem("a server block needs a zone before its {, such as `.:53`"));
            }
            Item::Close(place) => return Err(place.problem("this } closes nothing")),
        }
    }
    Ok(blocks)
}

struct Reader<'s, S> {
    around: &'s S,
    items: VecDeque<Item>,
    snippets: HashMap<String, Vec<Item>>,
    imports: usize,
    lines: usize,
    /// What was read last, to name the end of the text by.
    last: Place,
}

impl<S: Surroundings> Reader<'_, S> {
    /// The next item, imports put in and variables replaced.
    fn next(&mut self) -> Result<Option<Item>, Problem> {
        while let Some(item) = self.items.pop_front() {
            self.last = item.place().clone();
            match item {
                Item::Words(words) if words[0].text == "import" => self.import(&words)?,
                Item::Words(words) => {
                    return Ok(Some(Item::Words(
                        words.into_iter().map(|word| self.replaced(word)).collect(),
                    )));
                }
                brace => return Ok(Some(brace)),
            }
        }
        Ok(None)
    }

    fn import(&mut self, words: &[Word]) -> Result<(), Problem> {
        let place = &words[0].place;
        let [_, pattern] = words else {
            return Err(place.problem("import takes one argument: a file, a pattern or a snippet"));
        };
        let pattern = self.replaced(pattern.clone()).text;
        self.imports += 1;
        if self.imports > MOST_IMPORTS {
            return Err(
                place.problem(format!("more than {MOST_IMPORTS} imports: does {pattern} import itself?"))
            );
        }
        let imported = match self.snippets.get(&pattern) {
            Some(snippet) => snippet.clone(),
            None => {
                let files = self.around.import(&place.file, &pattern);
                let files = files.map_err(|problem| place.problem(format!("import {pattern}: {problem}")))?;
                files.iter().flat_map(|(file, text)| items(&file.as_str().into(), text)).collect()
            }
        };
        self.lines += imported.len();
        if self.lines > MOST_LINES {
            return Err(place.problem(format!("more than {MOST_LINES} lines with all that is imported")));
        }
        imported.into_iter().rev().for_each(|item| self.items.push_front(item));
        Ok(())
    }

    /// `{$NAME}` and `{%NAME%}` are variables, within words too.
    fn replaced(&self, mut word: Word) -> Word {
        for (open, close) in [("{%", "%}"), ("{$", "}")] {
            let mut done = String::new();
            while let Some((before, rest)) = word.text.split_once(open) {
                let Some((name, after)) = rest.split_once(close).filter(|(name, _)| !name.is_empty()) else {
                    break;
                };
                done += before;
                done += &self.around.variable(name).unwrap_or_default();
                word.text = after.to_owned();
            }
            word.text = done + &word.text;
        }
        word
    }

    /// The block whose first line is this. None where it was a snippet.
    fn block(&mut self, first: Vec<Word>) -> Result<Option<Block>, Problem> {
        let place = first[0].place.clone();
        let mut keys = Vec::new();
        let mut another = add_keys(&mut keys, first);
        loop {
            match self.items.front() {
                Some(Item::Words(words)) if another => {
                    let words = words.clone();
                    self.next()?;
                    another = add_keys(&mut keys, words);
                }
                Some(Item::Open(brace)) if another => {
                    return Err(brace.problem("a zone is missing after the comma"));
                }
                Some(Item::Open(_)) => {
                    self.next()?;
                    break;
                }
                // A file of one server block needs no braces.
                Some(_) if !another => {
                    return self.directives(false).map(|directives| Some(Block { keys, directives }));
                }
                None if !another => return Ok(Some(Block { keys, directives: Vec::new() })),
                _ => return Err(self.last.problem("a zone is missing after the comma")),
            }
        }
        let snippet = match &keys[..] {
            [key] => key.text.strip_prefix('(').and_then(|name| name.strip_suffix(')')),
            _ => None,
        };
        let Some(name) = snippet.map(str::to_owned) else {
            return self.directives(true).map(|directives| Some(Block { keys, directives }));
        };
        let body = self.snippet()?;
        if self.snippets.insert(name.clone(), body).is_some() {
            return Err(place.problem(format!("the snippet ({name}) is there already")));
        }
        Ok(None)
    }

    /// All up to the brace that closes a snippet, as it stands.
    fn snippet(&mut self) -> Result<Vec<Item>, Problem> {
        let (mut body, mut open) = (Vec::new(), 1);
        while let Some(item) = self.items.pop_front() {
            self.last = item.place().clone();
            match &item {
                Item::Open(_) => open += 1,
                Item::Close(_) => open -= 1,
                Item::Words(_) => {}
            }
            if open == 0 {
                return Ok(body);
            }
            body.push(item);
        }
        Err(self.last.problem("the file ends before the } of a snippet"))
    }

    /// The plugins up to the brace that closes the block, or to the end where none opened it.
    fn directives(&mut self, braces: bool) -> Result<Vec<Directive>, Problem> {
        let mut directives = Vec::new();
        loop {
            match self.next()? {
                Some(Item::Words(words)) => {
                    let mut words = words.into_iter();
                    let Some(name) = words.next() else { continue };
                    directives.push(self.directive(name, words.collect())?);
                }
                Some(Item::Open(place)) => return Err(place.problem("a plugin is missing before this {")),
                Some(Item::Close(_)) if braces => return Ok(directives),
                Some(Item::Close(place)) => return Err(place.problem("this } closes nothing")),
                None if braces => {
                    return Err(self.last.problem("the file ends before the } of a server block"));
                }
                None => return Ok(directives),
            }
        }
    }

    fn directive(&mut self, name: Word, words: Vec<Word>) -> Result<Directive, Problem> {
        let mut directive = Directive { name, words, body: Vec::new(), nested: false };
        // A brace opens a plugin's lines on the plugin's own line only.
        match self.items.front() {
            Some(Item::Open(place))
                if place.line >= directive.name.place.line && *place.file == *directive.name.place.file =>
            {
                self.next()?;
            }
            _ => return Ok(directive),
        }
        let mut open = 1_usize;
        loop {
            match self.next()? {
                Some(Item::Words(words)) => {
                    let mut words = words.into_iter();
                    let Some(name) = words.next() else { continue };
                    directive.body.push(Setting { name, words: words.collect() });
                }
                Some(Item::Open(place)) => {
                    open += 1;
                    directive.nested = true;
                    if open > DEEPEST {
                        return Err(place.problem("braces stand too deep"));
                    }
                }
                Some(Item::Close(_)) => open -= 1,
                None => {
                    let text = format!("the file ends before the }} of {}", directive.name.text);
                    return Err(self.last.problem(text));
                }
            }
            if open == 0 {
                return Ok(directive);
            }
        }
    }
}

/// Adds the zones of a line. True where another one must follow.
fn add_keys(keys: &mut Vec<Word>, words: Vec<Word>) -> bool {
    let mut another = false;
    for mut word in words {
        another = word.text.ends_with(',');
        word.text.truncate(word.text.len() - usize::from(another));
        if !word.text.is_empty() {
            keys.push(word);
        }
    }
    another
}

#[cfg(test)]
mod tests;
