//! The programs that packets between pods meet first. Pure.
//!
//! A packet of a connection that connection tracking knows, in both directions and untranslated, goes on at
//! once: to the pod it is for, or to the node whose pod it is for. Whatever is not such a packet, or not for a
//! pod, is left to the rest of the network stack (`next`), as if there were no program.

use weft_netlink::bpf::Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use weft_netlink::bpf::{Assembler, Helper, IngressProgram, Instruction, KernelFunction, Label, Size};

/// The length of keys of the maps of pods: an address of IPv6, or one of IPv4 mapped into those.
pub(super) const ADDRESS: usize = 16;
/// The length of keys of the map of ways: how many bits count, and an address.
pub(super) const PREFIX: usize = 4 + ADDRESS;
/// The length of the values of both maps. Of a pod: its interface's index, a zero, and how many packets went
/// by. Of a way: the interface's index, the family of the next hop, and the next hop.
pub(super) const VALUE: usize = 24;
/// The place of the family of the next hop. A pod has none.
pub(super) const FAMILY: usize = 4;
/// The place of the count.
pub(super) const COUNT: usize = 8;

/// Of `struct __sk_buff` (linux/bpf.h).
mod skb {
    pub(super) const PACKET_TYPE: i16 = 4;
    pub(super) const PROTOCOL: i16 = 16;
    pub(super) const VLAN_PRESENT: i16 = 20;
    pub(super) const INTERFACE: i16 = 40;
    pub(super) const DATA: i16 = 76;
    pub(super) const DATA_END: i16 = 80;
}

/// Places on the stack.
mod stack {
    /// The key: the length of a prefix, and an address behind.
    pub(super) const PREFIX: i16 = -20;
    pub(super) const ADDRESS: i16 = -16;
    /// The connection: source, destination, and the ports of both.
    pub(super) const TUPLE: i16 = -56;
    /// `struct bpf_ct_opts`
    pub(super) const OPTIONS: i16 = -72;
    pub(super) const MTU: i16 = -76;
    pub(super) const NOW: i16 = -88;
    pub(super) const CONNECTION: i16 = -96;
}

const ETHERNET: i16 = 14;
const TCP: i32 = 6;
const UDP: i32 = 17;
/// `PACKET_HOST`, `PACKET_OTHERHOST` (linux/if_packet.h)
const TO_HOST: i32 = 0;
const TO_OTHER_HOST: i32 = 3;
/// FIN, SYN and RST: what begins and ends connections is for connection tracking to see.
const BEGINS_OR_ENDS: i32 = 0x07;
/// The length of `struct bpf_ct_opts` that every kernel takes.
const OPTIONS: i32 = 12;
/// `BPF_F_CURRENT_NETNS`
const THIS_NAMESPACE: i32 = -1;
/// `BPF_MTU_CHK_SEGS`: of what is a packet for now, and is split up later, each part counts.
const EACH_SEGMENT: i32 = 1;
/// The bits of a connection that count (`IPS_*`, nf_conntrack_common.h): SEEN_REPLY, ASSURED and CONFIRMED must
/// be set; SRC_NAT, DST_NAT, SEQ_ADJUST, DYING, HELPER and OFFLOAD must not.
const COUNTING_BITS: i32 = 0x627e;
const KNOWN_AND_UNTRANSLATED: i32 = 0x0e;

/// By which of the two ways packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From a pod of this node.
    Pods,
    /// From other nodes.
    Nodes,
}

/// For how long a protocol's connections are known without a packet, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// As connection tracking has it for one that both ends have used. What has longer is left alone.
    pub(super) most: i32,
    /// Below this it is set to the most again.
    pub(super) renewed: i32,
    /// Below this the connection is on its way to its end, and left alone.
    pub(super) least: i32,
    /// The most, in milliseconds.
    pub(super) milliseconds: i32,
}

/// What a program depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The descriptors of the maps.
    pub(super) pods: i32,
    pub(super) ways: i32,
    /// `bpf_skb_ct_lookup`, `bpf_ct_release`, `bpf_ct_change_timeout`
    pub(super) look_up: KernelFunction,
    pub(super) release: KernelFunction,
    pub(super) set_lifetime: KernelFunction,
    /// Where a connection (`struct nf_conn`) has its bits, and the moment of its end.
    pub(super) status: i16,
    pub(super) timeout: i16,
    pub(super) tcp: Lifetime,
    pub(super) udp: Lifetime,
}

/// The places of a family's headers, behind the one of Ethernet.
struct Headers {
    /// Source, destination and ports follow upon each other.
    addresses: i16,
    /// The length of an address.
    address: i16,
    protocol: i16,
    hops: i16,
    ports: i16,
}

const V4: Headers = Headers { addresses: 12, address: 4, protocol: 9, hops: 8, ports: 20 };
const V6: Headers = Headers { addresses: 8, address: 16, protocol: 6, hops: 7, ports: 40 };

