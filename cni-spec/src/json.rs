//! JSON as the protocol's peers, which are written in Go, read and write it (Go's package encoding/json).
//!
//! To them a key is the same in whichever case, of a key given twice the last counts, and what is `null` or
//! `""` is not set. All of that is settled here, once, so that nothing behind it has to know.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// All keys that are read somewhere, as they are written there.
const KEYS: [&str; 87] = [
    "address",
    "advmss",
    "args",
    "bandwidth",
    "blocks",
    "boot",
    "bridge",
    "cni",
    "cni.dev/valid-attachments",
    "cniVersion",
    "code",
    "containerID",
    "containerPort",
    "dataDir",
    "details",
    "disableContainerInterface",
    "dns",
    "domain",
    "dst",
    "egressBurst",
    "egressRate",
    "enabledad",
    "forceAddress",
    "fromArg",
    "gateway",
    "gw",
    "hairpinMode",
    "hostIP",
    "hostPort",
    "id",
    "ifname",
    "ingressBurst",
    "ingressRate",
    "interface",
    "interfaces",
    "ip",
    "ip4",
    "ip6",
    "ipMasq",
    "ipMasqBackend",
    "ipRanges",
    "ipam",
    "ips",
    "isDefaultGateway",
    "isGateway",
    "mac",
    "macspoofchk",
    "maxID",
    "minID",
    "msg",
    "mtu",
    "name",
    "nameservers",
    "option",
    "options",
    "pciID",
    "policyTimeout",
    "portIsolation",
    "portMappings",
    "preserveDefaultVlan",
    "prevResult",
    "priority",
    "promiscMode",
    "protocol",
    "provide",
    "rangeEnd",
    "rangeStart",
    "ranges",
    "request",
    "resolvConf",
    "retired",
    "routes",
    "runtimeConfig",
    "sandbox",
    "scope",
    "search",
    "shapedSubnets",
    "skipDefault",
    "socketPath",
    "subnet",
    "table",
    "type",
    "unavailable",
    "unshapedSubnets",
    "value",
    "vlan",
    "vlanTrunk",
];

/// Reads one JSON text, and nothing behind it: keys in their usual case, without what is not set.
///
/// # Errors
/// Where it is no JSON.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let Settled(value) = Settled::deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// A key as it is usually written; one that nobody reads stays as it is.
fn usual(key: String) -> String {
    match KEYS.iter().find(|known| known.eq_ignore_ascii_case(&key)) {
        Some(known) => (*known).to_owned(),
        None => key,
    }
}

struct Settled(Value);

impl<'de> Deserialize<'de> for Settled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Settled, D::Error> {
        deserializer.deserialize_any(Reader).map(Settled)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Settled(item)) = items.next_element()? {
            if !item.is_null() {
                list.push(item);
            }
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Settled(value))) = entries.next_entry::<String, Settled>()? {
            let key = usual(key);
            match value.is_null() || value == "" {
                true => object.remove(&key),
                false => object.insert(key, value),
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::Error as Stop;
    use serde::forward_to_deserialize_any;
    use serde_json::json;

    use super::*;
    use crate::config::*;
    use crate::success::{Dns, Interface, IpConfig, OldIp, Route};

    fn parsed(text: &str) -> Value {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_null_or_empty_is_not_set() {
        let text =
            r#"{"runtimeConfig": null, "bridge": "", "ips": ["", null, "a"], "dns": {"domain": null}}"#;
        assert_eq!(parsed(text), json!({"ips": ["", "a"], "dns": {}}));
    }

    #[test]
    fn a_key_is_the_same_in_any_case_and_the_last_of_two_counts() {
        assert_eq!(parsed(r#"{"isdefaultgateway": true}"#), json!({"isDefaultGateway": true}));
        assert_eq!(parsed(r#"{"MTU": 1, "mtu": 2}"#), json!({"mtu": 2}));
        assert_eq!(parsed(r#"{"mtu": 2, "MTU": 1}"#), json!({"mtu": 1}));
        assert_eq!(
            parsed(r#"{"args": {"labels": {"App": "x"}}}"#),
            json!({"args": {"labels": {"App": "x"}}})
        );
    }

    #[test]
    fn text_behind_the_json_is_an_error() {
        assert!(parse(b"{} \n").is_ok());
        for text in ["{} {}", "{},", "{}x"] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("trailing characters"), "{error}");
        }
    }

    #[test]
    fn numbers_and_texts_stay_what_they_are() {
        let text = r#"{"a":[-1,18446744073709551615,1.5,true,"x\u00e9"]}"#;
        assert_eq!(parsed(text), serde_json::from_str::<Value>(text).unwrap());
    }

    /// Notes the keys that a type asks for, and stops.
    struct Fields<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Stop;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            Err(Stop::custom("no object"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Stop> {
            self.0.extend(fields);
            Err(Stop::custom("that was all"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
        let mut fields = Vec::new();
        assert!(T::deserialize(Fields(&mut fields)).is_err());
        assert!(!fields.is_empty());
        fields
    }

    #[test]
    fn every_key_that_is_read_is_known_in_any_case() {
        let read = [
            fields::<Network>(),
            fields::<BridgeOptions>(),
            fields::<VlanTrunk>(),
            fields::<Ipam>(),
            fields::<crate::DhcpIpam>(),
            fields::<crate::ProvidedOption>(),
            fields::<crate::RequestedOption>(),
            fields::<Range>(),
            fields::<RuntimeConfig>(),
            fields::<Bandwidth>(),
            fields::<PortMapping>(),
            fields::<DelegateArgs>(),
            fields::<CniArgs>(),
            fields::<ValidAttachment>(),
            fields::<crate::Success>(),
            fields::<Interface>(),
            fields::<IpConfig>(),
            fields::<Route>(),
            fields::<Dns>(),
            fields::<OldIp>(),
        ]
        .concat();
        let beside = ["code", "msg", "details", "ip4", "ip6"];
        let unknown: Vec<_> = read.iter().filter(|key| !KEYS.contains(key)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let unread: Vec<_> = KEYS.iter().filter(|key| !read.contains(key) && !beside.contains(key)).collect();
        assert!(unread.is_empty(), "{unread:?}");
    }
}
