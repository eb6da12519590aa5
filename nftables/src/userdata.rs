//! What nft keeps beside the kernel's own attributes of rules, sets and elements, and the kernel only keeps:
//! a list of types, lengths and values (libnftnl's user data).

/// `NFTNL_UDATA_RULE_COMMENT`, `NFTNL_UDATA_SET_ELEM_COMMENT`
pub(super) const COMMENT: u8 = 0;

/// Appends a type, a length and a value, which may be such a list itself.
pub(super) fn put(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    debug_assert!(value.len() <= usize::from(u8::MAX), "user data of {} bytes", value.len());
    bytes.extend_from_slice(&[kind, value.len() as u8]);
    bytes.extend_from_slice(value);
}

pub(super) fn put_number(bytes: &mut Vec<u8>, kind: u8, number: u32) {
    put(bytes, kind, &number.to_ne_bytes());
}

/// Appends a text, with the end that nft expects.
pub(super) fn put_text(bytes: &mut Vec<u8>, kind: u8, text: &str) {
    put(bytes, kind, &[text.as_bytes(), &[0]].concat());
}

/// The first value of a type.
pub(super) fn find(mut userdata: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == wanted {
            return Some(value);
        }
        userdata = rest;
    }
    None
}

/// The remark for people on an element, or on a rule.
pub(super) fn comment(userdata: &[u8]) -> Option<&str> {
    let text = find(userdata, COMMENT)?;
    std::str::from_utf8(text.strip_suffix(&[0]).unwrap_or(text)).ok()
}