/// The program for packets that come by that side.
pub(super) fn program(side: Side, facts: &Facts) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let [next, v4, v6, go] = [(); 4].map(|()| code.label());
    code.copy(R6, R1);
    code.load(Size::Word, R2, R6, skb::VLAN_PRESENT).jump_unless_equal(R2, 0, next);
    code.load(Size::Word, R2, R6, skb::PACKET_TYPE);
    let expected = code.label();
    code.jump_if_equal(R2, TO_HOST, expected);
    match side {
        // It is addressed to the bridge that the interface is a port of.
        Side::Pods => code.jump_unless_equal(R2, TO_OTHER_HOST, next),
        Side::Nodes => code.jump(next),
    };
    code.place(expected);
    code.load(Size::Word, R7, R6, skb::DATA).load(Size::Word, R8, R6, skb::DATA_END);
    code.load(Size::Word, R2, R6, skb::PROTOCOL);
    code.jump_if_equal(R2, network_order(0x0800), v4).jump_if_equal(R2, network_order(0x86dd), v6).jump(next);
    for (family, headers, place) in [(4, &V4, v4), (6, &V6, v6)] {
        code.place(place);
        read(&mut code, family, headers, next);
        find_ends(&mut code, side, headers, facts, next);
        find_connection(&mut code, headers, facts, next);
        code.jump(go);
    }
    code.place(go);
    send(&mut code, side, next);
    code.place(next).set(R0, IngressProgram::NEXT).exit();
    code.finish()
}

/// Reads the packet's connection to the stack, and its protocol to `R9`. `R7` and `R8` are its ends.
fn read(code: &mut Assembler, family: u8, headers: &Headers, next: Label) {
    let at = |place: i16| ETHERNET + place;
    let fits = |code: &mut Assembler, length: i16| {
        code.copy(R2, R7).add(R2, (at(headers.ports) + length).into()).jump_if_greater(R2, R8, next);
    };
    fits(code, 8);
    if family == 4 {
        // Without options.
        code.load(Size::Byte, R2, R7, at(0)).jump_unless_equal(R2, 0x45, next);
        // A fragment: its offset, or that more of them follow.
        code.load(Size::Half, R2, R7, at(6)).and(R2, network_order(0x3fff)).jump_unless_equal(R2, 0, next);
    }
    let has_hops = code.label();
    code.load(Size::Byte, R2, R7, at(headers.hops)).jump_if_above(R2, 1, has_hops).jump(next);
    code.place(has_hops);
    let words = (2 * headers.address + 4) / 4;
    for word in 0..words {
        code.load(Size::Word, R2, R7, at(headers.addresses) + 4 * word);
        code.store(Size::Word, Frame, stack::TUPLE + 4 * word, R2);
    }
    let is_read = code.label();
    code.load(Size::Byte, R9, R7, at(headers.protocol));
    code.jump_if_equal(R9, UDP, is_read).jump_unless_equal(R9, TCP, next);
    fits(code, 14);
    code.load(Size::Byte, R2, R7, at(headers.ports) + 13)
        .and(R2, BEGINS_OR_ENDS)
        .jump_unless_equal(R2, 0, next);
    code.place(is_read);
}

/// Finds the pod whose packets are counted (`R7`), and where the packet goes (`R8`).
fn find_ends(code: &mut Assembler, side: Side, headers: &Headers, facts: &Facts, next: Label) {
    if side == Side::Nodes {
        set_key(code, headers, headers.address);
        find(code, facts.pods, stack::ADDRESS);
        code.jump_if_equal(R0, 0, next).copy(R7, R0).copy(R8, R0);
        return;
    }
    set_key(code, headers, 0);
    find(code, facts.pods, stack::ADDRESS);
    code.jump_if_equal(R0, 0, next).copy(R7, R0);
    // A pod that sends under the address of another one.
    code.load(Size::Word, R2, R7, 0).load(Size::Word, R3, R6, skb::INTERFACE).jump_if_different(R2, R3, next);
    set_key(code, headers, headers.address);
    find(code, facts.pods, stack::ADDRESS);
    let is_found = code.label();
    code.jump_unless_equal(R0, 0, is_found);
    code.store_number(Size::Word, Frame, stack::PREFIX, 128);
    find(code, facts.ways, stack::PREFIX);
    code.jump_if_equal(R0, 0, next).place(is_found).copy(R8, R0);
}

