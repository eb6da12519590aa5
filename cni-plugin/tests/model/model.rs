//! What must be, after which call with which outcome. Pure: the kernel and the plugin are looked at
//! elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// The containers and the networks that the calls are about. An interface is one network's.
pub(crate) const CONTAINERS: [&str; 7] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6"];
pub(crate) const NETWORKS: [Network; 2] = [
    Network { name: "weft", ifname: "eth0", bridge: "cni0", capacity: 5, masquerades: false },
    Network { name: "blue", ifname: "eth1", bridge: "cni1", capacity: 13, masquerades: true },
];

/// A network that containers are attached to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    /// The interface by which a container is attached to it.
    pub(crate) ifname: &'static str,
    pub(crate) bridge: &'static str,
    /// How many containers find an address. Fewer than there are containers, on one of them.
    pub(crate) capacity: usize,
    /// Whether it has `ipMasq`; containers of the other one have a port of the host each.
    pub(crate) masquerades: bool,
}

/// A container on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attachment {
    pub(crate) container: &'static str,
    pub(crate) network: &'static Network,
}

impl Attachment {
    /// What a runtime passes as `portMappings`.
    pub(crate) fn ports(&self) -> Value {
        let place = CONTAINERS.iter().position(|known| *known == self.container);
        match place.filter(|_| !self.network.masquerades) {
            Some(place) => json!([{"hostPort": 8000 + place, "containerPort": 80, "protocol": "tcp"}]),
            None => json!([]),
        }
    }
}

impl Network {
    /// What a runtime passes as `bandwidth`: CHECK names a limit that is not there.
    pub(crate) fn limits(&self) -> Value {
        match self.masquerades {
            true => {
                json!({"ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 800_000})
            }
            false => json!({}),
        }
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.network.ifname)
    }
}

/// What is known of an attachment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// Nothing of it exists.
    Absent,
    /// All that this result of ADD tells exists.
    Attached(Value),
    /// A call was killed, or the namespace vanished: any part of it may exist.
    Torn,
}

/// What is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Add,
    Del,
    /// With this result of ADD.
    Check(Value),
    /// Of the attachment's network, with these valid.
    Gc(Vec<Attachment>),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Killed,
    /// What it printed, as `Ok` where it exited with 0.
    Ended(Result<Value, Value>),
}

/// What is known of all attachments.
pub(crate) struct Model {
    states: BTreeMap<Attachment, State>,
}

/// Why an ADD may fail although its container is not attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Excuse {
    /// There may be no address for it.
    pub(crate) full: bool,
    /// The container has no namespace.
    pub(crate) no_namespace: bool,
}

impl Model {
    pub(crate) fn new() -> Model {
        let all = CONTAINERS.iter().flat_map(|container| {
            NETWORKS.iter().map(move |network| (Attachment { container, network }, State::Absent))
        });
        Model { states: all.collect() }
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = (&Attachment, &State)> {
        self.states.iter()
    }

    pub(crate) fn state(&self, attachment: Attachment) -> &State {
        &self.states[&attachment]
    }

    /// A container's namespace is deleted: its interfaces go with it, at the kernel's leisure.
    pub(crate) fn vanish(&mut self, container: &str) {
        for (attachment, state) in &mut self.states {
            if attachment.container == container && *state != State::Absent {
                *state = State::Torn;
            }
        }
    }

    /// Takes note of how a call ended. `Err` says what must not be.
    pub(crate) fn note(
        &mut self,
        attachment: Attachment,
        command: &Command,
        outcome: &Outcome,
        excuse: Excuse,
    ) -> Result<(), String> {
        if let Command::Gc(valid) = command {
            return self.collect(attachment.network, valid, outcome);
        }
        let before = self.state(attachment).clone();
        let after = match command {
            Command::Add => after_add(before, outcome, excuse),
            Command::Del => after_del(before, outcome),
            Command::Check(_) => after_check(before, outcome),
            Command::Gc(_) => Ok(before),
        };
        self.states.insert(attachment, after?);
        Ok(())
    }

    fn collect(&mut self, network: &Network, valid: &[Attachment], outcome: &Outcome) -> Result<(), String> {
        if let Outcome::Ended(Err(error)) = outcome {
            return Err(format!("GC failed: {error}"));
        }
        let stale = |attachment: &Attachment| attachment.network == network && !valid.contains(attachment);
        for (_, state) in self.states.iter_mut().filter(|(attachment, _)| stale(attachment)) {
            *state = match (&state, outcome) {
                (State::Absent, _) => State::Absent,
                (_, Outcome::Killed) => State::Torn,
                (_, Outcome::Ended(_)) => State::Absent,
            };
        }
        Ok(())
    }
}

fn after_add(before: State, outcome: &Outcome, excuse: Excuse) -> Result<State, String> {
    match (before, outcome) {
        (State::Attached(result), Outcome::Killed | Outcome::Ended(Err(_))) => Ok(State::Attached(result)),
        (State::Attached(_), Outcome::Ended(Ok(_))) => Err("a second ADD succeeded".to_owned()),
        (_, Outcome::Killed) => Ok(State::Torn),
        (_, Outcome::Ended(Ok(result))) => Ok(State::Attached(result.clone())),
        (State::Torn, Outcome::Ended(Err(_))) => Ok(State::Torn),
        (State::Absent, Outcome::Ended(Err(error))) => match error["code"].as_u64() {
            Some(100) if excuse.full => Ok(State::Absent),
            Some(4) if excuse.no_namespace => Ok(State::Absent),
            _ => Err(format!("ADD failed without a reason: {error}")),
        },
    }
}

fn after_del(before: State, outcome: &Outcome) -> Result<State, String> {
    match (before, outcome) {
        (State::Absent, Outcome::Killed) | (_, Outcome::Ended(Ok(_))) => Ok(State::Absent),
        (_, Outcome::Killed) => Ok(State::Torn),
        (_, Outcome::Ended(Err(error))) => Err(format!("DEL failed: {error}")),
    }
}

fn after_check(before: State, outcome: &Outcome) -> Result<State, String> {
    match (&before, outcome) {
        (State::Attached(_), Outcome::Ended(Err(error))) => Err(format!("CHECK failed: {error}")),
        (State::Absent, Outcome::Ended(Ok(_))) => Err("CHECK of what does not exist succeeded".to_owned()),
        _ => Ok(before),
    }
}
