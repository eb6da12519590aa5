//! The programs, instruction by instruction. Pure: maps are named by their descriptors.
//!
//! Two programs do all, each for both families and for several calls of a socket:
//!
//! ```text
//! connect, sendmsg       the address is a frontend -> an endpoint of it, and the socket's peer is remembered
//! recvmsg, getpeername   the address is a peer that was remembered -> the frontend
//! ```
//!
//! Every way out that is not the last one leaves the address as it is: the packet meets the data plane
//! beside.

use weft_netlink::bpf::Register::{Frame, R0, R1, R2, R3, R4, R6, R7, R8, R9};
use weft_netlink::bpf::{Assembler, AttachType, Helper, Instruction, Label, Register, Size};

use super::layout::{AFFINITY, COUNT, ENDPOINT, FRONTEND, INDEX, NAMESPACE, PEER, PORT, PROTOCOL, TIME};

/// `struct bpf_sock_addr` (linux/bpf.h): where the address is that the socket is given, the port and the
/// protocol.
mod context {
    pub(super) const ADDRESS_4: i16 = 4;
    pub(super) const ADDRESS_6: i16 = 8;
    pub(super) const PORT: i16 = 24;
    pub(super) const PROTOCOL: i16 = 36;
}

/// What lies on the stack: first keys and values whose parts are wanted more than once.
mod stack {
    use super::super::layout::{CLIENTS, MEMBERS, PEERS};

    /// A frontend, an index and a namespace: the key of `services`, `endpoints` and `affinity`, and the value
    /// of `peers`.
    pub(super) const KEY: i16 = -(CLIENTS.key as i16);
    /// The key of `peers`, with the endpoint that was chosen.
    pub(super) const PEER: i16 = KEY - PEERS.key as i16;
    /// The value of `affinity`.
    pub(super) const CLIENT: i16 = PEER - CLIENTS.value as i16;
    /// The key of `members`.
    pub(super) const MEMBER: i16 = CLIENT - MEMBERS.key as i16;
}

/// The upper 96 bits of an address of IPv4 in IPv6 are 80 of 0 and these.
const MAPPED: i32 = i32::from_ne_bytes([0, 0, 0xff, 0xff]);
const NANOSECONDS: i32 = 1_000_000_000;
/// What the kernel goes on with: the socket's call is allowed.
const ALLOW: i32 = 1;

/// The descriptors of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) services: i32,
    pub(super) endpoints: i32,
    pub(super) members: i32,
    pub(super) affinity: i32,
    pub(super) peers: i32,
}

/// The program for one call of sockets. Where `namespace` says so, sockets of other network namespaces are
/// left alone; it is the cookie of one.
pub(super) fn program(attach: AttachType, maps: Maps, namespace: Option<u64>) -> Vec<Instruction> {
    let family = match attach {
        AttachType::Connect4 | AttachType::Sendmsg4 | AttachType::Recvmsg4 | AttachType::Getpeername4 => {
            Family::V4
        }
        AttachType::Connect6 | AttachType::Sendmsg6 | AttachType::Recvmsg6 | AttachType::Getpeername6 => {
            Family::V6
        }
    };
    match attach {
        AttachType::Connect4 | AttachType::Connect6 | AttachType::Sendmsg4 | AttachType::Sendmsg6 => {
            forward(family, maps, namespace)
        }
        AttachType::Recvmsg4 | AttachType::Recvmsg6 | AttachType::Getpeername4 | AttachType::Getpeername6 => {
            reverse(family, maps)
        }
    }
}

