//! The Container Network Interface's vocabulary (CNI SPEC 1.1.0): network configurations, calls, results, errors and
//! versions, as plain values. Reading the environment and the disk, and doing what a call asks for, is for the
//! plugins.

mod args;
mod call;
mod config;
mod dispatch;
mod failure;
mod json;
mod name;
mod success;
mod version;

pub use args::{Args, InvalidArgs};
pub use call::{Attachment, Call, InvalidEnvironment};
pub use config::{
    Bandwidth, BridgeOptions, CniArgs, DelegateArgs, Ipam, Network, NetworkList, Plugin, PortMapping, Range,
    RuntimeConfig, ValidAttachment, VlanTrunk,
};
pub use dispatch::{Handler, Invocation, Outcome, decode, dispatch, read_config};
pub use failure::{Code, Failure};
pub use json::parse;
pub use name::{ContainerId, InterfaceName, InvalidCniName, NetworkName};
pub use success::{Dns, Interface, IpConfig, NoAddress, Route, Success};
pub use version::{UnknownVersion, Version};
