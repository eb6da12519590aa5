//! One field of an object from outside: absent, readable, or not what it should be.
//!
//! A list holds hundreds of objects, and one of them that is malformed must not cost the others. So reading a
//! [`Field`] never fails: what has the wrong type is read past, and the fault is kept for whoever needs the
//! field. The JSON is read once, straight into the trimmed types, without a copy of what is left out.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, Visitor};
use serde::forward_to_deserialize_any;

/// A field of the type `T`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Field<T> {
    /// Left out, or null.
    #[default]
    Absent,
    /// As it should be.
    Is(T),
    /// Something else, in words.
    IsNot(String),
}

/// How many faults of an object are told in full.
const TOLD: usize = 4;

/// A field that cannot be used: its path, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The path within the object: `spec.ports[1].port`.
    path: String,
    problem: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Fault { path: path.into(), problem: problem.into() }
    }

    /// The same fault, seen from the field that `outer` names.
    pub(crate) fn within(self, outer: impl fmt::Display) -> Self {
        let path = if self.path.is_empty() { outer.to_string() } else { format!("{outer}.{}", self.path) };
        Fault { path, problem: self.problem }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// What is wrong with an object: the first few faults, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    told: Vec<Fault>,
    more: usize,
}

impl Faults {
    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        match self.told.len() < TOLD {
            true => self.told.push(fault),
            false => self.more += 1,
        }
    }

    /// Adds the faults of the field that `outer` names.
    pub(crate) fn add_within(&mut self, outer: impl fmt::Display, faults: Faults) {
        faults.told.into_iter().for_each(|fault| self.add(fault.within(&outer)));
        self.more += faults.more;
    }

    /// What was read; nothing, and one more fault, where it cannot be used.
    pub(crate) fn note<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.add(fault)).ok()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.told.iter().enumerate() {
            write!(f, "{}{fault}", if place == 0 { "" } else { "; " })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more faults"),
        }
    }
}

impl<T> Field<T> {
    /// The value, if there is one. `path` names the field in the fault.
    pub(crate) fn optional(self, path: &str) -> Result<Option<T>, Fault> {
        match self {
            Field::Absent => Ok(None),
            Field::Is(value) => Ok(Some(value)),
            Field::IsNot(problem) => Err(Fault::new(path, problem)),
        }
    }

    /// The same field, without taking its value.
    pub(crate) fn by_ref(&self) -> Field<&T> {
        match self {
            Field::Absent => Field::Absent,
            Field::Is(value) => Field::Is(value),
            Field::IsNot(problem) => Field::IsNot(problem.clone()),
        }
    }

    /// The value, which must be there.
    pub(crate) fn required(self, path: &str) -> Result<T, Fault> {
        self.optional(path)?.ok_or_else(|| Fault::new(path, "is missing"))
    }

    /// The value, if there is a readable one.
    pub(crate) fn or_nothing(self) -> Option<T> {
        match self {
            Field::Is(value) => Some(value),
            Field::Absent | Field::IsNot(_) => None,
        }
    }

    /// Whether the object has the field at all.
    pub(crate) fn is_present(&self) -> bool {
        !matches!(self, Field::Absent)
    }
}

