//! Go's gob encoding (the documentation of Go's package encoding/gob, "Encoding Details"): as much of it as
//! the calls and answers between the CNI plugin `dhcp` and its daemon need, and no more.
//!
//! A stream is messages: a length, a type's number, a value; or, with the number negated, what that type is.
//! Numbers grow with what they hold; fields that are zero are left out; a receiver goes by fields' names.

use std::collections::BTreeMap;

use thiserror::Error;

/// Numbers of types that need no description.
pub const BOOL: i64 = 1;
/// A number with a sign.
pub const INT: i64 = 2;
/// One without.
pub const UINT: i64 = 3;
/// A number with a fraction.
pub const FLOAT: i64 = 4;
/// Bytes.
pub const BYTES: i64 = 5;
/// Text.
pub const STRING: i64 = 6;

/// How deep a value may be.
const DEEPEST: usize = 16;
/// How many types a stream may describe.
const MOST_TYPES: usize = 64;

/// A value of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, or what is written as one. Signed ones are as they are written.
    Number(u64),
    /// Text, or bytes.
    Bytes(Vec<u8>),
    /// Several of a kind.
    List(Vec<Value>),
    /// A structure's fields that are not zero, by name.
    Fields(BTreeMap<String, Value>),
}

/// Bytes that are no such stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the caller does not speak as the CNI plugin dhcp does: {0}")]
pub struct Malformed(pub &'static str);

/// What a stream has described.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Slice(i64),
    Struct(Vec<(String, i64)>),
}

/// Reads a stream's messages.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    types: BTreeMap<i64, Type>,
}

impl Value {
    /// A structure's field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Fields(fields) => fields.get(name),
            _ => None,
        }
    }

    /// A structure's field as text; empty where it is zero.
    ///
    /// # Errors
    /// Where it is none.
    pub fn text(&self, name: &str) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(name)?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// The same as bytes.
    ///
    /// # Errors
    /// Where it is none.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Malformed> {
        match self.field(name) {
            None => Ok(Vec::new()),
            Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
            Some(_) => Err(Malformed("a field of another type")),
        }
    }
}

impl Reader {
    /// The value of a message, whose bytes come after its length; none where it describes a type.
    ///
    /// # Errors
    /// Where it is broken.
    pub fn message(&mut self, mut bytes: &[u8]) -> Result<Option<Value>, Malformed> {
        let number = int(&mut bytes)?;
        if number < 0 {
            let number = number.checked_neg().ok_or(Malformed("a number of no type"))?;
            let described = described(&mut bytes)?;
            if self.types.len() >= MOST_TYPES {
                return Err(Malformed("too many types"));
            }
            self.types.insert(number, described);
            return Ok(None);
        }
        if !matches!(self.types.get(&number), Some(Type::Struct(_))) {
            return Err(Malformed("a value that is no structure"));
        }
        self.value(number, &mut bytes, 0).map(Some)
    }

