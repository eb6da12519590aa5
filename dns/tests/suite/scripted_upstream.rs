//! An upstream that behaves as a test says, over UDP and TCP. No test lives here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};

use crate::peers::{bind_both, read_framed, write_framed};

/// A query as it came.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) message: Message,
    pub(crate) tcp: bool,
}

impl Asked {
    /// The name as it was spelled.
    pub(crate) fn name(&self) -> String {
        self.message.queries[0].name.to_ascii()
    }

    /// A reply without records.
    pub(crate) fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = self.message.clone();
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.recursion_available = true;
        reply.metadata.authentic_data = false;
        reply.metadata.response_code = code;
        reply
    }

    /// A reply with the address 192.0.2.`last`.
    pub(crate) fn address(&self, last: u8, ttl: u32) -> Message {
        let mut reply = self.reply(ResponseCode::NoError);
        let name = self.message.queries[0].name.clone();
        reply.answers = vec![Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, last)))];
        reply
    }
}

/// The upstream. Ends when it is dropped.
pub(crate) struct ScriptedUpstream {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What is sent for a query, byte for byte.
type Behaviour = dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync;

impl ScriptedUpstream {
    /// One that replies with what `behave` gives, if anything.
    pub(crate) fn start(
        behave: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        let one =
            move |asked: &Asked| behave(asked).map(|reply| reply.to_vec().unwrap()).into_iter().collect();
        ScriptedUpstream::launch(Arc::new(one), true, Duration::ZERO)
    }

    /// The same at that address.
    pub(crate) fn start_at(
        address: SocketAddr,
        behave: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        let one =
            move |asked: &Asked| behave(asked).map(|reply| reply.to_vec().unwrap()).into_iter().collect();
        ScriptedUpstream::launch_at(address, Arc::new(one), true, Duration::ZERO)
    }

    /// The same, which takes so long for each answer, however many it is asked for at a time.
    pub(crate) fn start_slow(
        takes: Duration,
        behave: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        let one =
            move |asked: &Asked| behave(asked).map(|reply| reply.to_vec().unwrap()).into_iter().collect();
        ScriptedUpstream::launch(Arc::new(one), true, takes)
    }

    /// The same without TCP.
    pub(crate) fn without_tcp(
        behave: impl Fn(&Asked) -> Option<Message> + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        let one =
            move |asked: &Asked| behave(asked).map(|reply| reply.to_vec().unwrap()).into_iter().collect();
        ScriptedUpstream::launch(Arc::new(one), false, Duration::ZERO)
    }

    /// One that sends all these datagrams.
    pub(crate) fn raw(behave: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> ScriptedUpstream {
        ScriptedUpstream::launch(Arc::new(behave), true, Duration::ZERO)
    }

    fn launch(behave: Arc<Behaviour>, with_tcp: bool, takes: Duration) -> ScriptedUpstream {
        ScriptedUpstream::launch_at(([127, 0, 0, 1], 0).into(), behave, with_tcp, takes)
    }

    fn launch_at(
        address: SocketAddr,
        behave: Arc<Behaviour>,
        with_tcp: bool,
        takes: Duration,
    ) -> ScriptedUpstream {
        let (tcp, udp) = bind_both(address);
        let address = tcp.local_addr().unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (asked, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let mut threads = vec![std::thread::spawn({
            let (asked, stop, behave) = (asked.clone(), stop.clone(), behave.clone());
            move || {
                let mut buffer = [0; 4096];
                while !stop.load(Ordering::SeqCst) {
                    let Ok((length, client)) = udp.recv_from(&mut buffer) else { continue };
                    let question = note(&asked, &buffer[..length], false);
                    let (replies, udp) = (behave(&question), udp.try_clone().unwrap());
                    let send = move || replies.iter().for_each(|reply| drop(udp.send_to(reply, client)));
                    if takes.is_zero() {
                        send();
                    } else {
                        std::thread::spawn(move || {
                            std::thread::sleep(takes);
                            send();
                        });
                    }
                }
            }
        })];
        if with_tcp {
            let (asked, stop) = (asked.clone(), stop.clone());
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let Ok((mut stream, _)) = tcp.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    stream.set_nonblocking(false).unwrap();
                    let question = note(&asked, &read_framed(&mut stream), true);
                    behave(&question).iter().for_each(|reply| write_framed(&mut stream, reply));
                }
            }));
        }
        ScriptedUpstream { address, asked, stop, threads }
    }

    /// All queries for addresses that came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Notes a query; those that the server asks on its own behalf, which are for no addresses, are not noted.
fn note(asked: &Mutex<Vec<Asked>>, bytes: &[u8], tcp: bool) -> Asked {
    let message = Message::from_vec(bytes).unwrap();
    let mut all = asked.lock().unwrap();
    let question = Asked { message, tcp };
    if question.message.queries[0].query_type == RecordType::A {
        all.push(question.clone());
    }
    question
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the upstream panicked");
        }
    }
}
