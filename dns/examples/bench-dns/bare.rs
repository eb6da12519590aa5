//! The least that a DNS server can do: takes datagrams by the batch, looks each query up as it stands among
//! answers that were made before, and sends those. It knows nothing else, and is what all others are measured
//! against.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use weft_bench::cluster::{Size, cluster_ip};

use crate::names::{endpoint, service};

const BATCH: usize = 32;
const HEADER: usize = 12;
/// The SOA of the zone, whose name is spelled out: 30 s, and the times that the other servers have.
const SOA: &[u8] = b"\x07cluster\x05local\0\0\x06\0\x01\0\0\0\x1e\0\x36\x02ns\x03dns\x07cluster\x05local\0\x0ahostmaster\xc0\x50\
    \0\0\0\x01\0\0\x1c\x20\0\0\x07\x08\0\x01\x51\x80\0\0\0\x1e";

type Buffers = [[u8; 512]; BATCH];

/// The arguments to start it with.
pub(crate) fn arguments(port: u16, size: Size) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let (port, services) = (port.to_string(), size.services.to_string());
    [&program, "--bare", &port, "--bare-services", &services, "none"].map(str::to_owned).into()
}

/// A query for the A records of a name.
pub(crate) fn question(name: &str) -> Vec<u8> {
    let mut bytes = b"\0\0\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(b"\0\0\x01\0\x01");
    bytes
}

/// Question section -> reply.
fn answers(size: Size) -> HashMap<Vec<u8>, Vec<u8>> {
    let entry = |name: String, address: Ipv4Addr| {
        let mut reply = question(&name);
        let section = reply[HEADER..].to_vec();
        (reply[2], reply[3], reply[7]) = (0x85, 0x80, 1);
        reply.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04");
        reply.extend_from_slice(&address.octets());
        (section, reply)
    };
    let names = (0..size.services).flat_map(|number| {
        let pods = size.endpoints_of(number).into_iter();
        pods.map(move |pod| (endpoint(number, pod), pod)).chain([(service(number), cluster_ip(number))])
    });
    names.flat_map(|(name, address)| [no_such_type(&name), entry(name, address)]).collect()
}

/// The same for the AAAA records, of which there are none.
fn no_such_type(name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut reply = question(name);
    let place = reply.len() - 3;
    reply[place] = 28;
    let section = reply[HEADER..].to_vec();
    (reply[2], reply[3], reply[9]) = (0x85, 0x80, 1);
    reply.extend_from_slice(SOA);
    (section, reply)
}

/// Answers for ever.
pub(crate) fn serve(port: u16, size: Size) {
    let (socket, answers) = (UdpSocket::bind(("127.0.0.1", port)).unwrap(), answers(size));
    let mut received = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut sent = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let (mut questions, mut replies): (Buffers, Buffers) = ([[0; 512]; BATCH], [[0; 512]; BATCH]);
    loop {
        let (mut lengths, mut clients, mut count) = ([0; BATCH], [None; BATCH], 0);
        let mut parts: [_; BATCH] = questions.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let taken =
            recvmmsg(socket.as_raw_fd(), &mut received, parts.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        for message in taken.unwrap() {
            (lengths[count], clients[count]) = (message.bytes, message.address);
            count += 1;
        }
        for ((question, reply), length) in questions.iter().zip(&mut replies).zip(&mut lengths[..count]) {
            *length = answer(&answers, &question[..*length], reply);
        }
        let parts: Vec<[IoSlice<'_>; 1]> = replies
            .iter()
            .zip(&lengths[..count])
            .map(|(reply, &length)| [IoSlice::new(&reply[..length])])
            .collect();
        sendmmsg(socket.as_raw_fd(), &mut sent, &parts, &clients[..count], [], MsgFlags::empty()).unwrap();
    }
}

fn answer(answers: &HashMap<Vec<u8>, Vec<u8>>, question: &[u8], reply: &mut [u8; 512]) -> usize {
    let length = match answers.get(&question[HEADER..]) {
        Some(known) => {
            reply[..known.len()].copy_from_slice(known);
            known.len()
        }
        None => {
            reply[..question.len()].copy_from_slice(question);
            (reply[2], reply[3], reply[9]) = (0x85, 0x83, 1);
            reply[question.len()..question.len() + SOA.len()].copy_from_slice(SOA);
            question.len() + SOA.len()
        }
    };
    reply[..2].copy_from_slice(&question[..2]);
    length
}
