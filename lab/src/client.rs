//! The hidden `weft-lab client`: what a pod's own programs would do to check the network, run inside the
//! pod's namespaces. Prints one JSON line for each request, for the demo and the suites to read.

pub mod http;
pub mod lookup;

use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::error::Result;

/// A request to make.
#[derive(Subcommand, Clone, Debug)]
pub enum ClientCommand {
    /// HTTP GET, each time on a new connection
    Get {
        /// http://host[:port]/path
        url: String,
        /// How often
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Go on for that many milliseconds, whatever the count
        #[arg(long, default_value_t = 0)]
        for_ms: u64,
        /// How many milliseconds to wait between two requests
        #[arg(long, default_value_t = 0)]
        every_ms: u64,
        /// How many milliseconds one request may take
        #[arg(long, default_value_t = 2000)]
        timeout_ms: u64,
    },
    /// DNS lookup with the search path of /etc/resolv.conf
    Lookup {
        /// The name, as a program would give it
        host: String,
        /// The record type
        #[arg(default_value = "A")]
        record_type: String,
    },
}

/// Makes the requests and prints what came of them.
pub async fn run(command: ClientCommand) -> Result<()> {
    match command {
        ClientCommand::Lookup { host, record_type } => {
            print(&lookup::lookup(&host, &record_type).await?);
            Ok(())
        }
        ClientCommand::Get { url, count, for_ms, every_ms, timeout_ms } => {
            let target = http::Target::resolve(&url).await?;
            let end = Instant::now() + Duration::from_millis(for_ms);
            let mut made = 0;
            while made < count || Instant::now() < end {
                print(&target.get(Duration::from_millis(timeout_ms)));
                made += 1;
                std::thread::sleep(Duration::from_millis(every_ms));
            }
            Ok(())
        }
    }
}

fn print<T: serde::Serialize>(value: &T) {
    match serde_json::to_string(value) {
        Ok(line) => println!("{line}"),
        Err(error) => tracing::error!(%error, "cannot print the answer"),
    }
}
