//! Instructions of eBPF (RFC 9669), as far as programs here need them, and their text as the kernel's
//! verifier prints it.

use std::fmt;

/// A register. `R0` holds what calls return, `R1` to `R5` what they are given and destroy, `R6` to `R9` what
/// stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The end of the stack, which lies below it: 512 bytes.
    Frame,
}

/// How much is loaded or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// Four bytes.
    Word = 0x00,
    /// Two bytes.
    Half = 0x08,
    /// One byte.
    Byte = 0x10,
    /// Eight bytes.
    Double = 0x18,
}

/// What programs may call (`enum bpf_func_id`, linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// The value at a key of a map, or null: `R1` the map, `R2` the key.
    MapLookup = 1,
    /// Sets the value at a key of a map: `R1` the map, `R2` the key, `R3` the value, `R4` flags.
    MapUpdate = 2,
    /// Nanoseconds since the machine started.
    KtimeGetNs = 5,
    /// 32 random bits.
    GetPrandomU32 = 7,
    /// Says for whom a packet is (`PACKET_*`, linux/if_packet.h): `R1` the context, `R2` the type.
    SkbChangeType = 32,
    /// What tells a socket from all others, while the machine runs: `R1` the context.
    GetSocketCookie = 46,
    /// The kernel's clock, in ticks (Linux 5.6).
    Jiffies64 = 118,
    /// The same of the network namespace of a socket (Linux 5.7).
    GetNetnsCookie = 122,
    /// Sends the packet by an interface, to a neighbour there (Linux 5.10): `R1` the interface, `R2` a `struct
    /// bpf_redir_neigh`, `R3` its length, `R4` flags. Returns the program's result.
    RedirectNeigh = 152,
    /// Lets the packet arrive at the other end of a veth pair (Linux 5.10): `R1` the interface of this end, `R2`
    /// flags. Returns the program's result.
    RedirectPeer = 155,
    /// Whether the packet fits through an interface (Linux 5.12): `R1` the context, `R2` the interface, `R3`
    /// where its MTU is to be written, `R4` how much is added, `R5` flags. Returns 0 where it does.
    CheckMtu = 163,
}

/// One instruction, as the kernel takes it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub(super) code: u8,
    /// The destination in the lower half, the source in the upper one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// The classes of instructions and their operations (RFC 9669, sections 4 and 5).
pub(super) mod code {
    /// The second half of a load of 64 bits.
    pub(in crate::bpf) const SECOND: u8 = 0x00;
    /// `dst = 64 bits`, or a map with [`MAP`] as the source.
    pub(in crate::bpf) const LOAD_64: u8 = 0x18;
    /// `dst = *(size *)(src + offset)`
    pub(in crate::bpf) const LOAD: u8 = 0x61;
    /// `*(size *)(dst + offset) = immediate`
    pub(in crate::bpf) const STORE_IMMEDIATE: u8 = 0x62;
    /// `*(size *)(dst + offset) = src`
    pub(in crate::bpf) const STORE: u8 = 0x63;
    /// `dst += immediate`
    pub(in crate::bpf) const ADD_IMMEDIATE: u8 = 0x07;
    /// `dst -= src`
    pub(in crate::bpf) const SUBTRACT: u8 = 0x1f;
    /// `dst -= src`, of the lower 32 bits.
    pub(in crate::bpf) const SUBTRACT_32: u8 = 0x1c;
    /// `dst &= immediate`
    pub(in crate::bpf) const AND_IMMEDIATE: u8 = 0x57;
    /// `*(u64 *)(dst + offset) += src`, as one step for all processors.
    pub(in crate::bpf) const ATOMIC_64: u8 = 0xdb;
    /// `dst *= immediate`
    pub(in crate::bpf) const MULTIPLY_IMMEDIATE: u8 = 0x27;
    /// `dst %= src`, of the lower 32 bits, without a sign.
    pub(in crate::bpf) const MODULO_32: u8 = 0x9c;
    /// `dst = immediate`
    pub(in crate::bpf) const MOVE_IMMEDIATE: u8 = 0xb7;
    /// `dst = src`
    pub(in crate::bpf) const MOVE: u8 = 0xbf;
    /// `goto`
    pub(in crate::bpf) const JUMP: u8 = 0x05;
    /// `if dst == immediate goto`
    pub(in crate::bpf) const JUMP_EQUAL_IMMEDIATE: u8 = 0x15;
    /// `if dst > immediate goto`, without a sign.
    pub(in crate::bpf) const JUMP_GREATER_IMMEDIATE: u8 = 0x25;
    /// `if dst > src goto`, without a sign.
    pub(in crate::bpf) const JUMP_GREATER: u8 = 0x2d;
    /// `if dst != immediate goto`
    pub(in crate::bpf) const JUMP_UNEQUAL_IMMEDIATE: u8 = 0x55;
    /// `if dst != src goto`
    pub(in crate::bpf) const JUMP_UNEQUAL: u8 = 0x5d;
    pub(in crate::bpf) const CALL: u8 = 0x85;
    pub(in crate::bpf) const EXIT: u8 = 0x95;
    /// `BPF_PSEUDO_MAP_FD`: the immediate of [`LOAD_64`] is a map's descriptor.
    pub(in crate::bpf) const MAP: u8 = 1;
    /// `BPF_PSEUDO_KFUNC_CALL`: the immediate of [`CALL`] is the number of a function of the kernel.
    pub(in crate::bpf) const FUNCTION: u8 = 2;
}

