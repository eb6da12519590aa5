//! A rule in the terms of iptables: how `iptables -S` prints it, and what is sent to the kernel, in the order
//! in which `iptables-nft` writes it.

use std::fmt;

use weft_nftables::{
    self as nft, Expression, Family, Match, Name, Operand, Operator, Statement, Value, Verdict, Xt, XtState,
};
use weft_types::{IpNetwork, Protocol};

use super::names::word;

/// The bit of a packet's mark that says that it is to be masqueraded: kube-proxy's by default.
pub(super) const MASQUERADE_MARK: u32 = 0x4000;

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) source: Option<Is<IpNetwork>>,
    pub(super) destination: Option<Is<IpNetwork>>,
    /// The name of the interface that a packet came by; one that ends with `*` stands for all that begin so.
    pub(super) input: Option<Is<Name>>,
    pub(super) protocol: Option<Protocol>,
    /// What else is asked for, in order.
    pub(super) matches: Vec<Matching>,
    pub(super) target: Target,
}

/// What something must be, or must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Is<T> {
    Equal(T),
    Not(T),
}

/// What a rule asks for besides addresses, interface and protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Matching {
    /// A match that nf_tables has no expression for.
    Xt(Xt),
    /// The rule's protocol, and a destination port: `-m tcp --dport 80`
    Port(Protocol, u16),
    /// `-m conntrack --ctstate NEW`
    State(State),
    /// Whether the packet is to be masqueraded: `-m mark --mark 0x4000/0x4000`
    Marked(Is<()>),
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Invalid,
    New,
    RelatedOrEstablished,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The next rule is asked.
    #[default]
    Nothing,
    Jump(Name),
    Return,
    Accept,
    Drop,
    /// A target that nf_tables has no expression for.
    Xt(Xt),
}

impl<T> Is<T> {
    fn parts(&self) -> (Operator, &T) {
        match self {
            Is::Equal(value) => (Operator::Equal, value),
            Is::Not(value) => (Operator::NotEqual, value),
        }
    }

    /// What iptables writes before the match.
    fn sign(&self) -> &'static str {
        match self {
            Is::Equal(_) => "",
            Is::Not(_) => "! ",
        }
    }
}

impl State {
    /// `XT_CONNTRACK_STATE_BIT`, and `XT_CONNTRACK_STATE_INVALID`
    fn bits(self) -> u32 {
        match self {
            State::Invalid => 1,
            State::RelatedOrEstablished => 2 | 4,
            State::New => 8,
        }
    }

    fn words(self) -> &'static str {
        match self {
            State::Invalid => "INVALID",
            State::RelatedOrEstablished => "RELATED,ESTABLISHED",
            State::New => "NEW",
        }
    }
}

impl Rule {
    /// One for all packets, with a remark.
    pub(super) fn commented(comment: impl AsRef<str>) -> Rule {
        Rule::default().and(Matching::Xt(Xt::Comment(comment.as_ref().into())))
    }

    /// The same that asks for more.
    pub(super) fn and(mut self, matching: Matching) -> Rule {
        self.matches.push(matching);
        self
    }

    pub(super) fn from(self, source: Is<IpNetwork>) -> Rule {
        Rule { source: Some(source), ..self }
    }

    pub(super) fn to(self, destination: Is<IpNetwork>) -> Rule {
        Rule { destination: Some(destination), ..self }
    }

    pub(super) fn via(self, input: Is<Name>) -> Rule {
        Rule { input: Some(input), ..self }
    }

    /// The same for one protocol, whose match stands behind all others so far.
    pub(super) fn of(self, protocol: Protocol, matching: Matching) -> Rule {
        Rule { protocol: Some(protocol), ..self.and(matching) }
    }

    pub(super) fn at(self, protocol: Protocol, port: u16) -> Rule {
        self.of(protocol, Matching::Port(protocol, port))
    }

    pub(super) fn then(self, target: Target) -> Rule {
        Rule { target, ..self }
    }

    pub(super) fn jump(self, chain: &Name) -> Rule {
        self.then(Target::Jump(chain.clone()))
    }

