//! eBPF: programs written instruction by instruction, the maps that they share with processes, and their
//! attachment to cgroups. What they are for is not known here.
//!
//! ```text
//! Assembler -> [Instruction] -> Program::load -> Link::attach(cgroup) -> Link::pin
//! Map::create -> Map::pin                        Link::open -> Link::update     (a later process)
//! ```

mod assembler;
mod instruction;
mod map;
mod object;
mod program;
mod syscall;

pub use assembler::{Assembler, Label};
pub use instruction::{Helper, Instruction, Register, Size};
pub use map::{Map, MapKind, MapSpec};
pub use object::is_bpffs;
pub use program::{AttachType, Link, Program};