/// The family of the address that the context has. Of IPv6 it may be one of IPv4 in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// `R6` holds the context, `R7` the Service, `R8` where the endpoint is that may be chosen, `R9` the seconds
/// of affinity.
fn forward(family: Family, maps: Maps, namespace: Option<u64>) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let [pass, choose, chosen, rewrite] = [(); 4].map(|()| code.label());
    code.copy(R6, R1);
    code.call(Helper::GetNetnsCookie).store(Size::Double, Frame, at(stack::KEY, NAMESPACE), R0);
    if let Some(cookie) = namespace {
        code.set_64(R1, cookie).jump_if_different(R0, R1, pass);
    }
    read_address(&mut code, family, stack::KEY);
    code.load(Size::Word, R1, R6, context::PROTOCOL).store(Size::Half, Frame, at(stack::KEY, PROTOCOL), R1);
    code.store_number(Size::Word, Frame, at(stack::KEY, INDEX), 0);
    look_up(&mut code, maps.services, stack::KEY);
    code.jump_if_equal(R0, 0, pass).copy(R7, R0);
    code.load(Size::Word, R9, R7, AFFINITY as i16).jump_if_equal(R9, 0, choose);
    stay(&mut code, maps, choose, chosen);
    code.place(choose);
    code.call(Helper::GetPrandomU32).load(Size::Word, R1, R7, COUNT as i16).modulo(R0, R1);
    code.store(Size::Word, Frame, at(stack::KEY, INDEX), R0);
    look_up(&mut code, maps.endpoints, stack::KEY);
    // The Service is being changed this moment.
    code.jump_if_equal(R0, 0, pass).copy(R8, R0);
    copy(&mut code, (R8, 0), at(stack::PEER, PEER), Size::Double);
    code.store_number(Size::Word, Frame, at(stack::KEY, INDEX), 0);
    code.place(chosen);
    code.copy(R1, R6).call(Helper::GetSocketCookie).store(Size::Double, Frame, stack::PEER, R0);
    code.store_number(Size::Word, Frame, at(stack::PEER, PEER + ENDPOINT), 0);
    update(&mut code, maps.peers, stack::PEER, stack::KEY);
    code.jump_if_equal(R9, 0, rewrite);
    copy(&mut code, (Frame, at(stack::PEER, PEER)), stack::CLIENT, Size::Double);
    code.store_number(Size::Word, Frame, at(stack::CLIENT, ENDPOINT), 0);
    code.call(Helper::KtimeGetNs).store(Size::Double, Frame, at(stack::CLIENT, TIME), R0);
    update(&mut code, maps.affinity, stack::KEY, stack::CLIENT);
    code.place(rewrite);
    write_address(&mut code, family, Frame, at(stack::PEER, PEER));
    code.place(pass).set(R0, ALLOW).exit();
    code.finish()
}

/// Goes to `chosen` with the endpoint that this client had last, if it came lately and the Service still has
/// that endpoint; else to `choose`.
fn stay(code: &mut Assembler, maps: Maps, choose: Label, chosen: Label) {
    look_up(code, maps.affinity, stack::KEY);
    code.jump_if_equal(R0, 0, choose).copy(R8, R0);
    code.call(Helper::KtimeGetNs).load(Size::Double, R1, R8, TIME as i16).subtract(R0, R1);
    code.copy(R1, R9).multiply(R1, NANOSECONDS).jump_if_greater(R0, R1, choose);
    // The kernel may give what R8 points to to another client at any time: it is read once.
    copy(code, (R8, 0), at(stack::PEER, PEER), Size::Double);
    copy(code, (Frame, stack::KEY), stack::MEMBER, Size::Double);
    copy(code, (Frame, at(stack::PEER, PEER)), at(stack::MEMBER, FRONTEND), Size::Word);
    look_up(code, maps.members, stack::MEMBER);
    code.jump_unless_equal(R0, 0, chosen);
}

fn reverse(family: Family, maps: Maps) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let pass = code.label();
    code.copy(R6, R1).call(Helper::GetSocketCookie).store(Size::Double, Frame, stack::PEER, R0);
    read_address(&mut code, family, at(stack::PEER, PEER));
    code.store_number(Size::Half, Frame, at(stack::PEER, PEER + PROTOCOL), 0);
    code.store_number(Size::Word, Frame, at(stack::PEER, PEER + ENDPOINT), 0);
    look_up(&mut code, maps.peers, stack::PEER);
    code.jump_if_equal(R0, 0, pass).copy(R8, R0);
    write_address(&mut code, family, R8, 0);
    code.place(pass).set(R0, ALLOW).exit();
    code.finish()
}

