//! What a network's configuration asks for besides an address: `provide` and `request` of its section `ipam`,
//! as the reference plugin `dhcp` has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_cni_spec::{DhcpIpam, ProvidedOption, RequestedOption, decode, read_config};

use crate::message::option;

/// Names of options that may be given in place of numbers.
const NAMES: [(&str, u8); 6] = [
    ("dhcp-client-identifier", option::CLIENT_ID),
    ("subnet-mask", option::SUBNET_MASK),
    ("routers", option::ROUTERS),
    ("host-name", option::HOST_NAME),
    ("user-class", option::USER_CLASS),
    ("vendor-class-identifier", option::VENDOR_CLASS),
];
/// What is asked for where the configuration does not say otherwise; routes as they are used.
const USUAL: [u8; 4] =
    [option::SUBNET_MASK, option::ROUTERS, option::STATIC_ROUTES, option::CLASSLESS_ROUTES];
/// What only the client itself can say.
const OWN: [u8; 7] = [
    option::PAD,
    option::REQUESTED_ADDRESS,
    option::OVERLOAD,
    option::MESSAGE_TYPE,
    option::SERVER,
    option::PARAMETERS,
    option::END,
];

/// What a client tells and wants to be told, and the metric of its routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wishes {
    /// Options that it tells.
    pub provided: BTreeMap<u8, Vec<u8>>,
    /// Options that it wants to be told.
    pub requested: BTreeSet<u8>,
    /// The metric of routes; 0 is the kernel's choice.
    pub metric: u32,
}

/// The network's configuration.
#[derive(Deserialize)]
struct Network {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ipam: DhcpIpam,
}

impl Wishes {
    /// The network's name, and what its configuration and `CNI_ARGS` ask for.
    ///
    /// # Errors
    /// What of it is wrong.
    pub(crate) fn read(config: &[u8], args: &str) -> Result<(String, Wishes), String> {
        let json = read_config(config).map_err(|failure| failure.msg)?;
        let Network { name, ipam } = decode(&json).map_err(|failure| failure.msg)?;
        let args: BTreeMap<&str, &str> = args.split(';').filter_map(|pair| pair.split_once('=')).collect();
        let mut provided = BTreeMap::new();
        for ProvidedOption { option: name, value, from_arg } in &ipam.provide {
            let number = number("provide", name)?;
            if OWN.contains(&number) {
                return Err(format!("ipam.provide: option {name} is the client's own to set"));
            }
            let value = args.get(from_arg.as_str()).copied().or((!value.is_empty()).then_some(value));
            match value {
                Some(value) if value.len() > 255 => {
                    return Err(format!("ipam.provide: the value of option {name} is longer than 255 bytes"));
                }
                Some(value) => drop(provided.insert(number, value.as_bytes().to_vec())),
                // Of a runtime that does not say it.
                None => {}
            }
        }
        let skips = ipam.request.iter().any(|request| request.skip_default);
        let mut requested: BTreeSet<u8> = if skips { BTreeSet::new() } else { USUAL.into() };
        for RequestedOption { option: name, .. } in
            ipam.request.iter().filter(|request| !request.option.is_empty())
        {
            requested.insert(number("request", name)?);
        }
        Ok((name, Wishes { provided, requested, metric: ipam.priority }))
    }
}

fn number(list: &str, name: &str) -> Result<u8, String> {
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| name.parse().ok()).ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!("ipam.{list}: option {name:?} is neither a number up to 255 nor one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(ipam: Value, args: &str) -> Result<Wishes, String> {
        let config = json!({"name": "lan", "type": "macvlan", "ipam": ipam}).to_string();
        Wishes::read(config.as_bytes(), args).map(|(name, wishes)| {
            assert_eq!(name, "lan");
            wishes
        })
    }

    #[test]
    fn without_wishes_it_is_what_an_address_needs() {
        let wishes = read(json!({"type": "dhcp"}), "").unwrap();
        assert_eq!(wishes.requested, [1, 3, 33, 121].into());
        assert!(wishes.provided.is_empty() && wishes.metric == 0);
        assert_eq!(Wishes::read(b"{}", "").unwrap().0, "");
    }

    #[test]
    fn options_are_provided_by_name_or_number_from_the_file_or_from_the_runtime() {
        let provide = json!([
            {"option": "host-name", "fromArg": "K8S_POD_NAME"},
            {"option": "vendor-class-identifier", "value": "weft"},
            {"option": "77", "value": "a", "fromArg": "CLASS"},
            {"Option": "15", "FromArg": "ABSENT"},
        ]);
        let wishes =
            read(json!({"provide": provide, "priority": 100}), "IgnoreUnknown=1;K8S_POD_NAME=web;CLASS=b=c")
                .unwrap();
        let expected: [(u8, &[u8]); 3] = [(12, b"web"), (60, b"weft"), (77, b"b=c")];
        assert_eq!(wishes.provided, expected.map(|(number, value)| (number, value.to_vec())).into());
        assert_eq!(wishes.metric, 100);
    }

    #[test]
    fn options_are_requested_besides_the_usual_ones_or_in_their_place() {
        let more = json!([{"option": "42"}, {"option": "routers"}]);
        assert_eq!(read(json!({"request": more}), "").unwrap().requested, [1, 3, 33, 42, 121].into());
        let instead = json!([{"skipDefault": true}, {"option": "subnet-mask"}]);
        assert_eq!(read(json!({"request": instead}), "").unwrap().requested, [1].into());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |ipam: Value| read(ipam, "").unwrap_err();
        let known =
            "dhcp-client-identifier, subnet-mask, routers, host-name, user-class, vendor-class-identifier";
        assert_eq!(
            error(json!({"request": [{"option": "ntp"}]})),
            format!("ipam.request: option \"ntp\" is neither a number up to 255 nor one of {known}")
        );
        assert!(
            error(json!({"provide": [{"option": "256", "value": "a"}]}))
                .starts_with("ipam.provide: option \"256\"")
        );
        assert_eq!(
            error(json!({"provide": [{"option": "53", "value": "a"}]})),
            "ipam.provide: option 53 is the client's own to set"
        );
        let long = "a".repeat(256);
        assert!(
            error(json!({"provide": [{"option": "12", "value": long}]})).ends_with("longer than 255 bytes")
        );
        assert!(error(json!({"priority": "high"})).contains("ipam.priority"));
        assert!(Wishes::read(b"nonsense", "").is_err());
    }
}
