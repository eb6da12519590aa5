//! metallb.io/v1beta1 BFDProfile.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use weft_types::{BfdProfile, NamespacedName};

use super::metadata::Metadata;
use super::metallb::V1BETA1;
use super::values::within;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

/// What intervals may be, in milliseconds.
const INTERVALS: RangeInclusive<i64> = 10..=60_000;

impl ApiResource for BfdProfile {
    const API_VERSION: &'static str = V1BETA1;
    const PLURAL: &'static str = "bfdprofiles";
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = BfdProfileObject;
}

/// metallb.io/v1beta1 BFDProfile
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BfdProfileObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of a BFDProfile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    receive_interval: Field<i64>,
    transmit_interval: Field<i64>,
    detect_multiplier: Field<i64>,
    echo_interval: Field<i64>,
    echo_mode: Field<bool>,
    passive_mode: Field<bool>,
    minimum_ttl: Field<i64>,
}

impl WireObject for BfdProfileObject {
    type Kind = BfdProfile;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        _: &mut Faults,
    ) -> Result<Option<BfdProfile>, Fault> {
        let spec = self.spec.or_default("spec")?;
        Ok(Some(BfdProfile {
            key,
            receive_interval: interval(spec.receive_interval, 300, "spec.receiveInterval")?,
            transmit_interval: interval(spec.transmit_interval, 300, "spec.transmitInterval")?,
            detect_multiplier: small(spec.detect_multiplier, 3, 2, "spec.detectMultiplier")?,
            echo_interval: interval(spec.echo_interval, 50, "spec.echoInterval")?,
            echo_mode: spec.echo_mode.or_default("spec.echoMode")?,
            passive: spec.passive_mode.or_default("spec.passiveMode")?,
            minimum_ttl: small(spec.minimum_ttl, 254, 1, "spec.minimumTtl")?.min(254),
        }))
    }
}

fn interval(field: Field<i64>, default: u64, path: &str) -> Result<Duration, Fault> {
    let Some(number) = field.optional(path)? else { return Ok(Duration::from_millis(default)) };
    match u64::try_from(number) {
        Ok(milliseconds) if INTERVALS.contains(&number) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(Fault::new(path, format!("{number} is none of 10 to 60000 milliseconds"))),
    }
}

fn small(field: Field<i64>, default: u8, lowest: u8, path: &str) -> Result<u8, Fault> {
    let number = field.optional(path)?.map(|number| within(number, lowest..=u8::MAX, path));
    Ok(number.transpose()?.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn read(spec: Value) -> Result<BfdProfile, String> {
        let object = json!({"metadata": {"name": "fast", "namespace": "metallb-system"}, "spec": spec});
        match read_document(Kind::BfdProfile, object, &WatchFilter::default()) {
            Reading::Object(Object::BfdProfile(it)) => Ok(it),
            Reading::Malformed(malformed) => Err(malformed.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_profile_is_read_with_the_defaults_of_metallb() {
        let it = read(json!({})).unwrap();
        let milliseconds =
            [it.receive_interval, it.transmit_interval, it.echo_interval].map(|it| it.as_millis());
        assert_eq!((milliseconds, it.detect_multiplier, it.minimum_ttl), ([300, 300, 50], 3, 254));
        assert!(!it.echo_mode && !it.passive);
        let it = read(json!({"receiveInterval": 100, "detectMultiplier": 5, "passiveMode": true})).unwrap();
        assert_eq!((it.receive_interval.as_millis(), it.detect_multiplier, it.passive), (100, 5, true));
    }

    #[test]
    fn what_bfd_has_not_is_named() {
        for (spec, expected) in [
            (json!({"receiveInterval": 9}), "spec.receiveInterval: 9 is none of 10 to 60000 milliseconds"),
            (json!({"detectMultiplier": 1}), "spec.detectMultiplier: 1 is none of 2 to 255"),
            (json!({"minimumTtl": 256}), "spec.minimumTtl: 256 is none of 1 to 255"),
        ] {
            let told = read(spec).unwrap_err();
            assert!(told.ends_with(expected), "{told}");
        }
    }
}
