//! What a pod of the self-test does: it answers with its name, over TCP and UDP, and it asks by names.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Duration;

use clap::Subcommand;

/// The port that it serves on.
const PORT: u16 = 8093;
/// How long a connection may take, and an answer. The probe that runs this has 5 seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// What every answer begins with.
const GREETING: &str = "weft self-test: ";

/// A container's part in the self-test.
#[derive(Subcommand, Clone, Debug)]
pub enum Part {
    /// Answer every connection and every datagram with this pod's name.
    Serve,
    /// Do nothing.
    Wait,
    /// Ask every address of a name, and expect such an answer of each.
    Ask {
        /// Ask by a datagram instead of a connection.
        #[arg(long)]
        udp: bool,
        /// NAME:PORT
        service: String,
    },
}

/// Plays its part: serves or waits for ever, or asks once and prints the answers.
///
/// # Errors
/// Where the port cannot be had; where the name, a connection or an answer fails.
pub fn run(part: &Part) -> io::Result<()> {
    match part {
        Part::Serve => serve(),
        Part::Wait => loop {
            thread::park();
        },
        Part::Ask { udp, service } => {
            let question = if *udp { ask_udp } else { ask_tcp };
            print!("{}", ask(service, question)?);
            Ok(())
        }
    }
}

/// All addresses of both families, or of the one that there is.
fn bind<T>(bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    bind((Ipv6Addr::UNSPECIFIED, PORT).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, PORT).into()))
}

fn serve() -> io::Result<()> {
    let name = nix::unistd::gethostname().map_err(io::Error::from)?;
    let answer = format!("{GREETING}{}\n", name.to_string_lossy());
    let (listener, socket) = (bind(TcpListener::bind)?, bind(UdpSocket::bind)?);
    let datagrams = answer.clone();
    thread::spawn(move || {
        loop {
            if let Ok((_, client)) = socket.recv_from(&mut [0; 1]) {
                let _ = socket.send_to(datagrams.as_bytes(), client);
            }
        }
    });
    loop {
        // A client that went before it was answered is nobody's trouble.
        if let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(answer.as_bytes());
        }
    }
}

/// Asks every address of a name: one that does not answer must not hide behind another.
fn ask(service: &str, question: impl Fn(SocketAddr) -> io::Result<String>) -> io::Result<String> {
    let mut answers = String::new();
    for address in service.to_socket_addrs()? {
        let told = |reason: String| io::Error::other(format!("{service}, {address}: {reason}"));
        let answer = question(address).map_err(|error| told(error.to_string()))?;
        if !answer.starts_with(GREETING) {
            return Err(told(format!("answers as somebody else: {answer:?}")));
        }
        answers.push_str(&answer);
    }
    match answers.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, format!("{service} has no address"))),
        false => Ok(answers),
    }
}

fn ask_tcp(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_udp(address: SocketAddr) -> io::Result<String> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
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
        assert_eq!(ask(&address, ask_tcp).unwrap(), answers[0]);
        assert!(ask(&address, ask_tcp).unwrap_err().to_string().contains("somebody else"));
        server.join().unwrap();
        assert!(ask(&address, ask_tcp).is_err(), "nobody listens any more");
    }
}
