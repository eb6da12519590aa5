//! Which address of a name comes first in an answer of an upstream: each reply begins at another one, for
//! most clients take the first. Pure.

use std::ops::Range;

use hickory_proto::rr::{RData, Record};

/// Lets the addresses of each name begin at another one for each id of a query.
pub(crate) fn rotate(records: &mut [Record], id: u16) {
    for addresses in records.chunk_by_mut(are_of_one_name) {
        addresses.rotate_left(first(id, addresses.len()));
    }
}

/// Where several addresses of a name stand together.
pub(crate) fn runs(records: &[Record]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    let runs = records.chunk_by(are_of_one_name).map(move |run| {
        end += run.len();
        end - run.len()..end
    });
    runs.filter(|run| run.len() > 1)
}

/// The one of so many that comes first. The id of a query is as good as a random number, and makes equal
/// queries get equal replies.
pub(crate) fn first(id: u16, count: usize) -> usize {
    usize::from(id) % count.max(1)
}

/// Letter by letter: what is spelled in two ways is not compressed alike.
fn are_of_one_name(one: &Record, next: &Record) -> bool {
    let is_address = matches!(one.data, RData::A(_) | RData::AAAA(_));
    is_address && one.record_type() == next.record_type() && one.name.eq_case(&next.name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    #[test]
    fn addresses_change_places_and_nothing_else_does() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let address =
            |owner: &str, last| Record::from_rdata(name(owner), 1, RData::A(A::new(192, 0, 2, last)));
        let alias = Record::from_rdata(name("a."), 1, RData::CNAME(CNAME(name("b."))));
        let records = vec![
            alias,
            address("b.", 1),
            address("b.", 2),
            address("b.", 3),
            address("c.", 4),
            address("C.", 5),
        ];
        let after = |id| {
            let mut records = records.clone();
            rotate(&mut records, id);
            records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(after(0), ["b.", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"]);
        assert_eq!(after(7), ["b.", "192.0.2.2", "192.0.2.3", "192.0.2.1", "192.0.2.4", "192.0.2.5"]);
        let runs: Vec<usize> = runs(&records).flatten().collect();
        assert_eq!(runs, [1, 2, 3]);
    }
}
