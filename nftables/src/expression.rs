//! Encoding of a rule's statements as the kernel's expressions: small programs over registers, in the shape in which
//! nft writes them, so that nft reads them back as the statements they were.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::hash::{HASH_MODULUS, HASH_SEED};
use super::rule::{Interface, Is, Rule, Selector, Statement, Verdict};
use super::value::{DataType, Tuple, Value};
use weft_netlink::Family;
use weft_netlink::attribute::Writer;

/// `NFTA_LIST_ELEM`: one expression of a rule.
const LIST_ELEM: u16 = 1;
/// The name of the expression that counts.
pub(super) const COUNTER: &str = "counter";
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`
pub(super) const VERDICT_REGISTER: u32 = 0;
/// An interface name as the kernel compares it (`IFNAMSIZ`).
const INTERFACE_NAME_LENGTH: usize = 16;
/// `NFT_CT_STATE`, `NFT_CT_STATUS`
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;
/// `NF_CT_STATE_INVALID_BIT`
pub(super) const CT_STATE_INVALID: u32 = 1;
/// `IPS_DST_NAT`, the bit of a connection's status.
pub(super) const IPS_DST_NAT: u32 = 1 << 5;
/// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`: which address of a packet is looked up.
pub(super) const FIB_SADDR: u32 = 1;
pub(super) const FIB_DADDR: u32 = 2;
/// `NFTA_FIB_F_IIF`, `NFTA_FIB_F_PRESENT`: only by the interface that a packet came by; whether there is one at all.
const FIB_IIF: u32 = 8;
const FIB_PRESENT: u32 = 32;
/// What is asked of the way back: [`Statement::RoutedBack`].
pub(super) const FIB_BACK: u32 = FIB_DADDR | FIB_IIF | FIB_PRESENT;
/// `NFT_FIB_RESULT_OIF`, `NFT_FIB_RESULT_ADDRTYPE`
pub(super) const FIB_INTERFACE: u32 = 1;
pub(super) const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFT_REJECT_ICMP_UNREACH`, `NFT_REJECT_TCP_RST`
pub(super) const REJECT_UNREACHABLE: u32 = 0;
pub(super) const REJECT_RESET: u32 = 1;
/// `RTN_LOCAL`, a type of address.
pub(super) const RTN_LOCAL: u32 = 2;

/// The kernel's verdict codes (`NF_*`, `NFT_*`).
pub(super) mod code {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// Writes all expressions of a rule, as the payload of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn encode(rule: &Rule, writer: &mut Writer<'_>) {
    for statement in &rule.statements {
        encode_statement(statement, writer);
    }
}

/// Writes a verdict, as the payload of `NFTA_DATA_VERDICT`.
pub(super) fn encode_verdict(verdict: &Verdict, writer: &mut Writer<'_>) {
    let code = match verdict {
        Verdict::Accept => code::ACCEPT,
        Verdict::Drop => code::DROP,
        Verdict::Return => code::RETURN,
        Verdict::Jump(_) => code::JUMP,
        Verdict::Goto(_) => code::GOTO,
    };
    writer.u32(VERDICT_CODE, code as u32);
    if let Some(chain) = verdict.chain() {
        writer.string(VERDICT_CHAIN, chain);
    }
}

fn encode_statement(statement: &Statement, writer: &mut Writer<'_>) {
    match statement {
        Statement::Match(selector, is, value) => {
            load(*selector, 0, writer);
            compare(*is, Tuple::new(&[*value]).bytes(), writer);
        }
        Statement::MatchNetwork(selector, is, network) => {
            load(*selector, 0, writer);
            compare_network(*is, network, writer);
        }
        Statement::MatchInterface(interface, is, name) => {
            load_interface(*interface, writer);
            compare_name(*is, name, writer);
        }
        Statement::Dnatted => connection_bit(CT_STATUS, IPS_DST_NAT, writer),
        Statement::Invalid => connection_bit(CT_STATE, CT_STATE_INVALID, writer),
        Statement::ToLocal => address_type(FIB_DADDR, RTN_LOCAL, writer),
        Statement::FromLocal => address_type(FIB_SADDR, RTN_LOCAL, writer),
        Statement::RoutedBack => {
            fib(FIB_INTERFACE, FIB_BACK, writer);
            compare(Is::Equal, &[1], writer);
        }
        Statement::Lookup(key, is, set) => {
            load_all(key, writer);
            lookup(set, None, *is, writer);
        }
        Statement::Vmap(key, map) => {
            load_all(key, writer);
            lookup(map, Some(VERDICT_REGISTER), Is::Equal, writer);
        }
        Statement::Dnat(family, key, map) => {
            load_all(key, writer);
            lookup(map, Some(register(0)), Is::Equal, writer);
            dnat(*family, writer);
        }
        Statement::SetPriority(key, map) => {
            load_all(key, writer);
            lookup(map, Some(register(0)), Is::Equal, writer);
            set_priority(writer);
        }
        Statement::ResetPriority => {
            immediate(register(0), writer, |data| data.bytes(DATA_VALUE, &[0; 4]));
            set_priority(writer);
        }
        Statement::Update(key, timeout, hashed, map) => update(key, *timeout, hashed, map, writer),
        Statement::Note(key, timeout, set) => {
            load_all(key, writer);
            dynamic_set(Operation::Update(*timeout), set, None, writer);
        }
        Statement::Delete(key, map) => delete(key, map, writer),
        // NFTA_MASQ_FLAGS: NF_NAT_RANGE_PROTO_RANDOM_FULLY
        Statement::Masquerade => expression("masq", writer, |data| data.u32(1, 1 << 4)),
        Statement::Notrack => expression("notrack", writer, |_| {}),
        Statement::Reject(family) => reject(*family, writer),
        Statement::Reset => expression("reject", writer, |data| data.u32(1, REJECT_RESET)),
        Statement::Verdict(verdict) => immediate(VERDICT_REGISTER, writer, |data| {
            data.nest(DATA_VERDICT, |data| encode_verdict(verdict, data));
        }),
    }
}

/// The register that begins that many bytes into the register file. Those on a boundary of 16 bytes go by the number
/// of the old, wide registers, as in what nft writes and the kernel dumps.
fn register(offset: usize) -> u32 {
    let number = if offset.is_multiple_of(16) { 1 + offset / 16 } else { 8 + offset / 4 };
    number as u32
}

fn expression(name: &str, writer: &mut Writer<'_>, data: impl FnOnce(&mut Writer<'_>)) {
    writer.nest(LIST_ELEM, |writer| {
        writer.string(EXPR_NAME, name);
        writer.nest(EXPR_DATA, data);
    });
}

/// Loads a concatenation at the beginning of the register file. Returns where it ends.
fn load_all(key: &[Selector], writer: &mut Writer<'_>) -> usize {
    load_from(0, key, writer)
}

fn load_from(start: usize, key: &[Selector], writer: &mut Writer<'_>) -> usize {
    let mut offset = start;
    for selector in key {
        load(*selector, offset, writer);
        offset += selector.data_type().padded_len();
    }
    offset
}

fn load(selector: Selector, offset: usize, writer: &mut Writer<'_>) {
    let target = register(offset);
    match selector {
        Selector::Saddr(Family::Ip) => payload(target, Header::Network, 12, 4, writer),
        Selector::Daddr(Family::Ip) => payload(target, Header::Network, 16, 4, writer),
        Selector::Saddr(Family::Ip6) => payload(target, Header::Network, 8, 16, writer),
        Selector::Daddr(Family::Ip6) => payload(target, Header::Network, 24, 16, writer),
        Selector::Dport => payload(target, Header::Transport, 2, 2, writer),
        Selector::Sport => payload(target, Header::Transport, 0, 2, writer),
        // NFT_META_L4PROTO
        Selector::L4Proto => expression("meta", writer, |data| {
            data.u32(1, target);
            data.u32(2, 16);
        }),
        Selector::OriginalDaddr(Family::Ip) => connection(target, 20, writer),
        Selector::OriginalDaddr(Family::Ip6) => connection(target, 22, writer),
        Selector::OriginalDport => connection(target, 12, writer),
        // NFT_META_PRIORITY
        Selector::Priority => expression("meta", writer, |data| {
            data.u32(1, target);
            data.u32(2, 2);
        }),
        // NFTA_NG_DREG, NFTA_NG_MODULUS, NFTA_NG_TYPE: NFT_NG_RANDOM
        Selector::Random(modulus) => expression("numgen", writer, |data| {
            data.u32(1, target);
            data.u32(2, modulus);
            data.u32(3, 1);
        }),
    }
}

/// The base of a payload expression (`enum nft_payload_bases`).
#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

fn payload(target: u32, base: Header, offset: u32, length: u32, writer: &mut Writer<'_>) {
    expression("payload", writer, |data| {
        data.u32(1, target);
        data.u32(2, base as u32);
        data.u32(3, offset);
        data.u32(4, length);
    });
}

/// Loads a key of the connection's original direction (`NFT_CT_*`).
fn connection(target: u32, key: u32, writer: &mut Writer<'_>) {
    expression("ct", writer, |data| {
        data.u32(1, target);
        data.u32(2, key);
        data.u8(3, 0);
    });
}

fn load_interface(interface: Interface, writer: &mut Writer<'_>) {
    // NFT_META_IIFNAME, NFT_META_OIFNAME
    let key = match interface {
        Interface::Input => 6,
        Interface::Output => 7,
    };
    expression("meta", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, key);
    });
}

fn compare(is: Is, constant: &[u8], writer: &mut Writer<'_>) {
    expression("cmp", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, u32::from(is == Is::NotEqual));
        data.nest(3, |data| data.bytes(DATA_VALUE, constant));
    });
}

/// A name whole, or only its beginning where a `*` stands for the rest.
fn compare_name(is: Is, name: &str, writer: &mut Writer<'_>) {
    match name.strip_suffix('*') {
        Some(prefix) => compare(is, prefix.as_bytes(), writer),
        None => {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(INTERFACE_NAME_LENGTH, 0);
            compare(is, &padded, writer);
        }
    }
}

fn mask(mask: &[u8], writer: &mut Writer<'_>) {
    expression("bitwise", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, register(0));
        data.u32(3, mask.len() as u32);
        data.nest(4, |data| data.bytes(DATA_VALUE, mask));
        data.nest(5, |data| data.bytes(DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn compare_network(is: Is, network: &IpNetwork, writer: &mut Writer<'_>) {
    let octets = |address: IpAddr| Tuple::new(&[Value::Address(address)]).bytes().to_vec();
    mask(&octets(network.mask()), writer);
    compare(is, &octets(network.network()), writer);
}

/// Whether the connection's state or status, which are numbers in the machine's byte order, has that bit. No direction.
fn connection_bit(key: u32, bit: u32, writer: &mut Writer<'_>) {
    expression("ct", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, key);
    });
    mask(&bit.to_ne_bytes(), writer);
    compare(Is::NotEqual, &[0; 4], writer);
}

/// Asks the routes (`NFTA_FIB_RESULT`, `NFTA_FIB_FLAGS`).
fn fib(result: u32, flags: u32, writer: &mut Writer<'_>) {
    expression("fib", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, result);
        data.u32(3, flags);
    });
}

fn address_type(flag: u32, kind: u32, writer: &mut Writer<'_>) {
    fib(FIB_ADDRESS_TYPE, flag, writer);
    compare(Is::Equal, &kind.to_ne_bytes(), writer);
}

fn lookup(set: &str, target: Option<u32>, is: Is, writer: &mut Writer<'_>) {
    expression("lookup", writer, |data| {
        data.string(1, set);
        data.u32(2, register(0));
        if let Some(target) = target {
            data.u32(3, target);
        }
        // NFT_LOOKUP_F_INV
        if is == Is::NotEqual {
            data.u32(5, 1);
        }
    });
}

/// Rewrites the destination to the address and the port that a lookup left in the registers.
fn dnat(family: Family, writer: &mut Writer<'_>) {
    expression("nat", writer, |data| {
        data.u32(1, 1); // NFT_NAT_DNAT
        data.u32(2, family.number().into());
        data.u32(3, register(0)); // NFTA_NAT_REG_ADDR_MIN
        data.u32(5, register(DataType::address(family).padded_len())); // NFTA_NAT_REG_PROTO_MIN
    });
}

fn immediate(target: u32, writer: &mut Writer<'_>, value: impl FnOnce(&mut Writer<'_>)) {
    expression("immediate", writer, |data| {
        data.u32(1, target);
        data.nest(2, value);
    });
}

/// Sets the packet's priority to the number in the first register (`NFT_META_PRIORITY`, `NFTA_META_SREG`).
fn set_priority(writer: &mut Writer<'_>) {
    expression("meta", writer, |data| {
        data.u32(2, 2);
        data.u32(3, register(0));
    });
}

/// The key, then the hash, then what is hashed.
fn update(key: &[Selector], timeout: u32, hashed: &[Selector], map: &str, writer: &mut Writer<'_>) {
    let end = load_all(key, writer);
    let source = end + DataType::ClassId.padded_len();
    let length = load_from(source, hashed, writer) - source;
    expression("hash", writer, |data| {
        data.u32(1, register(source));
        data.u32(2, register(end));
        data.u32(3, length as u32);
        data.u32(4, HASH_MODULUS);
        data.u32(5, HASH_SEED);
        data.u32(7, 0); // NFT_HASH_JENKINS
    });
    dynamic_set(Operation::Update(timeout), map, Some(end), writer);
}

/// The key, then what the map holds, which is the packet's priority.
fn delete(key: &[Selector], map: &str, writer: &mut Writer<'_>) {
    let end = load_all(key, writer);
    load(Selector::Priority, end, writer);
    dynamic_set(Operation::Delete, map, Some(end), writer);
}

/// What a rule does with an element of a set.
#[derive(Clone, Copy)]
enum Operation {
    Update(u32),
    Delete,
}

/// The key stands in the first registers, the data of a map behind it (`NFTA_DYNSET_*`).
fn dynamic_set(operation: Operation, map: &str, data_offset: Option<usize>, writer: &mut Writer<'_>) {
    expression("dynset", writer, |data| {
        data.string(1, map);
        data.u32(
            3,
            match operation {
                Operation::Update(_) => 1,
                Operation::Delete => 2,
            },
        );
        data.u32(4, register(0));
        data_offset.iter().for_each(|offset| data.u32(5, register(*offset)));
        if let Operation::Update(seconds) = operation {
            data.bytes(6, &(u64::from(seconds) * 1000).to_be_bytes());
        }
    });
}

fn reject(family: Family, writer: &mut Writer<'_>) {
    // ICMP_PORT_UNREACH, ICMPV6_PORT_UNREACH
    let code = match family {
        Family::Ip => 3,
        Family::Ip6 => 4,
    };
    expression("reject", writer, |data| {
        data.u32(1, REJECT_UNREACHABLE);
        data.u8(2, code);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_nft_numbers_them() {
        assert_eq!([0, 4, 8, 12, 16, 20, 32].map(register), [1, 9, 10, 11, 2, 13, 3]);
    }
}
