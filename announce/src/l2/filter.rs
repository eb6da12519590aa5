//! Filters by which the kernel keeps all frames away that are about no address of ours: else a thread would
//! wake for every broadcast of a link.

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_netlink::packet::{Instruction, LONGEST_FILTER};

use super::ndp::HEADER;

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`
/// (linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// As much of a frame as is to be had.
const WHOLE: u32 = 0x4_0000;

/// ARP that asks for one of these addresses, or whose sender says to have one.
pub(super) fn arp(addresses: &[Ipv4Addr]) -> Vec<Instruction> {
    let numbers: Vec<u32> = addresses.iter().map(|address| u32::from(*address)).collect();
    let mut filter = one_of(24, &numbers);
    filter.extend(one_of(14, &numbers));
    ended(filter, Vec::new())
}

/// Solicitations and advertisements of these addresses; of each the last 32 bits are looked at.
pub(super) fn ndp(addresses: &[Ipv6Addr]) -> Vec<Instruction> {
    let numbers: Vec<u32> = addresses.iter().map(|address| u128::from(*address) as u32).collect();
    let [next_header, kind] = [6, HEADER as u32].map(|at| statement(LOAD_BYTE, at));
    let head = vec![
        next_header,
        jump(58, 1, 0),
        statement(RETURN, 0),
        kind,
        jump(135, 2, 0),
        jump(136, 1, 0),
        statement(RETURN, 0),
    ];
    ended(one_of(HEADER as u32 + 20, &numbers), head)
}

/// Lets through what has one of these numbers at that place, and goes on otherwise.
fn one_of(at: u32, numbers: &[u32]) -> Vec<Instruction> {
    let each = numbers.iter().flat_map(|number| [jump(*number, 0, 1), statement(RETURN, WHOLE)]);
    [statement(LOAD_WORD, at)].into_iter().chain(each).collect()
}

/// The whole filter. With more addresses than the kernel takes all is let through that the head does not
/// refuse.
fn ended(tests: Vec<Instruction>, head: Vec<Instruction>) -> Vec<Instruction> {
    let mut filter = head;
    match filter.len() + tests.len() < LONGEST_FILTER {
        true => filter.extend(tests.into_iter().chain([statement(RETURN, 0)])),
        false => filter.push(statement(RETURN, WHOLE)),
    }
    filter
}

fn statement(code: u16, number: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, number }
}

fn jump(number: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code: JUMP_EQUAL, if_true, if_false, number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l2::arp::{ArpPacket, Operation};
    use crate::l2::ndp;
    use weft_netlink::rtnl::Mac;

    /// What the kernel does with a filter.
    fn passes(filter: &[Instruction], frame: &[u8]) -> bool {
        let (mut at, mut held) = (0, 0);
        loop {
            let it = filter[at];
            let place = it.number as usize;
            at += 1;
            match it.code {
                LOAD_WORD => match frame.get(place..).and_then(|rest| rest.first_chunk()) {
                    Some(bytes) => held = u32::from_be_bytes(*bytes),
                    None => return false,
                },
                LOAD_BYTE => match frame.get(place) {
                    Some(byte) => held = u32::from(*byte),
                    None => return false,
                },
                JUMP_EQUAL => at += usize::from(if held == it.number { it.if_true } else { it.if_false }),
                _ => return it.number != 0,
            }
        }
    }

    #[test]
    fn arp_passes_that_asks_for_an_address_of_ours_or_claims_it() {
        let [ours, other] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11)];
        let filter = arp(&[Ipv4Addr::new(192, 0, 2, 9), ours]);
        let packet = |sender, target| {
            let operation = Operation::Request;
            let mac = Mac([2; 6]);
            ArpPacket { operation, sender_mac: mac, sender, target_mac: mac, target }.encode()
        };
        assert!(passes(&filter, &packet(other, ours)) && passes(&filter, &packet(ours, other)));
        assert!(!passes(&filter, &packet(other, other)) && !passes(&filter, &[0; 20]));
        assert!(!passes(&arp(&[]), &packet(ours, ours)), "without addresses nothing passes");
    }

    #[test]
    fn neighbour_discovery_passes_for_an_address_of_ours() {
        let [ours, other]: [Ipv6Addr; 2] = ["2001:db8::10", "2001:db8::11"].map(|text| text.parse().unwrap());
        let filter = super::ndp(&[ours]);
        let told = |address| ndp::announcement(address, Mac([2; 6])).0;
        assert!(passes(&filter, &told(ours)) && !passes(&filter, &told(other)));
        let mut datagram = told(ours);
        datagram[6] = 17;
        assert!(!passes(&filter, &datagram));
    }

    #[test]
    fn a_thousand_addresses_are_told_apart_and_more_are_not() {
        let addresses =
            |count: u32| -> Vec<Ipv4Addr> { (0..count).map(|it| Ipv4Addr::from(0x0a00_0000 + it)).collect() };
        let filter = arp(&addresses(1000));
        assert!(filter.len() <= LONGEST_FILTER && filter.last() == Some(&statement(RETURN, 0)));
        assert_eq!(arp(&addresses(2000)), [statement(RETURN, WHOLE)]);
        let many: Vec<Ipv6Addr> = (0..5000_u128).map(Ipv6Addr::from).collect();
        assert_eq!(super::ndp(&many).len(), 8, "still nothing but neighbour discovery");
    }
}