/// Makes the address at that place of the connection the key.
fn set_key(code: &mut Assembler, headers: &Headers, from: i16) {
    if headers.address == 4 {
        // ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)
        code.store_number(Size::Double, Frame, stack::ADDRESS, 0);
        code.store_number(Size::Word, Frame, stack::ADDRESS + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    }
    let to = stack::ADDRESS + 16 - headers.address;
    for byte in (0..headers.address).step_by(4) {
        code.load(Size::Word, R2, Frame, stack::TUPLE + from + byte).store(Size::Word, Frame, to + byte, R2);
    }
}

/// Looks the key up that begins at that place.
fn find(code: &mut Assembler, map: i32, key: i16) {
    code.set_map(R1, map).copy(R2, Frame).add(R2, key.into()).call(Helper::MapLookup);
}

/// Goes on if the connection is known, and renews it.
fn find_connection(code: &mut Assembler, headers: &Headers, facts: &Facts, next: Label) {
    let [leave, keep, renew] = [(); 3].map(|()| code.label());
    code.call(Helper::Jiffies64).store(Size::Double, Frame, stack::NOW, R0);
    code.store_number(Size::Word, Frame, stack::OPTIONS, THIS_NAMESPACE);
    code.store_number(Size::Word, Frame, stack::OPTIONS + 4, 0);
    code.store_number(Size::Word, Frame, stack::OPTIONS + 8, 0);
    code.store(Size::Byte, Frame, stack::OPTIONS + 8, R9);
    code.copy(R1, R6).copy(R2, Frame).add(R2, stack::TUPLE.into()).set(R3, (2 * headers.address + 4).into());
    code.copy(R4, Frame).add(R4, stack::OPTIONS.into()).set(R5, OPTIONS).call_function(facts.look_up);
    code.jump_if_equal(R0, 0, next);
    code.load(Size::Double, R1, R0, facts.status).and(R1, COUNTING_BITS);
    code.jump_unless_equal(R1, KNOWN_AND_UNTRANSLATED, leave);
    // What is left to it. One that has just ended has left what is above all else.
    code.load(Size::Word, R3, R0, facts.timeout)
        .load(Size::Double, R1, Frame, stack::NOW)
        .subtract_32(R3, R1);
    let is_udp = code.label();
    code.jump_if_equal(R9, UDP, is_udp);
    let judge = |code: &mut Assembler, lifetime: &Lifetime| {
        code.set(R2, lifetime.milliseconds);
        code.jump_if_above(R3, lifetime.most, leave).jump_if_above(R3, lifetime.renewed, keep);
        code.jump_if_above(R3, lifetime.least, renew).jump(leave);
    };
    judge(code, &facts.tcp);
    code.place(is_udp);
    judge(code, &facts.udp);
    code.place(leave).copy(R1, R0).call_function(facts.release).jump(next);
    code.place(renew).store(Size::Double, Frame, stack::CONNECTION, R0);
    code.copy(R1, R0).call_function(facts.set_lifetime).load(Size::Double, R0, Frame, stack::CONNECTION);
    code.place(keep).copy(R1, R0).call_function(facts.release);
}

/// Counts the packet, and sends it on: to a pod, or to a node.
fn send(code: &mut Assembler, side: Side, next: Label) {
    let to_pod = code.label();
    if side == Side::Pods {
        code.load(Size::Word, R2, R8, FAMILY as i16).jump_if_equal(R2, 0, to_pod);
        code.store_number(Size::Word, Frame, stack::MTU, 0);
        code.copy(R1, R6).load(Size::Word, R2, R8, 0).copy(R3, Frame).add(R3, stack::MTU.into());
        code.set(R4, 0).set(R5, EACH_SEGMENT).call(Helper::CheckMtu).jump_unless_equal(R0, 0, next);
        code.set(R1, 1).add_atomically(R7, COUNT as i16, R1);
        code.load(Size::Word, R1, R8, 0).copy(R2, R8).add(R2, FAMILY as i32);
        code.set(R3, (VALUE - FAMILY) as i32).set(R4, 0).call(Helper::RedirectNeigh).exit();
        code.place(to_pod).copy(R1, R6).set(R2, TO_HOST).call(Helper::SkbChangeType);
    }
    code.set(R1, 1).add_atomically(R7, COUNT as i16, R1);
    code.load(Size::Word, R1, R8, 0).set(R2, 0).call(Helper::RedirectPeer).exit();
}

/// A number of 16 bits as packets have it.
fn network_order(number: u16) -> i32 {
    number.to_be().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(side: Side) -> String {
        let function = |number| KernelFunction { number, module: 0 };
        let facts = Facts {
            pods: 1,
            ways: 2,
            look_up: function(101),
            release: function(102),
            set_lifetime: function(103),
            status: 128,
            timeout: 8,
            tcp: Lifetime { most: 86_401, renewed: 86_340, least: 240, milliseconds: 86_400_000 },
            udp: Lifetime { most: 121, renewed: 90, least: 0, milliseconds: 120_000 },
        };
        let program = program(side, &facts);
        program.iter().enumerate().map(|(number, line)| format!("{number:3}: {line}\n")).collect()
    }

    #[test]
    fn what_a_pod_sends_goes_to_a_pod_or_to_a_node() {
        insta::assert_snapshot!(listing(Side::Pods));
    }

    #[test]
    fn what_comes_from_a_node_goes_to_a_pod() {
        insta::assert_snapshot!(listing(Side::Nodes));
    }
}
