//! What fields of several kinds have in common: port numbers, protocols, names, lists of which a part may be
//! unusable.

use std::fmt::Display;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use weft_types::{Protocol, SmolStr, is_dns_label};

use crate::field::{Fault, Faults, Field};

/// A text that becomes one label of a DNS name, and so has to be fit for it.
pub(super) fn label<T: AsRef<str>>(text: T, path: &str) -> Result<T, Fault> {
    if is_dns_label(text.as_ref()) {
        Ok(text)
    } else {
        let text = text.as_ref();
        Err(Fault::new(path, format!("{text:?} is no DNS label (1 to 63 of a-z, 0-9 and -)")))
    }
}

/// The name of a port, which may be empty.
pub(super) fn port_name(field: Field<String>) -> Result<SmolStr, Fault> {
    let name = field.or_default("name")?;
    let name = if name.is_empty() { name } else { label(name, "name")? };
    Ok(name.into())
}

/// The protocol of a port: TCP where none is given.
pub(super) fn protocol(field: Field<String>) -> Result<Protocol, Fault> {
    let Some(text) = field.optional("protocol")?.filter(|text| !text.is_empty()) else {
        return Ok(Protocol::Tcp);
    };
    text.parse().map_err(|error| Fault::new("protocol", format!("{error}")))
}

/// A port number, where 0 means none.
pub(super) fn port(field: Field<u16>, path: &str) -> Result<Option<NonZeroU16>, Fault> {
    Ok(field.optional(path)?.and_then(NonZeroU16::new))
}

/// A number that has to lie within a range.
pub(super) fn within<T>(number: i64, range: RangeInclusive<T>, path: &str) -> Result<T, Fault>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let found = T::try_from(number).ok().filter(|number| range.contains(number));
    let problem = || Fault::new(path, format!("{number} is none of {} to {}", range.start(), range.end()));
    found.ok_or_else(problem)
}

/// Converts every element of a list. What cannot be used of it is left out, and each fault is told with its
/// place.
pub(super) fn each<T, U>(
    list: Field<Vec<Field<T>>>,
    path: &str,
    faults: &mut Faults,
    convert: impl Fn(T, &mut Faults) -> Result<U, Fault>,
) -> Vec<U> {
    let list = faults.note(list.or_default(path)).unwrap_or_default();
    // Not collected, which would convert in place and keep the room of what was read: several times what is
    // needed. Given back later, it would leave holes between what stays.
    let mut converted = Vec::with_capacity(list.len());
    for (place, element) in list.into_iter().enumerate() {
        let mut inner = Faults::default();
        let element = element.required("").and_then(|element| convert(element, &mut inner));
        converted.extend(inner.note(element));
        if !inner.is_empty() {
            faults.add_within(format_args!("{path}[{place}]"), inner);
        }
    }
    converted
}
