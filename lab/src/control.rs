//! How commands speak to the process that holds a lab: a line of JSON each way, on a socket in the lab's
//! folder.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nodes::Nodes;

/// What is asked of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Switch a node off.
    SwitchOff {
        /// Its name.
        node: String,
    },
    /// Switch a node on.
    SwitchOn {
        /// Its name.
        node: String,
        /// The number that its addresses go with.
        number: u8,
    },
}

/// Opens the socket.
pub fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).map_err(Error::io("listen on", path))
}

/// Serves one request after the other, for good.
pub fn serve(listener: &UnixListener, mut nodes: Nodes) {
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(|stream| answer(&stream, &mut nodes)) {
            tracing::warn!(%error, "a command went away");
        }
    }
}

fn answer(mut stream: &UnixStream, nodes: &mut Nodes) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let done = match serde_json::from_str(&line)? {
        Request::SwitchOff { node } => nodes.switch_off(&node),
        Request::SwitchOn { node, number } => nodes.switch_on(&node, number),
    };
    let answer: std::result::Result<(), String> = done.map_err(|error| error.to_string());
    writeln!(stream, "{}", serde_json::to_string(&answer)?)
}

/// Asks the lab that listens there, and waits until it is done.
pub fn ask(path: &Path, request: &Request) -> Result<()> {
    let exchange = || -> std::io::Result<std::result::Result<(), String>> {
        let mut stream = UnixStream::connect(path)?;
        writeln!(stream, "{}", serde_json::to_string(request)?)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    exchange().map_err(Error::io("ask the lab at", path))?.map_err(Error::Refused)
}
