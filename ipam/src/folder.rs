//! What a network's folder holds, by names and inode numbers alone. No file is read here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::mark::Mark;

/// Locked by everybody who works on the folder.
pub(crate) const LOCK: &str = "lock";
/// In which order addresses were freed.
pub(crate) const FREED: &str = "freed";
/// That file while it is written anew. Only one is, because its writer holds the lock.
pub(crate) const NEW_FREED: &str = ".freed";
/// With a range set's index behind it: the address that was given last.
pub(crate) const LAST: &str = "last_reserved_ip.";

/// The folder's entries by what they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The records, each with its mark where it has one.
    pub(crate) records: Vec<(IpAddr, Option<Mark>)>,
    /// Marks whose record is gone, or another file now.
    pub(crate) widows: Vec<String>,
    /// What does not belong there.
    pub(crate) foreign: Vec<String>,
}

impl Names {
    /// Sorts names with their inode numbers.
    pub(crate) fn of(entries: impl Iterator<Item = (String, u64)>) -> Names {
        let (mut names, mut records, mut marks) = (Names::default(), Vec::new(), Vec::new());
        for (name, inode) in entries {
            match (name.parse(), name.parse::<Mark>()) {
                (Ok(address), _) => records.push((address, inode)),
                (_, Ok(mark)) => marks.push(((mark.address, inode), mark)),
                _ if [LOCK, FREED, NEW_FREED].contains(&&*name) || name.starts_with(LAST) => {}
                _ => names.foreign.push(name),
            }
        }
        let number = marks.len();
        let mut marks: BTreeMap<(IpAddr, u64), Mark> = marks.into_iter().collect();
        let unique = marks.len() == number;
        names.records = records.into_iter().map(|record| (record.0, marks.remove(&record))).collect();
        names.widows = marks.values().map(Mark::to_string).collect();
        // Somebody renamed a mark, and which of two is right cannot be known: the records tell.
        if !unique {
            names.records.iter_mut().for_each(|(_, mark)| *mark = None);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_only_for_the_file_that_it_is() {
        let marks = [2, 3, 4].map(|host| format!(".10.1.0.{host}@ab12-00000000000000ff"));
        let entries = [
            ("10.1.0.2", 12),
            (&*marks[0], 12),
            ("10.1.0.3", 13),
            (&*marks[1], 23),
            (&*marks[2], 14),
            ("fd00::2", 15),
            ("lock", 1),
            ("freed", 2),
            (".freed", 3),
            ("last_reserved_ip.0", 4),
            ("README", 5),
        ];
        let names = Names::of(entries.into_iter().map(|(name, inode)| (name.to_owned(), inode)));
        let marked: Vec<(String, bool)> =
            names.records.iter().map(|(address, mark)| (address.to_string(), mark.is_some())).collect();
        assert_eq!(
            marked,
            [("10.1.0.2".into(), true), ("10.1.0.3".into(), false), ("fd00::2".into(), false)]
        );
        assert_eq!(names.widows, marks[1..]);
        assert_eq!(names.foreign, ["README"]);
    }

    #[test]
    fn of_two_marks_none_is_believed() {
        let entries = [
            ("10.1.0.2", 12),
            (".10.1.0.2@ab12-00000000000000ff", 12),
            (".10.1.0.2@cd34-00000000000000ff", 12),
        ];
        let names = Names::of(entries.into_iter().map(|(name, inode)| (name.to_owned(), inode)));
        assert_eq!(names.records, [("10.1.0.2".parse().unwrap(), None)]);
    }
}
