//! Who is let in, from what is remembered of tokens, and how much is asked. It takes the time, and reads none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use weft_types::well_known::access::{ACCOUNT, AUDIENCE, HEADER, NAMESPACE};

/// For how long it is remembered that a token is good: so long one that was revoked still is.
const GOOD_FOR: Duration = Duration::from_secs(120);
/// For how long it is remembered that a token is not.
const BAD_FOR: Duration = Duration::from_secs(10);
/// So many tokens are remembered.
const TOKENS: usize = 64;
/// The longest token that is looked at, in bytes.
const LONGEST: usize = 8192;
/// How many answers all together get: at once, and then a second.
const ANSWERS: Rate = Rate { at_once: 120.0, a_second: 30.0 };
/// How many tokens that nobody knows yet a client may show.
const REVIEWS: Rate = Rate { at_once: 10.0, a_second: 2.0 };
/// The API server is asked about tokens of so many clients at a time.
const CLIENTS: usize = 1024;

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is of the account that may ask.
    Good,
    /// It is of nobody: false, or expired, or for another audience.
    Invalid,
    /// It is somebody else's.
    Of(String),
}

/// Why somebody gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They show no token, or nothing that could be one.
    NoToken,
    /// Theirs is not valid.
    Invalid,
    /// Theirs is of somebody who may not ask.
    Of(String),
    /// They, or all, ask too much.
    TooMany,
    /// The API server does not say whose the token is.
    Unverified(String),
}

/// What comes next for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is answered.
    Answer,
    /// It is not.
    Refuse(Refusal),
    /// The API server is asked whose the token is.
    Review(String),
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Gate {
    tokens: HashMap<String, (Verdict, Instant)>,
    clients: HashMap<IpAddr, Bucket>,
    answers: Bucket,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Gate {
        Gate { tokens: HashMap::new(), clients: HashMap::new(), answers: Bucket::full(ANSWERS, now) }
    }

    /// What becomes of a request of that client, with what it shows as a token.
    pub(super) fn step(&mut self, token: Option<&[u8]>, client: IpAddr, now: Instant) -> Step {
        let token = token.filter(|token| token.len() <= LONGEST && token.iter().all(u8::is_ascii_graphic));
        let token = token.and_then(|token| std::str::from_utf8(token).ok()).filter(|token| !token.is_empty());
        let Some(token) = token else { return Step::Refuse(Refusal::NoToken) };
        let known = self.tokens.get(token).filter(|(_, until)| *until > now);
        match known.map(|(verdict, _)| verdict.clone()) {
            Some(verdict) => self.judge(verdict, now),
            None if self.may_have_reviewed(client, now) => Step::Review(token.to_owned()),
            None => Step::Refuse(Refusal::TooMany),
        }
    }

    /// Whose a token is, by the API server: what becomes of the request that showed it.
    pub(super) fn reviewed(&mut self, token: String, user: Option<String>, now: Instant) -> Step {
        let verdict = match user {
            Some(user) if user == account() => Verdict::Good,
            Some(user) => Verdict::Of(user),
            None => Verdict::Invalid,
        };
        let until = now + if verdict == Verdict::Good { GOOD_FOR } else { BAD_FOR };
        self.tokens.retain(|_, (_, until)| *until > now);
        if self.tokens.len() >= TOKENS {
            let next =
                self.tokens.iter().min_by_key(|(_, (_, until))| *until).map(|(token, _)| token.clone());
            next.map(|next| self.tokens.remove(&next));
        }
        self.tokens.insert(token, (verdict.clone(), until));
        self.judge(verdict, now)
    }

    fn judge(&mut self, verdict: Verdict, now: Instant) -> Step {
        match verdict {
            Verdict::Good if self.answers.take(now) => Step::Answer,
            Verdict::Good => Step::Refuse(Refusal::TooMany),
            Verdict::Invalid => Step::Refuse(Refusal::Invalid),
            Verdict::Of(user) => Step::Refuse(Refusal::Of(user)),
        }
    }

    fn may_have_reviewed(&mut self, client: IpAddr, now: Instant) -> bool {
        if self.clients.len() >= CLIENTS {
            self.clients.retain(|_, bucket| !bucket.is_full(now));
        }
        let client = group(client);
        let is_known = self.clients.contains_key(&client);
        let may = is_known || self.clients.len() < CLIENTS;
        may && self.clients.entry(client).or_insert_with(|| Bucket::full(REVIEWS, now)).take(now)
    }
}

/// The name by which the API server knows the account that may ask.
fn account() -> String {
    format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
}

