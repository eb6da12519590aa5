//! The VXLAN tunnel to the other nodes: `plan` says what the device is and knows, `device` makes it so.
//! `checksum` decides whether the network card's offload spoils what is inside, `checksum_test` tries it.

pub mod checksum;
pub mod checksum_test;
pub(crate) mod device;
pub mod plan;