    /// What is sent to the kernel for a table of that family.
    pub(super) fn encoded(&self, family: Family) -> nft::Rule {
        let mut statements = Vec::new();
        if let Some(input) = &self.input {
            let (operator, name) = input.parts();
            statements.push(Statement::compare(Expression::IIFNAME, operator, name.clone()));
        }
        if let Some(protocol) = self.protocol {
            let number = Value::Protocol(protocol.number());
            statements.push(Statement::compare(Expression::L4PROTO, Operator::Equal, number));
        }
        let addresses =
            [(&self.source, Expression::saddr(family)), (&self.destination, Expression::daddr(family))];
        for (address, expression) in addresses {
            if let Some(address) = address {
                let (operator, network) = address.parts();
                statements.push(Statement::compare(expression, operator, operand(network)));
            }
        }
        statements.extend(self.matches.iter().map(Matching::encoded));
        statements.push(Statement::Counter { packets: 0, bytes: 0 });
        statements.extend(self.target.encoded());
        nft::Rule::new(statements)
    }
}

/// A single address is compared whole.
fn operand(network: &IpNetwork) -> Operand {
    let whole = if network.is_ipv4() { 32 } else { 128 };
    match network.prefix() == whole {
        true => Operand::Value(Value::Address(network.ip())),
        false => Operand::Network(*network),
    }
}

impl Matching {
    fn encoded(&self) -> Statement {
        match self {
            Matching::Xt(xt) => Statement::Xt(xt.clone()),
            // nf_tables reads the ports of TCP and UDP; iptables-nft knows those of SCTP by its own match
            // alone.
            Matching::Port(Protocol::Sctp, port) => {
                Statement::Xt(Xt::Transport(Protocol::Sctp.number(), Some(*port)))
            }
            Matching::Port(_, port) => {
                Statement::compare(Expression::DPORT, Operator::Equal, Value::Port(*port))
            }
            Matching::State(state) => {
                let bits = Operand::Bits(Value::XtState(state.bits()));
                Statement::compare(XtState.into(), Operator::Equal, bits)
            }
            Matching::Marked(is) => {
                let bit = Value::Mark(MASQUERADE_MARK);
                let value = Operand::Masked { mask: bit, value: bit };
                Statement::Match(Match { expression: vec![Expression::MARK], operator: is.parts().0, value })
            }
        }
    }
}

impl Target {
    fn encoded(&self) -> Option<Statement> {
        Some(match self {
            Target::Nothing => return None,
            Target::Jump(chain) => Statement::Verdict(Verdict::Jump(chain.clone())),
            Target::Return => Statement::Verdict(Verdict::Return),
            Target::Accept => Statement::Verdict(Verdict::Accept),
            Target::Drop => Statement::Verdict(Verdict::Drop),
            Target::Xt(xt) => Statement::Xt(xt.clone()),
        })
    }
}

/// The rule as `iptables -S` prints it behind `-A CHAIN`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        for (address, flag) in [(&self.source, "-s"), (&self.destination, "-d")] {
            words.extend(address.iter().map(|is| format!("{}{flag} {}", is.sign(), is.parts().1)));
        }
        if let Some(input) = &self.input {
            // iptables writes the rest of a name as "+".
            words.push(format!("{}-i {}", input.sign(), input.parts().1.replace('*', "+")));
        }
        words.extend(self.protocol.map(|protocol| format!("-p {}", word(protocol))));
        words.extend(self.matches.iter().map(ToString::to_string));
        match &self.target {
            Target::Nothing => {}
            Target::Jump(chain) => words.push(format!("-j {chain}")),
            Target::Return => words.push("-j RETURN".to_owned()),
            Target::Accept => words.push("-j ACCEPT".to_owned()),
            Target::Drop => words.push("-j DROP".to_owned()),
            Target::Xt(xt) => words.push(xt.to_string()),
        }
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matching::Xt(xt) => xt.fmt(f),
            Matching::Port(protocol, port) => write!(f, "-m {} --dport {port}", word(*protocol)),
            Matching::State(state) => write!(f, "-m conntrack --ctstate {}", state.words()),
            Matching::Marked(is) => {
                write!(f, "-m mark {}--mark {MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x}", is.sign())
            }
        }
    }
}
