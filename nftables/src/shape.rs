//! What the kernel keeps of a set's declaration, as plain numbers and bytes: with these a set is created, and
//! by these a set that is there is compared with the one that is planned.
//!
//! Most of it is nft's own: the kernel needs lengths and flags only, and keeps types and user data so that
//! nft can print the set again. Without the right ones nft prints keys as bare numbers, or stops.

use super::counter;
use super::register::{EXPR_DATA, EXPR_NAME};
use super::set::{Declaration, SetKind};
use super::userdata::{put, put_number, put_text};
use super::value::{DataType, tuple_len};
use weft_netlink::attribute::{Attributes, Writer};

/// `NFT_SET_MAP`
const FLAG_MAP: u32 = 1 << 3;
/// `NFT_SET_INTERVAL`, `NFT_SET_CONCAT`: keys are ranges, in each of several fields.
const FLAG_RANGES: u32 = 1 << 2;
const FLAG_FIELDS: u32 = 1 << 7;
/// `NFT_SET_TIMEOUT`: elements expire.
const FLAG_TIMEOUT: u32 = 1 << 4;
/// `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`: packets write elements, which expire.
const FLAGS_EXPIRING: u32 = 1 << 4 | 1 << 5;
/// `NFT_DATA_VERDICT`: the data type of a verdict map.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// The length of a verdict in a register.
const VERDICT_LEN: u32 = 16;
/// How many bits a type takes in the number of a concatenation (`TYPE_BITS` of nft).
const TYPE_BITS: u32 = 6;

/// `NFTA_SET_*`
mod attribute {
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    pub(super) const KEY_LEN: u16 = 5;
    pub(super) const DATA_TYPE: u16 = 6;
    pub(super) const DATA_LEN: u16 = 7;
    pub(super) const DESCRIPTION: u16 = 9;
    pub(super) const TIMEOUT: u16 = 11;
    pub(super) const USERDATA: u16 = 13;
    pub(super) const EXPRESSION: u16 = 17;
}

/// `NFTNL_UDATA_SET_*` of libnftnl: the types of a set's user data.
mod userdata {
    pub(super) const KEY_BYTE_ORDER: u8 = 0;
    pub(super) const DATA_BYTE_ORDER: u8 = 1;
    pub(super) const KEY_TYPEOF: u8 = 3;
    pub(super) const DATA_TYPEOF: u8 = 4;
    pub(super) const COMMENT: u8 = 7;
}

/// The kernel's view of a set's declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    flags: u32,
    key_type: u32,
    key_len: u32,
    data: Option<(u32, u32)>,
    /// The length of each field, where keys are ranges.
    fields: Vec<u32>,
    /// How many elements it may have; 0 where that is not said.
    size: u32,
    /// How many milliseconds elements live that do not say so themselves; 0 where they live on.
    timeout: u64,
    /// Whether each element counts.
    counts: bool,
    userdata: Vec<u8>,
}

impl Shape {
    /// The shape of a planned set.
    pub(super) fn of(declaration: &Declaration) -> Shape {
        let data = match declaration.data_types() {
            _ if declaration.is_verdict_map() => Some((VERDICT_TYPE, VERDICT_LEN)),
            [] => None,
            types => Some((type_number(types), tuple_len(types) as u32)),
        };
        let ranges = match (declaration.has_ranges(), declaration.key.len()) {
            (false, _) => 0,
            (true, 1) => FLAG_RANGES,
            (true, _) => FLAG_RANGES | FLAG_FIELDS,
        };
        let (expiring, size) = match declaration.kind {
            SetKind::ExpiringMap(_, size) | SetKind::ExpiringSet(size) => (FLAGS_EXPIRING, size),
            SetKind::Timed(..) => (FLAG_TIMEOUT, 0),
            _ => (0, 0),
        };
        let timeout = match declaration.kind {
            SetKind::Timed(_, Some(seconds)) => u64::from(seconds) * 1000,
            _ => 0,
        };
        let has_fields = ranges & FLAG_FIELDS != 0;
        let fields = declaration.key.iter().filter(|_| has_fields).map(|kind| kind.len() as u32);
        Shape {
            flags: if data.is_some() { FLAG_MAP } else { 0 } | ranges | expiring,
            key_type: type_number(&declaration.key),
            key_len: tuple_len(&declaration.key) as u32,
            data,
            fields: fields.collect(),
            size,
            timeout,
            counts: *declaration.kind.plain() == SetKind::CountingSet,
            userdata: userdata(declaration),
        }
    }

