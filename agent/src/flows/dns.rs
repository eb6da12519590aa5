//! What a DNS server's answer repeats of its question (RFC 1035 section 4.1): the name, the type, and how it
//! is answered. Nothing else of it is looked at. Pure.

use weft_types::flow::Happening;

/// The length of the header.
const HEADER: usize = 12;
/// The longest name, as it stands in a message (RFC 1035 section 2.3.4).
const NAME: usize = 255;
/// As much of a message as is read: header, name, type and class.
pub(crate) const READ: u32 = (HEADER + NAME + 4) as u32;

/// The types of records that clients ask for.
const TYPES: [(u16, &str); 13] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (255, "ANY"),
];
/// Response codes from 0 on.
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// The question of an answer; nothing where that is none, or of another shape than resolvers' are.
pub(crate) fn answered(message: &[u8]) -> Option<Happening> {
    let (header, body) = message.split_at_checked(HEADER)?;
    let is_answer = header[2] & 0x80 != 0 && header[4..6] == [0, 1];
    if !is_answer {
        return None;
    }
    let (name, rest) = name(body)?;
    let &[high, low] = rest.first_chunk::<2>()?;
    let number = u16::from_be_bytes([high, low]);
    let known = TYPES.iter().find(|(known, _)| *known == number);
    // RFC 3597 section 5.
    let record_type = known.map_or_else(|| format!("TYPE{number}"), |(_, name)| (*name).to_owned());
    let code = usize::from(header[3] & 0x0f);
    let code = CODES.get(code).map_or_else(|| format!("RCODE{code}"), |name| (*name).to_owned());
    Some(Happening::Asked { name, record_type, code })
}

/// The name that a message begins with, and what follows it. One that is compressed is none of a question.
fn name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut name, whole) = (String::new(), bytes.len());
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            let name = if name.is_empty() { ".".to_owned() } else { name };
            return Some((name, rest));
        }
        let label = rest.get(..usize::from(length)).filter(|_| length < 64)?;
        name.extend([&label.escape_ascii().to_string(), "."]);
        bytes = &rest[label.len()..];
        if whole - bytes.len() >= NAME {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flags: [u8; 2], question: &[u8]) -> Vec<u8> {
        [&[0, 7, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0][..], question].concat()
    }

    fn asked(name: &str, record_type: &str, code: &str) -> Option<Happening> {
        let [name, record_type, code] = [name, record_type, code].map(str::to_owned);
        Some(Happening::Asked { name, record_type, code })
    }

    #[test]
    fn the_question_is_read_from_its_answer() {
        let question = b"\x02db\x04shop\0\0\x1c\0\x01 whatever follows";
        assert_eq!(answered(&message([0x81, 0x83], question)), asked("db.shop.", "AAAA", "NXDOMAIN"));
        assert_eq!(answered(&message([0x81, 0x80], b"\0\0\x02\0\x01")), asked(".", "NS", "NOERROR"));
        let odd = b"\x03a\n\"\0\x01\0\0\x01";
        assert_eq!(answered(&message([0x80, 0x0f], odd)), asked("a\\n\\\".", "TYPE256", "RCODE15"));
    }

    #[test]
    fn what_is_no_answer_to_one_question_is_none() {
        let question = b"\x02db\0\0\x01\0\x01";
        assert_eq!(answered(&message([0x01, 0x00], question)), None, "a question");
        assert_eq!(answered(&message([0x80, 0x00], b"\x02db\xc0\x0c\0\x01\0\x01")), None, "a pointer");
        assert_eq!(answered(&message([0x80, 0x00], b"\x50db\0\0\x01\0\x01")), None, "a label too long");
        let long = [&b"\x3f"[..], &[b'a'; 63]].concat().repeat(4);
        assert_eq!(
            answered(&message([0x80, 0], &[&long[..], b"\0\0\x01\0\x01"].concat())),
            None,
            "a name too long"
        );
        let mut two = message([0x80, 0], question);
        two[5] = 2;
        assert_eq!(answered(&two), None);
    }

    proptest! {
        #[test]
        fn garbage_is_nothing_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answered(&bytes);
        }

        #[test]
        fn what_is_cut_short_is_nothing(cut in 0usize..23) {
            let whole = message([0x81, 0x80], b"\x02db\x04shop\0\0\x01");
            prop_assert_eq!(answered(&whole[..cut.min(whole.len() - 1)]), None);
        }
    }
}
