//! What the agent, the proxy and the DNS server start and end with: the log, the runtime, the signals that
//! end them, the HTTP for probes and scrapers, and the name of their Node. What a daemon is there for is not
//! here.

mod address;
mod error;
mod http;
mod log;
mod node_name;
mod process;
mod program;
mod signals;

pub use address::address;
pub use error::{Error, bind_hint};
pub use http::{listen, open_metrics, serve};
pub use log::LogFormat;
pub use node_name::node_name;
pub use program::{block_on, block_on_all_cores, exit_code};
pub use signals::Signals;
