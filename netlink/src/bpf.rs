//! eBPF: programs written instruction by instruction, the maps that they share with processes, and their
//! attachment to cgroups and network interfaces. What they are for is not known here.
//!
//! ```text
//! Assembler -> [Instruction] -> Program::load -> Link::attach(cgroup) -> Link::pin
//! Map::create -> Map::pin                        Link::open -> Link::update     (a later process)
//! KernelTypes::read -> Assembler -> [Instruction] -> IngressProgram::load -> IngressProgram::attach(interface)
//! ```

mod assembler;
mod btf;
mod ingress;
mod instruction;
mod map;
mod object;
mod program;
mod syscall;

pub use assembler::{Assembler, Label};
pub use btf::{KernelFunction, KernelTypes};
pub use ingress::{IngressLink, IngressProgram};
pub use instruction::{Helper, Instruction, Register, Size};
pub use map::{Map, MapKind, MapSpec};
pub use object::is_bpffs;
pub use program::{AttachType, Link, Program};