impl<T: Default> Field<T> {
    /// The value, or the type's default.
    pub(crate) fn or_default(self, path: &str) -> Result<T, Fault> {
        Ok(self.optional(path)?.unwrap_or_default())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Field<T> {
    match T::deserialize(deserializer) {
        Ok(value) => Field::Is(value),
        Err(error) => Field::IsNot(error.to_string()),
    }
}

/// A value that is no list and no map. One type for all of them: what reads a `T` from it is compiled once.
enum Scalar<'a, E> {
    Flag(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    OwnText(String),
    Bytes(&'a [u8], PhantomData<E>),
}

impl<'de, E: de::Error> Deserializer<'de> for Scalar<'_, E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self {
            Scalar::Flag(value) => visitor.visit_bool(value),
            Scalar::Signed(value) => visitor.visit_i64(value),
            Scalar::Unsigned(value) => visitor.visit_u64(value),
            Scalar::Float(value) => visitor.visit_f64(value),
            Scalar::Text(value) => visitor.visit_str(value),
            Scalar::OwnText(value) => visitor.visit_string(value),
            Scalar::Bytes(value, _) => visitor.visit_bytes(value),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Reads a scalar. The error type has to be spelled out, as nothing else fixes it.
fn read_scalar<'de, T: Deserialize<'de>, E: de::Error>(value: Scalar<'_, E>) -> Result<Field<T>, E> {
    Ok(read(value))
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Absent)
    }

    fn visit_none<E: de::Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<T>, D::Error> {
        Field::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Field<T>, E> {
        read_scalar(Scalar::Flag(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Field<T>, E> {
        read_scalar(Scalar::Signed(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Field<T>, E> {
        read_scalar(Scalar::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Field<T>, E> {
        read_scalar(Scalar::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Field<T>, E> {
        read_scalar(Scalar::Text(value))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Field<T>, E> {
        read_scalar(Scalar::OwnText(value))
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Field<T>, E> {
        read_scalar(Scalar::Bytes(value, PhantomData))
    }

    // Where `T` wanted no list or map, or stopped inside it, the rest is read past.

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Field<T>, A::Error> {
        let field = read(SeqAccessDeserializer::new(&mut list));
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(field)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Field<T>, A::Error> {
        let mut rest = Rest { map: &mut map, is_at_value: false };
        let field = read(MapAccessDeserializer::new(&mut rest));
        if rest.is_at_value {
            map.next_value::<IgnoredAny>()?;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(field)
    }
}

/// A map of which is known whether a key was read and its value not yet: there a type stops to which a key
/// comes twice.
struct Rest<'a, A> {
    map: &'a mut A,
    is_at_value: bool,
}

impl<'de, A: de::MapAccess<'de>> de::MapAccess<'de> for &mut Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.is_at_value = true;
        let key = self.map.next_key_seed(seed)?;
        self.is_at_value = key.is_some();
        Ok(key)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.is_at_value = false;
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Port {
        port: Field<u16>,
        name: Field<String>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Ports {
        ports: Field<Vec<Field<Port>>>,
        after: Field<bool>,
    }

    fn ports(json: &str) -> Ports {
        serde_json::from_str(json).unwrap()
    }

    fn fault<T: std::fmt::Debug>(field: Field<T>) -> String {
        field.optional("field").unwrap_err().to_string()
    }

    #[test]
    fn good_fields_are_read() {
        let read = ports(r#"{"ports": [{"port": 80, "other": {"a": [1]}}], "after": true}"#);
        let port = Port { port: Field::Is(80), name: Field::Absent };
        assert_eq!(read, Ports { ports: Field::Is(vec![Field::Is(port)]), after: Field::Is(true) });
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(ports(r#"{"ports": null}"#), Ports::default());
    }

    #[test]
    fn a_wrong_type_spoils_only_its_field() {
        for wrong in [r#""x""#, "5", "-5", "1.5", "true", "{}", r#"{"a": {"b": []}}"#] {
            let read = ports(&format!(r#"{{"ports": {wrong}, "after": true}}"#));
            assert!(fault(read.ports).contains("expected a sequence"), "{wrong}");
            assert_eq!(read.after, Field::Is(true), "{wrong}");
        }
        for wrong in [r#""x""#, "70000", "-5", "1.5", "true", "{}", "[]", r#"[[1], {"a": 2}]"#] {
            let read = ports(&format!(r#"{{"ports": [{{"port": {wrong}, "name": "n"}}], "after": true}}"#));
            let Field::Is(list) = read.ports else { panic!("{wrong}") };
            let Field::Is(port) = list.into_iter().next().unwrap() else { panic!("{wrong}") };
            assert!(fault(port.port).starts_with("field: invalid "), "{wrong}");
            assert_eq!((port.name, read.after), (Field::Is("n".to_owned()), Field::Is(true)), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_spoils_only_what_it_is_a_key_of() {
        let read = ports(
            r#"{"ports": [{"port": 1, "port": {"a": [2]}, "name": "n"}, {"port": 80}], "after": true}"#,
        );
        let Field::Is(list) = read.ports else { panic!() };
        let [twice, good] = <[_; 2]>::try_from(list).unwrap();
        assert_eq!(fault(twice), "field: duplicate field `port`");
        assert_eq!(
            (good, read.after),
            (Field::Is(Port { port: Field::Is(80), name: Field::Absent }), Field::Is(true))
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(
            Field::<u16>::Absent.required("spec.port").unwrap_err().to_string(),
            "spec.port: is missing"
        );
    }

    #[test]
    fn of_many_faults_the_first_are_told_and_the_others_counted() {
        let (mut faults, mut outer) = (Faults::default(), Faults::default());
        (0..200).for_each(|place| faults.add(Fault::new(format!("ports[{place}]"), "is missing")));
        outer.add_within("spec", faults);
        let text = outer.to_string();
        assert!(text.starts_with("spec.ports[0]: is missing; spec.ports[1]: is"), "{text}");
        assert!(text.ends_with("spec.ports[3]: is missing; and 196 more faults"), "{text}");
    }

    #[test]
    fn buffered_json_reads_the_same() {
        // The API server may send an event's "object" before its "type", which makes serde buffer it.
        let json = r#"{"ports": [{"port": 80}, {"port": "x"}, 5], "after": null}"#;
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::from_value::<Ports>(value).unwrap(), ports(json));
    }
}
