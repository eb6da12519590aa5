//! `meta`: what the kernel knows of a packet besides its bytes (`NFTA_META_*`).

use std::fmt;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::{Kind, Row};
use crate::facts::Facts;
use crate::value::{DataType, ETHERTYPES, INTERFACE_NAME_LENGTH};

/// A key of `meta` by the kernel's number (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meta(pub u32);

/// The keys that are known: their words, their types, and what each finds.
const KEYS: [Row<Meta>; 7] = [
    (Meta::PROTOCOL, "meta protocol", DataType::EtherType, |facts| {
        let family = Family::of(facts.source.or(facts.destination)?);
        let (number, ..) = ETHERTYPES.iter().find(|(_, known, _)| *known == family)?;
        Some(number.to_be_bytes().to_vec())
    }),
    (Meta::PRIORITY, "meta priority", DataType::ClassId, |facts| number(facts.priority)),
    (Meta::MARK, "meta mark", DataType::Mark, |facts| number(facts.mark)),
    (Meta::IIFNAME, "iifname", DataType::IfName, |facts| name(facts.input.as_deref())),
    (Meta::OIFNAME, "oifname", DataType::IfName, |facts| name(facts.output.as_deref())),
    (Meta::NFPROTO, "meta nfproto", DataType::NfProto, |facts| {
        facts.source.or(facts.destination).map(|address| vec![if address.is_ipv4() { 2 } else { 10 }])
    }),
    (Meta::L4PROTO, "meta l4proto", DataType::InetProto, |facts| facts.protocol.map(|number| vec![number])),
];

fn number(number: Option<u32>) -> Option<Vec<u8>> {
    Some(number?.to_ne_bytes().to_vec())
}

/// A name as the kernel compares it.
fn name(name: Option<&str>) -> Option<Vec<u8>> {
    let mut bytes = name?.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_LENGTH, 0);
    Some(bytes)
}

impl Meta {
    /// What the link layer carries: `meta protocol`
    pub const PROTOCOL: Meta = Meta(1);
    /// The packet's priority: `meta priority`
    pub const PRIORITY: Meta = Meta(2);
    /// The packet's mark: `meta mark`
    pub const MARK: Meta = Meta(3);
    /// The interface that a packet came in by: `iifname`
    pub const IIFNAME: Meta = Meta(6);
    /// The interface that a packet leaves by: `oifname`
    pub const OIFNAME: Meta = Meta(7);
    /// The family of a packet: `meta nfproto`
    pub const NFPROTO: Meta = Meta(15);
    /// The transport protocol: `meta l4proto`
    pub const L4PROTO: Meta = Meta(16);

    fn known(self) -> Option<&'static Row<Meta>> {
        KEYS.iter().find(|(key, ..)| *key == self)
    }
}

impl Kind for Meta {
    const NAME: &str = "meta";
    /// `NFTA_META_SREG`
    const WRITTEN_FROM: Option<u16> = Some(3);

    fn data_type(&self) -> DataType {
        self.known().map_or(DataType::Bytes, |(_, _, kind, _)| *kind)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(2, self.0);
    }

    fn decode(data: &Attributes<'_>) -> Option<Meta> {
        data.u32(2).map(Meta)
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let (_, _, _, find) = self.known()?;
        find(facts)
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((_, words, _, _)) => f.write_str(words),
            None => write!(f, "meta {}", self.0),
        }
    }
}
