//! Programs that see the packets that come in by a network interface (tcx, Linux 6.6), before anything else
//! of the network stack does.

use std::os::fd::{AsRawFd, OwnedFd};

use super::btf::KernelTypes;
use super::instruction::Instruction;
use super::object::{self, failed, number};
use super::program::{self, ProgramKind};
use super::syscall::{Attributes, Command};
use crate::Result;

/// `BPF_PROG_TYPE_SCHED_CLS`
const CLASSIFIER: u32 = 3;
/// `BPF_TCX_INGRESS`
const INGRESS: u32 = 46;
/// The kernel lends its functions (kfuncs) to programs alone that may be used under the GPL.
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

/// A program that the kernel has verified.
#[derive(Debug)]
pub struct IngressProgram(OwnedFd);

/// What holds a program at an interface. It is gone with this value, and with the interface.
#[derive(Debug)]
pub struct IngressLink(OwnedFd);

impl IngressProgram {
    /// What a program returns to leave a packet to whoever comes after it.
    pub const NEXT: i32 = -1;

    /// Gives a program to the kernel, which may call the functions that `types` has found.
    ///
    /// # Errors
    /// What the kernel refused, with the end of what its verifier says of the program: EPERM without CAP_BPF,
    /// CAP_NET_ADMIN and CAP_PERFMON, EINVAL where it is older than what the program needs.
    pub fn load(name: &str, code: &[Instruction], types: &KernelTypes) -> Result<IngressProgram> {
        let module = types.module.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let kind = ProgramKind {
            number: CLASSIFIER,
            attach: INGRESS,
            what: "interfaces",
            license: LICENSE,
            modules: &[-1, module],
        };
        Ok(IngressProgram(program::load(&kind, name, code)?))
    }

    /// Attaches it to an interface of the calling thread's network namespace, behind what others have attached
    /// there.
    ///
    /// # Errors
    /// What the kernel refused: EINVAL before Linux 6.6, ENODEV where there is no such interface.
    pub fn attach(&self, interface: u32) -> Result<IngressLink> {
        let attributes = Attributes::new().number(0, number(&self.0)).number(4, interface).number(8, INGRESS);
        let object = attributes.descriptor(Command::LinkCreate);
        Ok(IngressLink(
            object.map_err(failed(format!("attach BPF program to the ingress of link #{interface}")))?,
        ))
    }
}

impl IngressLink {
    /// Whether the program still sees packets: nobody has detached it, and the interface is there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn is_attached(&self) -> Result<bool> {
        Ok(object::word(&object::info(&self.0)?, 16) != 0)
    }
}
