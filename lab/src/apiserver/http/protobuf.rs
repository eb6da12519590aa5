//! Objects as protocol buffers, which newer `kubectl` sends for what `kubectl create` makes: read into the
//! JSON that everything else works with. The server never answers in this form.
//!
//! The fields that it knows are in `schema`; an object with another one is refused, not shortened.

mod schema;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use self::schema::{Field, Message, Type};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::text;

/// Every protobuf body begins with these bytes (kubernetes.io "API Concepts", Protobuf encoding).
const MAGIC: &[u8] = b"k8s\0";

/// Reads the body of a request.
pub(super) fn read(body: &[u8]) -> Result<Value> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| refuse("the body lacks the prefix k8s\\0"))?;
    let (mut kind, mut raw) = (Value::Null, &[][..]);
    for field in fields(envelope) {
        match field? {
            (1, Wire::Bytes(bytes)) => kind = message(schema::TYPE_META, bytes)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let word = text(&kind["kind"]);
    let schema = schema::of_kind(word).ok_or_else(|| refuse(&format!("the kind {word:?}")))?;
    let mut object = message(schema, raw)?;
    for field in ["kind", "apiVersion"] {
        object[field] = kind[field].clone();
    }
    Ok(object)
}

fn refuse(what: &str) -> ApiError {
    ApiError::BadRequest(format!("the server does not read this as protobuf ({what}); send JSON"))
}

/// A field's value as it stands in the message.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, in the order of the bytes.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>)>> {
    std::iter::from_fn(move || {
        (!bytes.is_empty()).then(|| next(&mut bytes).ok_or_else(|| refuse("it is cut off")))
    })
    .scan(false, |failed, field| {
        let goes_on = !*failed;
        *failed = field.is_err();
        goes_on.then_some(field)
    })
}

/// Takes the next field: a number of varint form, or bytes with their length. Kubernetes uses no other form.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(value)
        }
        _ => return None,
    };
    Some((tag >> 3, wire))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Reads a message of that schema. Values that JSON would leave out, because Go has nothing there, are left
/// out here as well.
fn message(schema: Message, bytes: &[u8]) -> Result<Value> {
    let mut object = Map::new();
    for field in fields(bytes) {
        let (number, wire) = field?;
        let known = schema.iter().find(|field| field.number == number);
        let known = known.ok_or_else(|| refuse(&format!("field {number} of a message")))?;
        add(&mut object, known, wire)?;
    }
    Ok(Value::Object(object))
}

fn add(object: &mut Map<String, Value>, field: &Field, wire: Wire) -> Result<()> {
    let wrong = || refuse(&format!("the form of the field {}", field.name));
    if let Type::Map(value) = &field.kind {
        let Wire::Bytes(entry) = wire else { return Err(wrong()) };
        let (key, value) = entry_of(value, entry)?;
        let map = object.entry(field.name).or_insert_with(|| json!({}));
        map[key] = value;
        return Ok(());
    }
    let value = value(&field.kind, wire)?.ok_or_else(wrong)?;
    if field.many {
        let list = object.entry(field.name).or_insert_with(|| json!([]));
        list.as_array_mut().into_iter().for_each(|list| list.push(value.clone()));
    } else if !is_nothing(&field.kind, &value) {
        object.insert(field.name.to_owned(), value);
    }
    Ok(())
}

/// An entry of a map: the key is field 1, the value field 2.
fn entry_of(kind: &Type, entry: &[u8]) -> Result<(String, Value)> {
    let (mut key, mut found) = (String::new(), json!(""));
    for field in fields(entry) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
            (2, wire) => found = value(kind, wire)?.ok_or_else(|| refuse("the form of a map's value"))?,
            _ => {}
        }
    }
    Ok((key, found))
}

/// The JSON of a value; `None` when it does not have the form of its type.
fn value(kind: &Type, wire: Wire) -> Result<Option<Value>> {
    Ok(match (kind, wire) {
        (Type::Text, Wire::Bytes(bytes)) => std::str::from_utf8(bytes).ok().map(|text| json!(text)),
        (Type::Number | Type::OptionalNumber, Wire::Number(number)) => Some(json!(number.cast_signed())),
        (Type::Flag | Type::OptionalFlag, Wire::Number(number)) => Some(json!(number != 0)),
        (Type::Bytes, Wire::Bytes(bytes)) => serde_json::to_value(ByteString(bytes.to_vec())).ok(),
        (Type::Time, Wire::Bytes(bytes)) => Some(time(bytes)?),
        (Type::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Type::Message(schema), Wire::Bytes(bytes)) => Some(message(schema, bytes)?),
        _ => None,
    })
}

