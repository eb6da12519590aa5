//! The client's state machine (RFC 2131 section 4.4): what it is told and when it is in, what it sends out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::lease::{Lease, Station, Term};
use crate::message::{Kind, Message, option};

#[cfg(test)]
mod tests;

/// What the times between two messages begin with, and end with (RFC 2131 section 4.1).
const FIRST_PAUSE: Duration = Duration::from_secs(4);
const LAST_PAUSE: Duration = Duration::from_secs(64);
/// How often a server that made an offer is asked for it before all are asked again.
const REQUESTS: u32 = 3;
/// For how long a lease that ended is asked for again before it is given up: the container still has its
/// address.
const RECLAIM: Duration = Duration::from_secs(30);
/// The most that goes by between two messages that prolong a lease (RFC 2131 section 4.4.5 has it as the
/// least, too, by which a lease of two minutes would have one try).
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// How many answers that were of no use are remembered.
const COMPLAINTS: usize = 4;

/// Who the client is to servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// By what servers know it (option 61).
    pub id: Vec<u8>,
    /// What it tells besides; goes before all else of the same number.
    pub provided: BTreeMap<u8, Vec<u8>>,
    /// What it wants to be told (option 55).
    pub requested: BTreeSet<u8>,
    /// Whether its interface hears broadcasts alone before it has an address.
    pub broadcast: bool,
}

/// Numbers that nobody can foresee.
pub type Chance = Box<dyn FnMut() -> u32 + Send>;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// It.
    pub message: Message,
    /// The address that it comes from; unspecified where the client has none.
    pub from: Ipv4Addr,
    /// Whom it is for; everybody where it is nobody.
    pub to: Option<Station>,
}

/// What a message, or time, changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a lease, or it was prolonged: [`Client::lease`].
    Leased,
    /// There is none any more, and nothing more will come.
    Over(Loss),
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// For how long servers were asked in vain.
    pub after: Duration,
    /// What they said that was of no use.
    pub complaints: Vec<String>,
}

/// A client.
pub struct Client {
    identity: Identity,
    chance: Chance,
    lease: Option<Lease>,
    /// When the lease is to be renewed, when any server is asked, when it ends.
    times: Option<[Instant; 3]>,
    state: State,
    complaints: Vec<String>,
}

/// A question that is asked again and again.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    xid: u32,
    began: Instant,
    /// How many messages went out.
    sent: u32,
    again: Instant,
}

#[derive(Clone, Debug)]
enum State {
    /// Every server is asked for an address, until the second time.
    Selecting(Exchange, Instant),
    /// One is asked for what it offered; then all again.
    Requesting {
        exchange: Exchange,
        offer: Lease,
        selecting: Exchange,
        until: Instant,
    },
    Bound,
    Renewing(Exchange),
    Rebinding(Exchange),
    Over,
}

impl Client {
    /// A client without a lease, which gives up at that time.
    pub fn new(identity: Identity, chance: Chance, now: Instant, until: Instant) -> Client {
        let mut client =
            Client { identity, chance, lease: None, times: None, state: State::Over, complaints: Vec::new() };
        client.state = State::Selecting(client.exchange(now), until);
        client
    }

    /// A client that got a lease so long ago, and has not looked after it since. It asks for it at once.
    pub fn resume(identity: Identity, chance: Chance, lease: Lease, age: Duration, now: Instant) -> Client {
        let mut client = Client::new(identity, chance, now, now + RECLAIM);
        let left = |seconds: u32| now + Duration::from_secs(seconds.into()).saturating_sub(age);
        client.times = lease.term.map(|term| [now, left(term.rebind), left(term.end)]);
        client.lease = Some(lease);
        client.state = match client.times {
            Some([_, _, end]) if end <= now => client.state,
            Some([_, rebind, _]) if rebind <= now => State::Rebinding(client.exchange(now)),
            // For ever, as far as is known.
            _ => State::Renewing(client.exchange(now)),
        };
        client
    }

