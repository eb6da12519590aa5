//! What was measured, as tables for people and for the documentation.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use weft_bench::table::{Table, ms, number, thousands};

/// All results of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The full loads, of Weft and its peers.
    pub(crate) loads: Vec<Load>,
    table: Table,
}

/// One full load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// What was loaded, by what.
    pub(crate) contender: &'static str,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    pub(crate) outcome: Outcome,
}

/// How a load ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Well, in that time.
    Took(Duration),
    /// It was stopped after that time.
    Stopped(Duration),
    /// It was not begun, since a smaller one had taken long.
    NotTried,
    /// The machine's kernel cannot do it.
    Impossible,
}

/// Results are noted where they are seen.
impl Deref for Report {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl DerefMut for Report {
    fn deref_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

impl Report {
    pub(crate) fn print(&self) {
        if !self.loads.is_empty() {
            self.print_loads();
        }
        self.table.print();
    }

    /// A line for each size, a column for each contender.
    fn print_loads(&self) {
        let mut contenders: Vec<&str> = Vec::new();
        let mut sizes: Vec<(usize, usize)> = Vec::new();
        for load in &self.loads {
            if !contenders.contains(&load.contender) {
                contenders.push(load.contender);
            }
            if !sizes.contains(&(load.endpoints, load.services)) {
                sizes.push((load.endpoints, load.services));
            }
        }
        sizes.sort_unstable();
        println!("From an empty kernel to all rules in, Services x endpoints\n");
        println!("| | {} |", contenders.join(" | "));
        println!("|---|{}", "---|".repeat(contenders.len()));
        for (endpoints, services) in sizes {
            let cells = contenders.iter().map(|contender| self.cell(contender, services, endpoints));
            println!("| {} x {endpoints} | {} |", thousands(services), cells.collect::<Vec<_>>().join(" | "));
        }
        println!();
    }

    fn cell(&self, contender: &str, services: usize, endpoints: usize) -> String {
        let is_it = |load: &&Load| {
            (load.contender, load.services, load.endpoints) == (contender, services, endpoints)
        };
        match self.loads.iter().find(is_it).map(|load| load.outcome) {
            Some(Outcome::Took(time)) => self::time(time),
            Some(Outcome::Stopped(limit)) => format!("stopped after {} s", limit.as_secs()),
            Some(Outcome::NotTried) => "too long to try".to_owned(),
            Some(Outcome::Impossible) => "not in this kernel".to_owned(),
            None => String::new(),
        }
    }
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) { number(ms(time), "ms") } else { number(time.as_secs_f64(), "s") }
}