fn is_nothing(kind: &Type, value: &Value) -> bool {
    match kind {
        Type::Text => value == "",
        Type::Number | Type::IntOrString => value == 0,
        Type::Flag => value == false,
        Type::Time => value.is_null(),
        Type::Message(_) => value.as_object().is_some_and(Map::is_empty),
        Type::OptionalNumber | Type::OptionalFlag | Type::Bytes | Type::Map(_) => false,
    }
}

/// `Time` and `MicroTime`: seconds and nanoseconds of the Unix epoch. Nothing for none.
fn time(bytes: &[u8]) -> Result<Value> {
    let parts = message(schema::TIME, bytes)?;
    let Some(seconds) = parts["seconds"].as_i64() else { return Ok(Value::Null) };
    let nanoseconds = parts["nanos"].as_i64().and_then(|nanos| i32::try_from(nanos).ok()).unwrap_or(0);
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| refuse("a time out of range"))?;
    Ok(json!(time.to_string()))
}

/// `IntOrString`: type (0 for a number), number, text.
fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let mut parts = message(schema::INT_OR_STRING, bytes)?;
    let is_text = parts["type"] == 1;
    Ok(if is_text {
        json!(text(&parts["strVal"]))
    } else {
        json!(parts["intVal"].take().as_i64().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, b"v1"), bytes(2, kind.as_bytes())].concat();
        [MAGIC, &bytes(1, &meta), &bytes(2, raw), &bytes(3, b""), &bytes(4, b"")].concat()
    }

    #[test]
    fn a_config_map() {
        let metadata = [bytes(1, b"map"), bytes(2, b""), bytes(8, b"")].concat();
        let entry = |key: &[u8], value: &[u8]| [bytes(1, key), bytes(2, value)].concat();
        let raw = [
            bytes(1, &metadata),
            bytes(2, &entry(b"a", b"1")),
            bytes(2, &entry(b"b", b"")),
            bytes(3, &entry(b"c", b"\x00\xff")),
        ];
        let want = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"},
            "data": {"a": "1", "b": ""}, "binaryData": {"c": "AP8="},
        });
        assert_eq!(read(&body("ConfigMap", &raw.concat())).unwrap(), want);
    }

    #[test]
    fn ports_of_a_service_by_number_and_by_name() {
        let by_number = bytes(4, &[0x08, 0, 0x10, 0x90, 0x3f]);
        let by_name = bytes(4, &[vec![0x08, 1], bytes(3, b"http")].concat());
        let port = |target: &[u8]| bytes(1, &[&[0x18, 80][..], target].concat());
        let raw =
            bytes(2, &[port(&by_number), port(&by_name), port(&bytes(4, &[0x08, 0, 0x10, 0]))].concat());
        let service = read(&body("Service", &raw)).unwrap();
        let want =
            json!([{"port": 80, "targetPort": 8080}, {"port": 80, "targetPort": "http"}, {"port": 80}]);
        assert_eq!(service["spec"]["ports"], want);
    }

    #[test]
    fn zero_counts_where_it_is_asked_for() {
        let options = read(&body("DeleteOptions", &[0x08, 0])).unwrap();
        assert_eq!(options["gracePeriodSeconds"], 0);
    }

    #[test]
    fn what_is_not_known_or_cut_off_is_refused() {
        for wrong in [
            b"json".to_vec(),
            body("Cat", b""),
            body("ConfigMap", &bytes(15, b"x")),
            body("ConfigMap", &[0x0a, 200]),
            body("ConfigMap", &[0xff; 12]),
            body("ConfigMap", &[0x0a, 1, 0xff]),
        ] {
            assert!(matches!(read(&wrong), Err(ApiError::BadRequest(_))), "{wrong:?}");
        }
    }
}
