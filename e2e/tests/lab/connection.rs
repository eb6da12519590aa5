//! An HTTP connection that stays open over several requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use weft_lab::netns;

/// How long an answer may take: long enough for lost segments to be sent again.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open connection to an echo server.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Opens one from inside a namespace.
    pub(crate) fn open(namespace: &str, server: SocketAddr) -> Result<Connection, String> {
        let connect = move || {
            let stream = TcpStream::connect_timeout(&server, PATIENCE);
            Ok(stream.and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream)))
        };
        let stream = netns::run(namespace, connect).map_err(|error| error.to_string())?;
        let stream = stream.map_err(|error| format!("cannot connect to {server}: {error}"))?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// One request on the open connection. Gives the server's name.
    pub(crate) fn ask(&mut self) -> Result<String, String> {
        self.exchange().map_err(|error| format!("the open connection: {error}"))
    }

    fn exchange(&mut self) -> std::io::Result<String> {
        self.reader.get_mut().write_all(b"GET /hostname HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::Error::other("closed by the server"));
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