    fn value(&self, number: i64, bytes: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
        if depth > DEEPEST {
            return Err(Malformed("a value within too many others"));
        }
        match (number, self.types.get(&number)) {
            (BOOL | INT | UINT | FLOAT, _) => uint(bytes).map(Value::Number),
            (BYTES | STRING, _) => {
                let length = uint(bytes)?;
                take(bytes, length).map(|value| Value::Bytes(value.to_vec()))
            }
            (_, Some(Type::Slice(element))) => {
                let length = uint(bytes)?;
                // Every element has a byte at least.
                if length > bytes.len() as u64 {
                    return Err(Malformed("it ends too early"));
                }
                (0..length)
                    .map(|_| self.value(*element, bytes, depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Value::List)
            }
            (_, Some(Type::Struct(fields))) => {
                let mut values = BTreeMap::new();
                let mut place = 0;
                loop {
                    match uint(bytes)? {
                        0 => return Ok(Value::Fields(values)),
                        step => {
                            place +=
                                usize::try_from(step).map_err(|_| Malformed("a field too far"))?.min(1 << 20)
                        }
                    }
                    let (name, number) =
                        fields.get(place - 1).ok_or(Malformed("a field that there is not"))?;
                    values.insert(name.clone(), self.value(*number, bytes, depth + 1)?);
                }
            }
            (_, None) => Err(Malformed("a type that it did not describe")),
        }
    }
}

/// What a type is: Go's `wireType`, which is written as any structure is.
fn described(bytes: &mut &[u8]) -> Result<Type, Malformed> {
    let other = Malformed("a type other than structures and slices");
    let described = match uint(bytes)? {
        // SliceT: CommonType, Elem.
        2 => {
            let mut element = None;
            fields(bytes, |place, bytes| {
                match place {
                    1 => common(bytes)?,
                    2 => element = Some(int(bytes)?),
                    _ => return Err(other),
                }
                Ok(())
            })?;
            Type::Slice(element.ok_or(other)?)
        }
        // StructT: CommonType, Field.
        3 => {
            let mut members = Vec::new();
            fields(bytes, |place, bytes| {
                match place {
                    1 => common(bytes)?,
                    2 => {
                        for _ in 0..uint(bytes)? {
                            members.push(member(bytes)?);
                        }
                    }
                    _ => return Err(other),
                }
                Ok(())
            })?;
            Type::Struct(members)
        }
        _ => return Err(other),
    };
    match uint(bytes)? {
        0 => Ok(described),
        _ => Err(other),
    }
}

/// Goes through a structure's fields.
fn fields(
    bytes: &mut &[u8],
    mut each: impl FnMut(u64, &mut &[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut place = 0u64;
    loop {
        match uint(bytes)? {
            0 => return Ok(()),
            step => place = place.saturating_add(step),
        }
        each(place, bytes)?;
    }
}

/// CommonType: a name and a number, of which neither matters.
fn common(bytes: &mut &[u8]) -> Result<(), Malformed> {
    member(bytes).map(drop)
}

/// A name and a number.
fn member(bytes: &mut &[u8]) -> Result<(String, i64), Malformed> {
    let (mut name, mut number) = (String::new(), 0);
    fields(bytes, |place, bytes| {
        match place {
            1 => {
                let length = uint(bytes)?;
                name = String::from_utf8_lossy(take(bytes, length)?).into_owned();
            }
            2 => number = int(bytes)?,
            _ => return Err(Malformed("a description of no type")),
        }
        Ok(())
    })?;
    Ok((name, number))
}

/// The number that stands next: below 128 a byte, else how many bytes it has, negated, and they.
///
/// # Errors
/// Where there is none.
pub fn uint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let early = Malformed("it ends too early");
    let (first, rest) = bytes.split_first().ok_or(early)?;
    *bytes = rest;
    if *first < 128 {
        return Ok(u64::from(*first));
    }
    let length = u64::from(first.wrapping_neg());
    if length > 8 {
        return Err(Malformed("a number of more than 64 bits"));
    }
    Ok(take(bytes, length)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// The sign is the last bit.
fn int(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    let number = uint(bytes)?;
    let half = (number >> 1) as i64;
    Ok(if number & 1 == 1 { !half } else { half })
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let early = Malformed("it ends too early");
    let (value, rest) = bytes.split_at_checked(usize::try_from(length).map_err(|_| early)?).ok_or(early)?;
    *bytes = rest;
    Ok(value)
}

/// Writes a value's bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A number.
    pub fn uint(mut self, number: u64) -> Writer {
        match number {
            0..128 => self.0.push(number as u8),
            _ => {
                let skipped = number.leading_zeros() as usize / 8;
                let bytes = &number.to_be_bytes()[skipped..];
                self.0.push((bytes.len() as u8).wrapping_neg());
                self.0.extend(bytes);
            }
        }
        self
    }

    /// A number with a sign.
    pub fn int(self, number: i64) -> Writer {
        let shifted = (number as u64) << 1;
        self.uint(if number < 0 { !shifted } else { shifted })
    }

    /// Text or bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Writer {
        self = self.uint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    /// What another one wrote.
    pub fn part(mut self, part: &Writer) -> Writer {
        self.0.extend(&part.0);
        self
    }

    /// As a message: its length first.
    pub fn message(self) -> Vec<u8> {
        let mut bytes = Writer::default().uint(self.0.len() as u64).0;
        bytes.extend(self.0);
        bytes
    }
}

/// A message that says what the structure of that number is. Only pointers' and slices' targets have no name.
pub fn structure(number: i64, name: &str, members: &[(&str, i64)]) -> Vec<u8> {
    let mut fields = Writer::default();
    for (name, number) in members {
        fields = fields.uint(1).bytes(name.as_bytes()).uint(1).int(*number).uint(0);
    }
    // wireType.StructT, its CommonType, its Field.
    let mut description =
        Writer::default().int(-number).uint(3).uint(1).part(&type_name(number, name)).uint(0);
    if !members.is_empty() {
        description = description.uint(1).uint(members.len() as u64).part(&fields);
    }
    description.uint(0).uint(0).message()
}

/// A message that says what the slice of that number is.
pub fn slice(number: i64, name: &str, element: i64) -> Vec<u8> {
    // wireType.SliceT, its CommonType, its Elem.
    let description = Writer::default().int(-number).uint(2).uint(1).part(&type_name(number, name)).uint(0);
    description.uint(1).int(element).uint(0).uint(0).message()
}

fn type_name(number: i64, name: &str) -> Writer {
    match name {
        "" => Writer::default().uint(2).int(number),
        name => Writer::default().uint(1).bytes(name.as_bytes()).uint(1).int(number),
    }
}