    /// The same, of a set that takes so many elements; 0 for any number.
    pub(super) fn with_room(self, room: u32) -> Shape {
        Shape { size: self.size.max(room), ..self }
    }

    /// Whether it is the shape of such a set, whatever the room.
    pub(super) fn is_of(&self, declaration: &Declaration) -> bool {
        let planned = Shape::of(declaration);
        match declaration.can_be_sized() {
            true => planned.with_room(self.size) == *self,
            false => planned == *self,
        }
    }

    /// Whether so many elements fit in.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        self.size == 0 || count <= self.size as usize
    }

    /// The shape of a set that the kernel dumped.
    pub(super) fn read(attributes: &Attributes<'_>) -> Shape {
        let number = |kind| attributes.u32(kind).unwrap_or_default();
        Shape {
            flags: number(attribute::FLAGS),
            key_type: number(attribute::KEY_TYPE),
            key_len: number(attribute::KEY_LEN),
            data: attributes.u32(attribute::DATA_TYPE).map(|kind| (kind, number(attribute::DATA_LEN))),
            fields: read_fields(&attributes.nested(attribute::DESCRIPTION)),
            size: attributes.nested(attribute::DESCRIPTION).u32(1).unwrap_or_default(),
            timeout: attributes
                .get(attribute::TIMEOUT)
                .and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
                .unwrap_or_default(),
            counts: attributes.nested(attribute::EXPRESSION).string(EXPR_NAME) == Some(counter::NAME),
            userdata: attributes.get(attribute::USERDATA).unwrap_or_default().to_vec(),
        }
    }

    /// Whether each range in it is two elements.
    pub(super) fn has_split_ranges(&self) -> bool {
        self.flags & FLAG_RANGES != 0 && self.fields.is_empty()
    }

    /// Whether packets write its elements, which expire.
    pub(super) fn is_expiring(&self) -> bool {
        self.flags & FLAGS_EXPIRING == FLAGS_EXPIRING
    }

    /// Writes the attributes that create such a set.
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(attribute::FLAGS, self.flags);
        writer.u32(attribute::KEY_TYPE, self.key_type);
        writer.u32(attribute::KEY_LEN, self.key_len);
        if let Some((kind, length)) = self.data {
            writer.u32(attribute::DATA_TYPE, kind);
            writer.u32(attribute::DATA_LEN, length);
        }
        if self.timeout > 0 {
            writer.bytes(attribute::TIMEOUT, &self.timeout.to_be_bytes());
        }
        // NFTA_SET_DESC_SIZE
        if self.size > 0 {
            writer.nest(attribute::DESCRIPTION, |writer| writer.u32(1, self.size));
        }
        if !self.fields.is_empty() {
            // NFTA_SET_DESC_CONCAT, NFTA_LIST_ELEM, NFTA_SET_FIELD_LEN
            writer.nest(attribute::DESCRIPTION, |writer| {
                writer.nest(2, |writer| {
                    for length in &self.fields {
                        writer.nest(1, |writer| writer.u32(1, *length));
                    }
                });
            });
        }
        writer.bytes(attribute::USERDATA, &self.userdata);
        if self.counts {
            // The kernel gives each element a copy of it.
            writer.nest(attribute::EXPRESSION, |writer| {
                writer.string(EXPR_NAME, counter::NAME);
                writer.nest(EXPR_DATA, |_| {});
            });
        }
    }
}

pub(super) fn read_fields(description: &Attributes<'_>) -> Vec<u32> {
    description.nested(2).filter_map(|(_, field)| Attributes(field).u32(1)).collect()
}

fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, kind| number << TYPE_BITS | kind.number())
}

/// The number of nft's `enum byteorder` for a key or data of those types: none for concatenations and
/// verdicts.
fn byte_order(types: &[DataType]) -> u32 {
    match types {
        [DataType::Integer | DataType::ClassId] => 1,
        [_] => 2,
        _ => 0,
    }
}

