//! Others who change the rules: how soon that is put right again, and what is said of it. Pure; it is put
//! right in `sync.rs`.
//!
//! What somebody breaks once is mended at once. But two programs that each put their own rules in place of
//! the other's, such as two proxies of different flags, would do so for ever, with all the power of the
//! machine.

use std::time::{Duration, Instant};

use crate::dataplane::Author;

/// How long to leave the kernel alone after it was put right: others may be at it for longer.
const SHORTEST: Duration = Duration::from_millis(50);
/// The same where they come back every time. Rules that are not put right for longer would be missed.
const LONGEST: Duration = Duration::from_secs(2);
/// So many times in a row it is put right at once.
const PATIENCE: u32 = 10;
/// Who comes back later than this does not come back every time.
const QUIET: Duration = Duration::from_secs(10);
/// Of so many further times, one is told again.
const TOLD: u32 = 64;

/// Who changed the rules last, and how often in a row.
#[derive(Debug, Default)]
pub struct ForeignChanges {
    in_a_row: u32,
    last: Option<Instant>,
    told: Option<Author>,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The log has a line.
    Changed(String),
    /// The log has a line, and so should the Node's events: this does not end by itself.
    Contested(String),
}

impl ForeignChanges {
    /// Somebody changed the rules, which are put right at `now`. Returns what is to be said, if anything.
    pub fn came(&mut self, author: &Author, now: Instant) -> Option<News> {
        if self.last.is_none_or(|last| now.duration_since(last) > QUIET) {
            *self = ForeignChanges::default();
        }
        self.last = Some(now);
        self.in_a_row += 1;
        let further = self.in_a_row.saturating_sub(PATIENCE);
        if further == 0 {
            let line = format!("another program changed the rules: {author}; restoring them");
            return Some(News::Changed(line));
        }
        let line = self.contest(author);
        if self.told.as_ref() != Some(author) {
            self.told = Some(author.clone());
            return Some(News::Contested(line));
        }
        (further % TOLD == 1).then_some(News::Changed(line))
    }

    /// How long to leave the kernel alone from now on.
    pub fn cooldown(&self) -> Duration {
        let doublings = self.in_a_row.saturating_sub(PATIENCE).min(u32::BITS - 1);
        SHORTEST.saturating_mul(1 << doublings).min(LONGEST)
    }

    fn contest(&self, author: &Author) -> String {
        let advice = match author.program.starts_with("weft-proxy") {
            true => "two proxies on one node undo each other's work; stop one of them",
            false => "stop it, or have it leave the tables \"ip weft\" and \"ip6 weft\" alone",
        };
        format!(
            "{author} has changed the rules {} times in a row: {advice}. weft-proxy now restores them only every {} s",
            self.in_a_row,
            LONGEST.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(program: &str) -> Author {
        Author { program: program.to_owned(), process: 7 }
    }

    /// Lets somebody come so many times, as soon as the cooldown allows. Returns the cooldowns and what is
    /// said.
    fn rounds(
        changes: &mut ForeignChanges,
        now: &mut Instant,
        program: &str,
        count: u32,
    ) -> (Vec<Duration>, Vec<News>) {
        let (mut cooldowns, mut news) = (Vec::new(), Vec::new());
        for _ in 0..count {
            news.extend(changes.came(&author(program), *now));
            cooldowns.push(changes.cooldown());
            *now += changes.cooldown();
        }
        (cooldowns, news)
    }

    #[test]
    fn what_is_broken_a_few_times_is_mended_at_once_and_what_is_broken_for_ever_is_mended_rarely() {
        let (mut changes, mut now) = (ForeignChanges::default(), Instant::now());
        let (cooldowns, news) = rounds(&mut changes, &mut now, "nft", 10);
        assert!(cooldowns.iter().all(|cooldown| *cooldown == SHORTEST), "{cooldowns:?}");
        let line = "another program changed the rules: nft (process 7); restoring them";
        assert_eq!(news, vec![News::Changed(line.to_owned()); 10]);
        let (cooldowns, _) = rounds(&mut changes, &mut now, "nft", 100);
        assert!(cooldowns.is_sorted() && cooldowns[0] == 2 * SHORTEST, "{cooldowns:?}");
        assert_eq!(cooldowns.last(), Some(&LONGEST));
        now += QUIET;
        assert_eq!(rounds(&mut changes, &mut now, "nft", 1).0, [SHORTEST], "it had stopped");
    }

    #[test]
    fn a_program_that_does_not_stop_is_named_now_and_then_with_what_to_do() {
        let (mut changes, mut now) = (ForeignChanges::default(), Instant::now());
        let (_, news) = rounds(&mut changes, &mut now, "weft-proxy", 10 + 130);
        let contested = "weft-proxy (process 7) has changed the rules 11 times in a row: two proxies on one node undo each \
                         other's work; stop one of them. weft-proxy now restores them only every 2 s";
        assert_eq!(news[10], News::Contested(contested.to_owned()));
        let again = |times| News::Changed(contested.replace("11 times", &format!("{times} times")));
        assert_eq!(news[11..], [again(75), again(139)]);
        let (_, news) = rounds(&mut changes, &mut now, "firewalld", 2);
        assert!(
            matches!(&news[..], [News::Contested(line)] if line.starts_with("firewalld (process 7)")),
            "{news:?}"
        );
    }
}