    /// What it has.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// When it is to be told the time at the latest; never, where nothing is to come.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Selecting(exchange, until) => Some(exchange.again.min(*until)),
            State::Requesting { exchange, until, .. } => Some(exchange.again.min(*until)),
            State::Bound => self.times.map(|[renew, _, _]| renew),
            State::Renewing(exchange) => {
                Some(self.times.map_or(exchange.again, |[_, rebind, _]| exchange.again.min(rebind)))
            }
            State::Rebinding(exchange) => {
                Some(self.times.map_or(exchange.again, |[_, _, end]| exchange.again.min(end)))
            }
            State::Over => None,
        }
    }

    /// Time goes on: what is to be sent, and what that changes.
    pub fn tick(&mut self, now: Instant) -> (Option<Transmit>, Option<Change>) {
        let [renew, rebind, end] = match self.times {
            Some(times) => times.map(|time| time <= now),
            None => [false; 3],
        };
        match self.state.clone() {
            State::Selecting(exchange, until) if until <= now => self.give_up(exchange, now),
            State::Requesting { selecting, until, .. } if until <= now => self.give_up(selecting, now),
            State::Selecting(exchange, until) if exchange.again <= now => {
                let exchange = self.sent(exchange, now);
                self.state = State::Selecting(exchange, until);
                (Some(self.to_all(Kind::Discover, &exchange, now)), None)
            }
            State::Requesting { exchange, selecting, until, .. }
                if exchange.again <= now && exchange.sent >= REQUESTS =>
            {
                self.state = State::Selecting(Exchange { xid: (self.chance)(), ..selecting }, until);
                self.tick(now)
            }
            State::Requesting { exchange, offer, selecting, until } if exchange.again <= now => {
                let exchange = self.sent(exchange, now);
                let request = self.request_offer(&exchange, &offer, now);
                self.state = State::Requesting { exchange, offer, selecting, until };
                (Some(request), None)
            }
            State::Bound if renew => {
                self.state = State::Renewing(self.exchange(now));
                self.tick(now)
            }
            State::Renewing(_) if rebind => {
                self.state = State::Rebinding(self.exchange(now));
                self.tick(now)
            }
            State::Rebinding(_) if end => self.reclaim(now, now + RECLAIM),
            State::Renewing(exchange) if exchange.again <= now => {
                let exchange = self.prolonging(exchange, 1, now);
                self.state = State::Renewing(exchange);
                (self.prolong(&exchange, now, true), None)
            }
            State::Rebinding(exchange) if exchange.again <= now => {
                let exchange = self.prolonging(exchange, 2, now);
                self.state = State::Rebinding(exchange);
                (self.prolong(&exchange, now, false), None)
            }
            _ => (None, None),
        }
    }

    /// A message came, from that Ethernet address.
    pub fn receive(
        &mut self,
        message: &Message,
        mac: [u8; 6],
        now: Instant,
    ) -> (Option<Transmit>, Option<Change>) {
        let nothing = (None, None);
        let is_ours = message.is_reply && message.chaddr == self.identity.mac;
        let (true, Some(kind)) = (is_ours, message.kind()) else { return nothing };
        let xid = |exchange: &Exchange| exchange.xid == message.xid;
        match (self.state.clone(), kind) {
            (State::Selecting(exchange, until), Kind::Offer) if xid(&exchange) => {
                let wanted = self.lease.as_ref().map(|lease| lease.address.ip());
                match self.usable(message, mac) {
                    Some(offer) if wanted.is_none_or(|wanted| wanted == offer.address.ip()) => {
                        // The same xid, as RFC 2131 table 5 has it.
                        let request = Exchange { sent: 0, began: now, again: now, ..exchange };
                        self.state =
                            State::Requesting { exchange: request, offer, selecting: exchange, until };
                        self.tick(now)
                    }
                    Some(offer) => {
                        self.complain(format!(
                            "server {} offers {}",
                            offer.server.address,
                            offer.address.ip()
                        ));
                        nothing
                    }
                    None => nothing,
                }
            }
            (State::Requesting { exchange, offer, .. }, Kind::Ack) if xid(&exchange) => {
                match self.usable(message, mac) {
                    Some(lease) if lease.address.ip() == offer.address.ip() => {
                        self.bind(lease, exchange.began)
                    }
                    _ => nothing,
                }
            }
            (State::Requesting { exchange, offer, selecting, until }, Kind::Nak) if xid(&exchange) => {
                if message.address(option::SERVER) == Some(offer.server.address) {
                    self.complain(refusal(message));
                    // With the pauses that there would have been: nobody is to be kept busy by refusals.
                    self.state = State::Selecting(Exchange { xid: (self.chance)(), ..selecting }, until);
                }
                nothing
            }
            (State::Renewing(exchange) | State::Rebinding(exchange), Kind::Ack) if xid(&exchange) => {
                let held = self.lease.clone();
                match self.usable(message, mac).zip(held) {
                    Some((lease, held)) if lease.address.ip() == held.address.ip() => {
                        self.bind(held.prolonged(&lease), exchange.began)
                    }
                    _ => nothing,
                }
            }
            (State::Renewing(exchange), Kind::Nak) if xid(&exchange) => {
                let server = self.lease.as_ref().map(|lease| lease.server.address);
                if message.address(option::SERVER) != server {
                    return nothing;
                }
                self.refused(message, now)
            }
            (State::Rebinding(exchange), Kind::Nak) if xid(&exchange) => self.refused(message, now),
            _ => nothing,
        }
    }

    /// The address is given back. What is to be said to its server, where there is one.
    pub fn release(&mut self) -> Option<Transmit> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let lease = self.lease.take()?;
        if !matches!(state, State::Bound | State::Renewing(_) | State::Rebinding(_)) {
            return None;
        }
        let xid = (self.chance)();
        let mut message = self.message(Kind::Release, xid);
        message.ciaddr = lease.address.ip();
        // Neither what is provided nor what is requested goes with it (RFC 2131 table 5).
        message.options.retain(|number, _| [option::MESSAGE_TYPE, option::CLIENT_ID].contains(number));
        message.options.insert(option::SERVER, lease.server.address.octets().to_vec());
        Some(Transmit { message, from: lease.address.ip(), to: Some(lease.server) })
    }

    fn bind(&mut self, lease: Lease, asked: Instant) -> (Option<Transmit>, Option<Change>) {
        self.times = lease.term.map(|Term { renew, rebind, end }| {
            [renew, rebind, end].map(|seconds| asked + Duration::from_secs(seconds.into()))
        });
        self.lease = Some(lease);
        self.state = State::Bound;
        self.complaints.clear();
        (None, Some(Change::Leased))
    }

    /// A server that may says that the address is not the client's. RFC 2131 section 4.4.5 has the client
    /// begin anew, and a container cannot be given another address: so the same one is asked for.
    fn refused(&mut self, message: &Message, now: Instant) -> (Option<Transmit>, Option<Change>) {
        self.complain(refusal(message));
        self.reclaim(now, now + RECLAIM)
    }

    fn reclaim(&mut self, now: Instant, until: Instant) -> (Option<Transmit>, Option<Change>) {
        self.state = State::Selecting(self.exchange(now), until);
        self.tick(now)
    }

    fn give_up(&mut self, exchange: Exchange, now: Instant) -> (Option<Transmit>, Option<Change>) {
        self.state = State::Over;
        self.lease = None;
        let loss = Loss {
            after: now.duration_since(exchange.began),
            complaints: std::mem::take(&mut self.complaints),
        };
        (None, Some(Change::Over(loss)))
    }

    fn usable(&mut self, message: &Message, mac: [u8; 6]) -> Option<Lease> {
        Lease::of(message, mac).map_err(|complaint| self.complain(complaint)).ok()
    }

    fn complain(&mut self, complaint: String) {
        if !self.complaints.contains(&complaint) && self.complaints.len() < COMPLAINTS {
            self.complaints.push(complaint);
        }
    }

    fn exchange(&mut self, now: Instant) -> Exchange {
        Exchange { xid: (self.chance)(), began: now, sent: 0, again: now }
    }

    /// Twice the time each time, give or take a second.
    fn sent(&mut self, exchange: Exchange, now: Instant) -> Exchange {
        let pause = FIRST_PAUSE.saturating_mul(1 << exchange.sent.min(10)).min(LAST_PAUSE);
        let pause = pause - Duration::from_secs(1) + Duration::from_millis(u64::from((self.chance)() % 2000));
        Exchange { sent: exchange.sent + 1, again: now + pause, ..exchange }
    }

    /// Half of what is left until the time of that place.
    fn prolonging(&mut self, exchange: Exchange, place: usize, now: Instant) -> Exchange {
        let left = self.times.map_or(RENEWAL_PAUSE * 2, |times| times[place].saturating_duration_since(now));
        let pause = (left / 2).max(RENEWAL_PAUSE.min(FIRST_PAUSE));
        Exchange { sent: exchange.sent + 1, again: now + pause, ..exchange }
    }

    /// What every message begins with.
    fn message(&self, kind: Kind, xid: u32) -> Message {
        let Identity { mac, id, provided, requested, .. } = &self.identity;
        let mut options = BTreeMap::from([(option::CLIENT_ID, id.clone())]);
        if !requested.is_empty() {
            options.insert(option::PARAMETERS, requested.iter().copied().collect());
        }
        options.extend(provided.iter().map(|(number, value)| (*number, value.clone())));
        options.insert(option::MESSAGE_TYPE, vec![kind as u8]);
        Message { xid, chaddr: *mac, options, ..Message::default() }
    }

    fn to_all(&self, kind: Kind, exchange: &Exchange, now: Instant) -> Transmit {
        let mut message = self.message(kind, exchange.xid);
        message.broadcast = self.identity.broadcast;
        message.secs = u16::try_from(now.duration_since(exchange.began).as_secs()).unwrap_or(u16::MAX);
        if let Some(lease) = &self.lease {
            message.options.insert(option::REQUESTED_ADDRESS, lease.address.ip().octets().to_vec());
        }
        Transmit { message, from: Ipv4Addr::UNSPECIFIED, to: None }
    }

    fn request_offer(&self, exchange: &Exchange, offer: &Lease, now: Instant) -> Transmit {
        let mut request = self.to_all(Kind::Request, exchange, now);
        let options = &mut request.message.options;
        options.insert(option::REQUESTED_ADDRESS, offer.address.ip().octets().to_vec());
        options.insert(option::SERVER, offer.server.address.octets().to_vec());
        request
    }

    /// To its server, or to all (RFC 2131 section 4.3.2: neither option 50 nor 54).
    fn prolong(&self, exchange: &Exchange, now: Instant, is_renewal: bool) -> Option<Transmit> {
        let lease = self.lease.as_ref()?;
        let mut message = self.message(Kind::Request, exchange.xid);
        message.ciaddr = lease.address.ip();
        message.secs = u16::try_from(now.duration_since(exchange.began).as_secs()).unwrap_or(u16::MAX);
        Some(Transmit { message, from: lease.address.ip(), to: is_renewal.then_some(lease.server) })
    }
}

/// A NAK, in words.
fn refusal(message: &Message) -> String {
    let server =
        message.address(option::SERVER).map_or_else(|| "a server".to_owned(), |it| format!("server {it}"));
    let words = message.options.get(&option::MESSAGE).map(|text| String::from_utf8_lossy(text).into_owned());
    let printable = |text: String| text.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
    match words.map(printable) {
        Some(words) if !words.is_empty() => format!("{server} refuses ({words})"),
        _ => format!("{server} refuses"),
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.after.as_secs();
        match self.complaints.as_slice() {
            [] => write!(f, "no DHCP server answered within {seconds} s"),
            complaints => write!(f, "no address within {seconds} s: {}", complaints.join("; ")),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.identity)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