/// A place within what lies on the stack.
fn at(place: i16, offset: usize) -> i16 {
    place + offset as i16
}

/// Puts the context's address and port onto the stack, as a frontend or an endpoint begins.
fn read_address(code: &mut Assembler, family: Family, to: i16) {
    match family {
        Family::V4 => {
            code.store_number(Size::Double, Frame, to, 0).store_number(Size::Word, Frame, at(to, 8), MAPPED);
            code.load(Size::Word, R1, R6, context::ADDRESS_4).store(Size::Word, Frame, at(to, 12), R1);
        }
        Family::V6 => {
            for half in [0, 8] {
                code.load(Size::Double, R1, R6, context::ADDRESS_6 + half);
                code.store(Size::Double, Frame, to + half, R1);
            }
        }
    }
    code.load(Size::Word, R1, R6, context::PORT).store(Size::Half, Frame, at(to, PORT), R1);
}

/// The other way round, from anywhere.
fn write_address(code: &mut Assembler, family: Family, from: Register, place: i16) {
    match family {
        Family::V4 => {
            code.load(Size::Word, R1, from, at(place, 12)).store(Size::Word, R6, context::ADDRESS_4, R1);
        }
        Family::V6 => {
            for half in [0, 8] {
                code.load(Size::Double, R1, from, place + half);
                code.store(Size::Double, R6, context::ADDRESS_6 + half, R1);
            }
        }
    }
    code.load(Size::Half, R1, from, at(place, PORT)).store(Size::Word, R6, context::PORT, R1);
}

/// Copies a frontend or an endpoint onto the stack. Eight bytes at once need a place that eight divides.
fn copy(code: &mut Assembler, (from, place): (Register, i16), to: i16, size: Size) {
    let doubles = if size == Size::Double { 2 } else { 0 };
    for part in 0..doubles {
        code.load(Size::Double, R1, from, place + 8 * part).store(Size::Double, Frame, to + 8 * part, R1);
    }
    for part in 2 * doubles..ENDPOINT as i16 / 4 {
        code.load(Size::Word, R1, from, place + 4 * part).store(Size::Word, Frame, to + 4 * part, R1);
    }
}

/// `R0` becomes where the value is, or 0.
fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.set_map(R1, map).copy(R2, Frame).add(R2, key.into()).call(Helper::MapLookup);
}

fn update(code: &mut Assembler, map: i32, key: i16, value: i16) {
    code.set_map(R1, map).copy(R2, Frame).add(R2, key.into()).copy(R3, Frame).add(R3, value.into());
    code.set(R4, 0).call(Helper::MapUpdate);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: Maps = Maps { services: 1, endpoints: 2, members: 3, affinity: 4, peers: 5 };

    fn listing(attach: AttachType, namespace: Option<u64>) -> String {
        let program = program(attach, MAPS, namespace);
        program.iter().enumerate().map(|(number, line)| format!("{number:3}: {line}\n")).collect()
    }

    #[test]
    fn a_socket_of_this_node_alone_is_led_to_an_endpoint() {
        insta::assert_snapshot!(listing(AttachType::Connect4, Some(0x1_0000_002a)));
    }

    #[test]
    fn a_socket_of_any_pod_is_led_to_an_endpoint_over_ipv6() {
        insta::assert_snapshot!(listing(AttachType::Connect6, None));
    }

    #[test]
    fn an_answer_of_an_endpoint_comes_from_the_frontend() {
        insta::assert_snapshot!("of_ipv4", listing(AttachType::Recvmsg4, None));
        insta::assert_snapshot!("of_ipv6", listing(AttachType::Getpeername6, None));
    }

    #[test]
    fn datagrams_are_led_as_connections_are() {
        for (sendmsg, connect) in
            [(AttachType::Sendmsg4, AttachType::Connect4), (AttachType::Sendmsg6, AttachType::Connect6)]
        {
            assert_eq!(program(sendmsg, MAPS, Some(7)), program(connect, MAPS, Some(7)));
        }
    }
}