impl Instruction {
    /// Where the instruction after this one is, counted in instructions, where this one jumps.
    fn target(&self) -> String {
        format!("goto {:+}", self.offset)
    }

    fn place(register: u8, offset: i16) -> String {
        format!("({}{offset:+})", name(register))
    }
}

/// As the verifier has it in its log.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Instruction { code: operation, registers, offset, immediate } = *self;
        let (to, from) = (registers & 0xf, registers >> 4);
        let (dst, src) = (name(to), name(from));
        match operation {
            code::SECOND => write!(f, "    upper half {:#x}", immediate as u32),
            code::LOAD_64 if from == code::MAP => write!(f, "{dst} = map {immediate}"),
            code::LOAD_64 => write!(f, "{dst} = {:#x} ll", immediate as u32),
            code::ADD_IMMEDIATE => write!(f, "{dst} += {immediate}"),
            code::SUBTRACT => write!(f, "{dst} -= {src}"),
            code::SUBTRACT_32 => write!(f, "w{to} -= w{from}"),
            code::AND_IMMEDIATE => write!(f, "{dst} &= {immediate}"),
            code::ATOMIC_64 => write!(f, "lock *(u64 *){} += {src}", Instruction::place(to, offset)),
            code::MULTIPLY_IMMEDIATE => write!(f, "{dst} *= {immediate}"),
            code::MODULO_32 => write!(f, "w{to} %= w{from}"),
            code::MOVE_IMMEDIATE => write!(f, "{dst} = {immediate}"),
            code::MOVE => write!(f, "{dst} = {src}"),
            code::JUMP => write!(f, "{}", self.target()),
            code::JUMP_EQUAL_IMMEDIATE => write!(f, "if {dst} == {immediate} {}", self.target()),
            code::JUMP_UNEQUAL_IMMEDIATE => write!(f, "if {dst} != {immediate} {}", self.target()),
            code::JUMP_GREATER => write!(f, "if {dst} > {src} {}", self.target()),
            code::JUMP_GREATER_IMMEDIATE => write!(f, "if {dst} > {immediate} {}", self.target()),
            code::JUMP_UNEQUAL => write!(f, "if {dst} != {src} {}", self.target()),
            code::CALL if from == code::FUNCTION => write!(f, "call kernel function {immediate}"),
            code::CALL => write!(f, "call {}", helper(immediate)),
            code::EXIT => f.write_str("exit"),
            // What is left loads or stores.
            _ => {
                let bits = match operation & 0x18 {
                    0x08 => 16,
                    0x10 => 8,
                    0x18 => 64,
                    _ => 32,
                };
                match operation & !0x18 {
                    code::LOAD => write!(f, "{dst} = *(u{bits} *){}", Instruction::place(from, offset)),
                    code::STORE => write!(f, "*(u{bits} *){} = {src}", Instruction::place(to, offset)),
                    _ => write!(f, "*(u{bits} *){} = {immediate:#x}", Instruction::place(to, offset)),
                }
            }
        }
    }
}

fn name(register: u8) -> String {
    if register == Register::Frame as u8 { "fp".to_owned() } else { format!("r{register}") }
}

fn helper(number: i32) -> &'static str {
    let all = [
        (Helper::MapLookup, "map_lookup_elem"),
        (Helper::MapUpdate, "map_update_elem"),
        (Helper::KtimeGetNs, "ktime_get_ns"),
        (Helper::GetPrandomU32, "get_prandom_u32"),
        (Helper::SkbChangeType, "skb_change_type"),
        (Helper::GetSocketCookie, "get_socket_cookie"),
        (Helper::Jiffies64, "jiffies64"),
        (Helper::GetNetnsCookie, "get_netns_cookie"),
        (Helper::RedirectNeigh, "redirect_neigh"),
        (Helper::RedirectPeer, "redirect_peer"),
        (Helper::CheckMtu, "check_mtu"),
    ];
    all.into_iter().find(|(helper, _)| *helper as i32 == number).map_or("?", |(_, name)| name)
}
