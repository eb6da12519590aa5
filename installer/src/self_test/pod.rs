//! What a pod of the self-test does: it answers with its name, and it asks the Service, by its name.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Subcommand;

/// The port that it serves on.
const PORT: u16 = 8093;
/// How long a connection may take, and an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What every answer begins with.
const GREETING: &str = "weft self-test: ";

/// A pod's part in the self-test.
#[derive(Subcommand, Clone, Debug)]
pub enum Part {
    /// Answer every connection with this pod's name.
    Serve,
    /// Connect to a name and port, and expect such an answer.
    Ask {
        /// NAME:PORT
        service: String,
    },
}

/// Plays its part: serves for ever, or asks once and prints the answer.
///
/// # Errors
/// Where the port cannot be had; where the name, the connection or the answer fails.
pub fn run(part: &Part) -> io::Result<()> {
    match part {
        Part::Serve => serve(&listen()?),
        Part::Ask { service } => {
            print!("{}", ask(service)?);
            Ok(())
        }
    }
}

/// On all addresses of both families, or of the one that there is.
fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let name = nix::unistd::gethostname().map_err(io::Error::from)?;
    let answer = format!("{GREETING}{}\n", name.to_string_lossy());
    loop {
        // A client that went before it was answered is nobody's trouble.
        if let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(answer.as_bytes());
        }
    }
}

fn ask(service: &str) -> io::Result<String> {
    let addresses: Vec<SocketAddr> = service.to_socket_addrs()?.collect();
    let refused = io::Error::new(io::ErrorKind::NotFound, format!("{service} has no address"));
    let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, PATIENCE);
    let mut stream = addresses.iter().map(connect).reduce(io::Result::or).unwrap_or(Err(refused))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with(GREETING) {
        true => Ok(answer),
        false => Err(io::Error::other(format!("{service} answers as somebody else: {answer:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_from_the_self_test_and_nobody_else() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let answers = ["weft self-test: pod1\n", "SSH-2.0\n"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                other.accept().unwrap().0.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(ask(&address).unwrap(), answers[0]);
        assert!(ask(&address).unwrap_err().to_string().contains("somebody else"));
        server.join().unwrap();
        assert!(ask(&address).is_err(), "nobody listens any more");
    }
}
