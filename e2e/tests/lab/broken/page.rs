//! The table of docs/troubleshooting.md, from the faults.

use std::path::Path;

use super::{Fault, Named, nodes, objects, ways};
use crate::lab::{Lab, Outcome};

/// What stands around the table.
const BEGIN: &str = "<!-- faults: from e2e/tests/lab/broken -->\n";
const END: &str = "<!-- /faults -->\n";
/// So many there must be at least.
const LEAST: usize = 40;

/// `WRITE_FAULTS=1` writes the table.
pub(super) fn lists_every_fault(_: &Lab) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = std::fs::read_to_string(&path).map_err(failed)?;
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let (before, (held, after)) = parts.ok_or(format!("{}: no {BEGIN}", path.display()))?;
    let groups = [objects::FAULTS, nodes::FAULTS, ways::FAULTS];
    let faults: Vec<String> = groups.into_iter().flatten().map(row).collect();
    if faults.len() < LEAST {
        return Err(format!("{} faults, and {LEAST} there must be", faults.len()));
    }
    let table = format!("| what is broken | said first | by |\n|---|---|---|\n{}", faults.concat());
    if std::env::var_os("WRITE_FAULTS").is_some() {
        let whole = format!("{before}{BEGIN}{table}{END}{after}");
        return std::fs::write(&path, whole).map_err(failed);
    }
    match held == table {
        true => Ok(()),
        false => Err(format!(
            "docs/troubleshooting.md has another table of faults: write it with WRITE_FAULTS=1; it is to be\n{table}"
        )),
    }
}

fn row(fault: &Fault) -> String {
    let (said, by) = match fault.named {
        Named::Doctor(id, _) => (format!("`{id}`"), "`weft doctor`"),
        Named::Trace(_, cause) => (shown(cause), "`weft trace`"),
    };
    format!("| {} | {said} | {by} |\n", fault.what)
}

/// The addresses of the lab, as words.
fn shown(cause: &str) -> String {
    let names =
        [("{client}", "ADDRESS"), ("{server}", "ADDRESS"), ("{nobody}", "ADDRESS"), ("{port}", "PORT")];
    let text = names.iter().fold(cause.to_owned(), |text, (name, word)| text.replace(name, word));
    // What follows there is of the lab alone.
    let begins = text.trim_end_matches([' ', ':']);
    if begins.len() < text.len() { format!("{begins} …") } else { text }
}