/// A client may have all addresses of a /64 of IPv6.
fn group(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Refusal {
    /// The code of the answer (RFC 9110 section 15).
    pub(super) fn code(&self) -> u16 {
        match self {
            Refusal::NoToken | Refusal::Invalid => 401,
            Refusal::Of(_) => 403,
            Refusal::TooMany => 429,
            Refusal::Unverified(_) => 503,
        }
    }

    /// What is so, and what to do.
    pub(super) fn text(&self) -> String {
        let needed = format!(
            "what is needed is one of ServiceAccount {NAMESPACE}/{ACCOUNT} for the audience {AUDIENCE}, as weft makes \
             them, or kubectl -n {NAMESPACE} create token {ACCOUNT} --audience {AUDIENCE}"
        );
        match self {
            Refusal::NoToken => format!("no token in the header {HEADER}: {needed}\n"),
            Refusal::Invalid => format!("the token is not valid, or not any more: {needed}\n"),
            Refusal::Of(user) => format!("the token is of {user}: {needed}\n"),
            Refusal::TooMany => "the agent is asked too much; ask again in a second\n".to_owned(),
            Refusal::Unverified(problem) => {
                format!(
                    "the API server does not tell this agent whose the token is: {problem}; see the agent's log\n"
                )
            }
        }
    }
}

/// How much of something there may be.
#[derive(Clone, Copy, Debug)]
struct Rate {
    at_once: f64,
    a_second: f64,
}

/// A token bucket.
#[derive(Clone, Debug)]
struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, level: rate.at_once, at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + gone * self.rate.a_second).min(self.rate.at_once)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.level(now) >= self.rate.at_once
    }

    fn take(&mut self, now: Instant) -> bool {
        (self.level, self.at) = (self.level(now), now);
        let has = self.level >= 1.0;
        self.level -= if has { 1.0 } else { 0.0 };
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "system:serviceaccount:kube-system:weft-reader";

    fn client(last: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + last))
    }

    /// What becomes of a token that the API server says is that user's.
    fn shown(gate: &mut Gate, token: &str, user: Option<&str>, now: Instant) -> Step {
        match gate.step(Some(token.as_bytes()), client(1), now) {
            Step::Review(token) => gate.reviewed(token, user.map(str::to_owned), now),
            step => step,
        }
    }

    #[test]
    fn only_the_reader_s_tokens_are_good_and_for_a_while() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        assert_eq!(shown(&mut gate, "good", Some(READER), start), Step::Answer);
        // As long as it is remembered, nobody is asked.
        let soon = start + Duration::from_secs(119);
        assert_eq!(gate.step(Some(b"good"), client(2), soon), Step::Answer);
        let later = start + GOOD_FOR;
        assert_eq!(gate.step(Some(b"good"), client(2), later), Step::Review("good".to_owned()));
        assert_eq!(shown(&mut gate, "good", None, later), Step::Refuse(Refusal::Invalid), "it was revoked");
        for user in ["system:serviceaccount:default:weft-reader", "weft-reader", "system:admin", ""] {
            let refused = Step::Refuse(Refusal::Of(user.to_owned()));
            let mut gate = Gate::new(start);
            assert_eq!(shown(&mut gate, "theirs", Some(user), start), refused);
            assert_eq!(gate.step(Some(b"theirs"), client(1), start), refused, "remembered");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_not_looked_at() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let long = "x".repeat(LONGEST + 1);
        for token in [None, Some(""), Some(" "), Some("a b"), Some("ä"), Some("a\0"), Some(long.as_str())] {
            let step = gate.step(token.map(str::as_bytes), client(1), start);
            assert_eq!(step, Step::Refuse(Refusal::NoToken), "{token:?}");
        }
        assert_eq!(gate.step(Some(b"\xff\xfe"), client(1), start), Step::Refuse(Refusal::NoToken));
    }

    #[test]
    fn who_guesses_tokens_keeps_nobody_else_from_asking() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let guess = |gate: &mut Gate, number: u32| {
            let step = gate.step(Some(format!("guess{number}").as_bytes()), client(1), start);
            matches!(step, Step::Review(_))
        };
        assert_eq!((0..100).filter(|number| guess(&mut gate, *number)).count(), 10);
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(gate.step(Some(b"x"), mapped, start), Step::Refuse(Refusal::TooMany), "the same client");
        assert_eq!(gate.step(Some(b"good"), client(2), start), Step::Review("good".to_owned()));
        assert_eq!(gate.reviewed("good".to_owned(), Some(READER.to_owned()), start), Step::Answer);
        let mut of_one_link = |last: u16| {
            let address = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
            matches!(gate.step(Some(b"x"), address, start), Step::Review(_))
        };
        assert_eq!((0..100).filter(|last| of_one_link(*last)).count(), 10);
        // Nor do many clients: what they asked is forgotten once it does not matter, and no more is kept.
        (0..5000).for_each(|last| drop(gate.step(Some(b"y"), client(last), start)));
        assert!(gate.clients.len() <= CLIENTS);
        let later = start + Duration::from_secs(60);
        assert!(matches!(gate.step(Some(b"y"), client(7000), later), Step::Review(_)));
        assert_eq!(gate.step(Some(b"good"), client(1), later), Step::Answer);
        // Nor many tokens.
        for number in 0..200 {
            gate.reviewed(format!("bad{number}"), None, later);
        }
        assert!(gate.tokens.len() <= TOKENS);
        assert_eq!(gate.step(Some(b"good"), client(1), later), Step::Answer, "it stays longer than those");
    }

    #[test]
    fn answers_are_so_many_a_second() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let mut answered = |after: f64| {
            let now = start + Duration::from_secs_f64(after);
            (0..1000).filter(|_| shown(&mut gate, "good", Some(READER), now) == Step::Answer).count()
        };
        assert_eq!([answered(0.0), answered(1.0), answered(1.5), answered(60.0)], [120, 30, 15, 120]);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (refusal, code, part) in [
            (
                Refusal::NoToken,
                401,
                "no token in the header weft-token: what is needed is one of ServiceAccount",
            ),
            (Refusal::Invalid, 401, "create token weft-reader --audience agent.weft.internal"),
            (Refusal::Of("jane".to_owned()), 403, "the token is of jane: what is needed"),
            (Refusal::TooMany, 429, "ask again"),
            (Refusal::Unverified("no answer".to_owned()), 503, "whose the token is: no answer"),
        ] {
            assert_eq!(refusal.code(), code);
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }
}
