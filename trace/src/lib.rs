//! A packet's way through one node: what is asked ([`Question`]), what a node answers ([`NodeTrace`]), and
//! how it is found ([`follow()`]): by the tables of nf_tables as they are, and by a [`Machine`] that says
//! what its kernel does with a packet. Reading the kernel is the agent's, and going from node to node is for
//! `weft trace`.

mod answer;
mod follow;
mod guide;
mod machine;
mod question;

pub use answer::{Cause, Chain, Doubt, End, NodeTrace, Socket, Step, Tuple};
pub use follow::follow;
pub use machine::{Entered, Machine, Packet, Routed};
pub use question::{Entry, Question, Translation};
