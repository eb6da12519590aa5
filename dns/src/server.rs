//! The DNS sockets, served until told to stop. Each transport is a file that implements [`Listen`]; what is
//! answered is the handler's business.

mod batch;
pub mod certificate;
mod connections;
mod doh;
#[cfg(feature = "quic")]
mod doh3;
#[cfg(feature = "quic")]
mod doq;
pub mod handover;
mod listen;
mod plain;
mod queue;
#[cfg(feature = "quic")]
mod quic;
mod session;
mod sockets;
mod tcp;
mod tls;
mod udp;
mod udp_worker;

pub use connections::Limits;
pub use listen::{Listen, Stop};
pub use plain::Listener;
#[cfg(feature = "quic")]
pub use quic::{Quic, QuicListener};
pub use tls::{Secure, SecureListener};
