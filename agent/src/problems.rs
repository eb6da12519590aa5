//! What is wrong at the moment, told once: when it begins and when it is over, not at every attempt in
//! between.

use std::collections::BTreeSet;

use tracing::{info, warn};

/// The problems that were told and are not over.
#[derive(Debug, Default)]
pub(crate) struct Problems(BTreeSet<String>);

/// What to tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) begun: Vec<String>,
    pub(crate) over: Vec<String>,
}

impl Problems {
    /// Takes all problems that there are now. Returns what changed.
    pub(crate) fn update(&mut self, now: BTreeSet<String>) -> News {
        let begun = now.difference(&self.0).cloned().collect();
        let over = self.0.difference(&now).cloned().collect();
        self.0 = now;
        News { begun, over }
    }
}

impl News {
    /// Writes it to the log.
    pub(crate) fn log(&self) {
        self.begun.iter().for_each(|problem| warn!("{problem}"));
        self.over.iter().for_each(|problem| info!("no longer: {problem}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(problems: &[&str]) -> BTreeSet<String> {
        problems.iter().map(|&problem| problem.to_owned()).collect()
    }

    #[test]
    fn a_problem_is_told_when_it_begins_and_when_it_is_over() {
        let mut problems = Problems::default();
        assert_eq!(problems.update(set(&["a", "b"])).begun, ["a", "b"]);
        let news = problems.update(set(&["b", "c"]));
        assert_eq!((news.begun, news.over), (vec!["c".to_owned()], vec!["a".to_owned()]));
        assert_eq!(problems.update(set(&["b", "c"])), News::default());
    }
}