fn userdata(declaration: &Declaration) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_number(&mut bytes, userdata::KEY_BYTE_ORDER, byte_order(&declaration.key));
    let data_types = declaration.data_types();
    if !matches!(declaration.kind.plain(), SetKind::Set | SetKind::CountingSet | SetKind::RangeSet) {
        put_number(&mut bytes, userdata::DATA_BYTE_ORDER, byte_order(data_types));
    }
    if declaration.is_typeof() {
        put(&mut bytes, userdata::KEY_TYPEOF, &typeof_expression(&declaration.key));
        if !data_types.is_empty() {
            put(&mut bytes, userdata::DATA_TYPEOF, &typeof_expression(data_types));
        }
    }
    if let Some(comment) = declaration.comment {
        put_text(&mut bytes, userdata::COMMENT, comment);
    }
    bytes
}

/// The expression of a `typeof`, as nft keeps it: the number of its kind (`enum expr_types`), and what it
/// needs.
fn typeof_expression(types: &[DataType]) -> Vec<u8> {
    let [single] = types else {
        let mut parts = Vec::new();
        for (index, kind) in types.iter().enumerate() {
            put(&mut parts, index as u8, &typeof_expression(&[*kind]));
        }
        return expression(13, &parts);
    };
    let numbers: &[u32] = match single {
        // Protocol description and header field.
        DataType::Ipv4Addr => &[12, 12],
        DataType::Ipv6Addr => &[13, 9],
        DataType::InetService => &[11, 2],
        // The key: l4proto.
        DataType::InetProto => &[16],
        // The key: priority.
        DataType::ClassId => &[2],
        // Random, modulus, offset.
        DataType::Integer => &[1, 65536, 0],
        // The key: nfproto, iifname, mark. The others stand in sets that are declared by their types.
        DataType::NfProto => &[15],
        DataType::IfName => &[6],
        _ => &[3],
    };
    let kind = match single {
        DataType::Ipv4Addr | DataType::Ipv6Addr | DataType::InetService => 7,
        DataType::Integer => 23,
        _ => 9,
    };
    let mut data = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        put_number(&mut data, index as u8, *number);
    }
    expression(kind, &data)
}

fn expression(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_number(&mut bytes, 0, kind);
    put(&mut bytes, 1, data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netlink::Family;

    fn declaration(kind: SetKind, key: Vec<DataType>) -> Declaration {
        let (table, name) = ("weft".into(), "endpoints".into());
        Declaration { family: Family::Ip.into(), table, name, key, kind, comment: None }
    }

    /// Recorded from nft 1.0.6:
    /// `typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport`.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_typeof_map_has_the_shape_that_nft_gives_it() {
        use DataType::*;
        let kind = SetKind::DataMap(vec![Ipv4Addr, InetService]);
        let shape = Shape::of(&declaration(kind, vec![Ipv4Addr, InetProto, InetService, Integer]));
        assert_eq!((shape.flags, shape.key_type, shape.key_len), (8, 0x001c_c344, 16));
        assert_eq!(shape.data, Some((0x01cd, 8)));
        let hex: String = shape.userdata.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "000400000000010400000000036000040d00000001580014000407000000010c00040c00000001040c000000010e000409000000\
             01060004100000000214000407000000010c00040b000000010402000000031a00041700000001120004010000000104000001\
             0002040000000004 3400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c0004\
             0b000000010402000000"
                .replace(' ', "")
        );
    }

    #[test]
    fn a_set_has_no_data_and_big_endian_keys() {
        let shape = Shape::of(&declaration(SetKind::Set, vec![DataType::Ipv4Addr]));
        assert_eq!((shape.flags, shape.key_type, shape.key_len, shape.data), (0, 7, 4, None));
        assert_eq!(shape.userdata[..2], [0, 4]);
        assert_eq!(shape.userdata[2..], 2u32.to_ne_bytes());
    }

    #[test]
    fn a_shape_reads_back_from_its_attributes() {
        let shape =
            Shape::of(&declaration(SetKind::VerdictMap, vec![DataType::InetProto, DataType::InetService]));
        let mut bytes = Vec::new();
        shape.encode(&mut Writer(&mut bytes));
        assert_eq!(Shape::read(&Attributes(&bytes)), shape);
    }
}
