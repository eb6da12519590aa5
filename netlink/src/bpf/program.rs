//! Programs that see the addresses that sockets are given, and links that attach them to a cgroup.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::instruction::Instruction;
use super::object::{self, failed, number};
use super::syscall::{Attributes, Command};
use crate::Result;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`
const CGROUP_SOCK_ADDR: u32 = 18;
/// `BPF_LINK_TYPE_CGROUP`
const LINK_TO_CGROUP: u32 = 3;
/// As programs state it; no helper that is called here asks for another one.
const LICENSE: &[u8] = b"Apache-2.0\0";
/// Room for what the verifier says.
const LOG: usize = 1 << 20;

/// At which calls of a socket a program runs (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "they are the names of the calls, and the family of the address")]
pub enum AttachType {
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

impl AttachType {
    /// All of them, in the order in which they are best attached: first who puts right what the others lead
    /// away.
    pub const ALL: [AttachType; 8] = [
        AttachType::Recvmsg4,
        AttachType::Recvmsg6,
        AttachType::Getpeername4,
        AttachType::Getpeername6,
        AttachType::Connect4,
        AttachType::Connect6,
        AttachType::Sendmsg4,
        AttachType::Sendmsg6,
    ];

    /// `connect4`
    pub fn name(self) -> &'static str {
        match self {
            AttachType::Connect4 => "connect4",
            AttachType::Connect6 => "connect6",
            AttachType::Sendmsg4 => "sendmsg4",
            AttachType::Sendmsg6 => "sendmsg6",
            AttachType::Recvmsg4 => "recvmsg4",
            AttachType::Recvmsg6 => "recvmsg6",
            AttachType::Getpeername4 => "getpeername4",
            AttachType::Getpeername6 => "getpeername6",
        }
    }
}

impl fmt::Display for AttachType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program that the kernel has verified.
#[derive(Debug)]
pub struct Program {
    object: OwnedFd,
    attach: AttachType,
}

impl Program {
    /// Gives a program to the kernel.
    ///
    /// # Errors
    /// What the kernel refused, with the end of what its verifier says of the program: EPERM without CAP_BPF
    /// and CAP_NET_ADMIN, EINVAL where it is older than what the program needs.
    pub fn load(name: &str, attach: AttachType, code: &[Instruction]) -> Result<Program> {
        let kind = ProgramKind {
            number: CGROUP_SOCK_ADDR,
            attach: attach as u32,
            what: attach.name(),
            license: LICENSE,
            modules: &[],
        };
        Ok(Program { object: load(&kind, name, code)?, attach })
    }
}

/// What a program is for, to the kernel.
pub(super) struct ProgramKind<'a> {
    /// `BPF_PROG_TYPE_*`
    pub(super) number: u32,
    /// `enum bpf_attach_type`
    pub(super) attach: u32,
    /// The same in messages.
    pub(super) what: &'a str,
    /// As programs state it, with a zero at its end.
    pub(super) license: &'a [u8],
    /// The descriptors of the modules whose functions it calls, by [`super::btf::KernelFunction::module`].
    pub(super) modules: &'a [i32],
}

/// Gives a program to the kernel.
pub(super) fn load(kind: &ProgramKind<'_>, name: &str, code: &[Instruction]) -> Result<OwnedFd> {
    let attributes = || {
        let attributes = Attributes::new()
            .number(0, kind.number)
            .number(4, code.len() as u32)
            .input(8, code)
            .input(16, kind.license)
            .name(48, name)
            .number(68, kind.attach);
        // Kernels before Linux 5.14 know nothing of it.
        if kind.modules.is_empty() { attributes } else { attributes.input(120, kind.modules) }
    };
    if let Ok(object) = attributes().descriptor(Command::ProgramLoad) {
        return Ok(object);
    }
    // Once more, to hear why.
    let mut log = vec![0; LOG];
    let explained = attributes().number(24, 1).number(28, LOG as u32).output(32, &mut log);
    let object = explained.descriptor(Command::ProgramLoad);
    object.map_err(|source| {
        let reason = last_words(&log);
        failed(format!("load BPF program {name} for {}{reason}", kind.what))(source)
    })
}

/// The end of the verifier's log, in brackets, if it said anything.
fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let is_figure = |line: &&str| line.starts_with("processed ") || line.starts_with("verification time");
    let lines: Vec<&str> = text.lines().filter(|line| !is_figure(line)).collect();
    match lines.len() {
        0 => String::new(),
        count => format!(" ({})", lines[count.saturating_sub(3)..].join("; ")),
    }
}

/// What holds a program at a cgroup. It holds as long as somebody has it open, or it is pinned.
#[derive(Debug)]
pub struct Link {
    object: OwnedFd,
    attach: AttachType,
}

impl Link {
    /// Attaches a program to a cgroup, beside what others have attached there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(program: &Program, cgroup: &impl AsFd) -> Result<Link> {
        let attach = program.attach;
        let attributes = Attributes::new().number(0, number(&program.object)).number(4, number(cgroup));
        let object = attributes.number(8, attach as u32).descriptor(Command::LinkCreate);
        let object = object.map_err(failed(format!("attach BPF program for {attach} to the cgroup")))?;
        Ok(Link { object, attach })
    }

    /// Opens a pinned link; `None` where there is none, or one that holds another kind of program.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(path: &Path, attach: AttachType) -> Result<Option<Link>> {
        let Some(object) = object::open(path)? else { return Ok(None) };
        let info = object::info(&object)?;
        let is_such = object::word(&info, 0) == LINK_TO_CGROUP && object::word(&info, 24) == attach as u32;
        Ok(is_such.then_some(Link { object, attach }))
    }

    /// The number of the cgroup (that of its folder's inode); 0 where that is gone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn cgroup(&self) -> Result<u64> {
        let info = object::info(&self.object)?;
        Ok(info[16..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
    }

    /// Puts a program in the place of the one that it holds, without a moment in which there is none.
    ///
    /// # Errors
    /// What the kernel refused: ENOLINK where the cgroup is gone.
    pub fn update(&self, program: &Program) -> Result<()> {
        let mut attributes = Attributes::new().number(0, number(&self.object));
        attributes = attributes.number(4, number(&program.object));
        let done = attributes.call(Command::LinkUpdate);
        done.map(drop).map_err(failed(format!("replace BPF program for {}", self.attach)))
    }

    /// Takes the program away from the cgroup, at once; what is only unpinned is taken away some time later.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn detach(&self) -> Result<()> {
        let done = Attributes::new().number(0, number(&self.object)).call(Command::LinkDetach);
        done.map(drop).map_err(failed(format!("detach BPF program for {}", self.attach)))
    }

    /// Gives it a name in a bpffs, by which it stays.
    ///
    /// # Errors
    /// What the kernel refused: EPERM where the path is in no bpffs.
    pub fn pin(&self, path: &Path) -> Result<()> {
        object::pin(&self.object, path)
    }
}
