//! CoreDNS' Corefile, read as it is: text -> lines -> server blocks -> typed plugins, each with its line. What
//! Weft's DNS server does not do is a [`Problem`] that names the line; what it reads without effect, a note.
//!
//! ```text
//! lines      characters -> words, lines and braces, as Caddy's lexer has them
//! blocks     lines -> server blocks, with snippets, imports and variables put in
//! plugins    the lines of a plugin -> its settings; all that is refused is refused here
//! model      what a Corefile says
//! disk       a Corefile and what it imports, from files; the only part that touches anything
//! ```
//! Grammar: corefile(5) and github.com/coredns/caddy/caddyfile. Plugins: coredns.io/plugins. How the DNS
//! server does what is said is not known here.

mod blocks;
pub mod disk;
mod domain;
mod duration;
mod lines;
mod model;
mod pattern;
mod plugins;
mod problem;
mod servers;

pub use blocks::Surroundings;
pub use domain::Domain;
pub use model::*;
pub use pattern::Pattern;
pub use problem::{Place, Problem, Problems};

/// Reads a Corefile. `file` is its name, for people, and where relative imports begin.
///
/// # Errors
/// All that is wrong or not supported, each with its line: at least one.
pub fn read(file: &str, text: &str, surroundings: &impl Surroundings) -> Result<Corefile, Problems> {
    let blocks = blocks::read(file, text, surroundings).map_err(|problem| Problems(vec![problem]))?;
    servers::read(file, &blocks)
}
