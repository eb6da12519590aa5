//! A random walk: chooses calls, makes them, and compares what is there with the model.

use std::collections::{BTreeMap, VecDeque};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::call::{Call, Kill};
use crate::model::{Attachment, CONTAINERS, Command, Excuse, Model, NETWORKS, Outcome, State};
use crate::node::Node;
use weft_testkit::dice::Dice;

/// Kinds of system calls at which the plugin is killed, and up to which one of them.
const INSTANTS: [(&str, usize); 9] = [
    ("sendto", 48),
    ("openat", 24),
    ("write", 12),
    ("linkat,link", 3),
    ("unlink,unlinkat", 4),
    ("setns", 2),
    ("recvfrom", 80),
    ("close", 24),
    ("flock", 3),
];
/// How many of the last steps a failure tells of.
const REMEMBERED: usize = 12;

struct Walk {
    dice: Dice,
    node: Node,
    model: Model,
    /// The last result of ADD, of those that were attached once.
    results: BTreeMap<Attachment, Value>,
    calls: usize,
    history: VecDeque<String>,
}

/// Walks so many steps and cleans up. Returns how many calls were made.
pub(crate) fn walk(seed: u64, steps: u64) -> usize {
    let (dice, node, model) = (Dice::new(seed), Node::new(), Model::new());
    let mut walk = Walk { dice, node, model, results: BTreeMap::new(), calls: 0, history: VecDeque::new() };
    for step in 0..steps {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk.step()));
        if let Err(panic) = failed {
            eprintln!(
                "seed {seed}, step {step}: WEFT_MODEL_SEED={seed} WEFT_MODEL_STEPS={} repeats it.",
                step + 1
            );
            walk.history.iter().for_each(|line| eprintln!("  {line}"));
            std::panic::resume_unwind(panic);
        }
    }
    walk.clean_up();
    walk.calls
}

impl Walk {
    fn step(&mut self) {
        if self.dice.one_in(12) {
            self.replace_a_namespace();
        }
        let calls = if self.dice.one_in(14) { vec![self.collection()] } else { self.some() };
        let before = calls.iter().map(|call| self.excuse(&calls, call)).collect::<Vec<_>>();
        let (node, data_dir) = (&self.node.namespace, &self.node.data_dir());
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let running: Vec<_> =
                calls.iter().map(|call| scope.spawn(move || call.make(node, data_dir))).collect();
            running.into_iter().map(|call| call.join().unwrap()).collect()
        });
        for ((call, outcome), excuse) in calls.iter().zip(&outcomes).zip(before) {
            self.note(call, outcome, excuse);
        }
        self.compare();
    }

    fn note(&mut self, call: &Call, outcome: &Outcome, excuse: Excuse) {
        self.calls += 1;
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        let ended = match outcome {
            Outcome::Killed => "killed".to_owned(),
            Outcome::Ended(Ok(result)) => result["ips"].to_string(),
            Outcome::Ended(Err(error)) => error.to_string(),
        };
        let line = format!("{} {} {:?}: {ended}", call.command.name(), call.attachment, call.kill);
        self.history.push_back(line);
        if let (Command::Add, Outcome::Ended(Ok(result))) = (&call.command, outcome) {
            self.results.insert(call.attachment, result.clone());
        }
        let noted = self.model.note(call.attachment, &call.command, outcome, excuse);
        noted.unwrap_or_else(|what| panic!("{}: {what}", call.attachment));
    }

    fn compare(&self) {
        let found = self.node.look();
        let all: Vec<Attachment> = self.model.states().map(|(attachment, _)| *attachment).collect();
        found.assert_known(&all);
        for (attachment, state) in self.model.states() {
            found.assert_is(attachment, state, self.node.has_namespace(attachment.container));
        }
    }

    fn replace_a_namespace(&mut self) {
        let container = *self.dice.pick(&CONTAINERS);
        match self.node.has_namespace(container) {
            true => {
                self.node.vanish(container);
                self.model.vanish(container);
            }
            false => self.node.revive(container),
        }
        self.history.push_back(format!("the namespace of {container} changes"));
    }

    /// One to three calls for as many attachments, to be made at once.
    fn some(&mut self) -> Vec<Call> {
        let mut calls: Vec<Call> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let attachment = Attachment {
                container: self.dice.pick::<&str>(&CONTAINERS),
                network: self.dice.pick(&NETWORKS),
            };
            if calls.iter().any(|call| call.attachment == attachment) {
                continue;
            }
            let command = self.command(attachment);
            let kill = self.kill();
            calls.push(self.call(attachment, command, kill));
        }
        calls
    }

    fn call(&mut self, attachment: Attachment, command: Command, kill: Kill) -> Call {
        // A runtime may not know the namespace any more when it calls DEL.
        let unknown =
            command == Command::Del && !self.node.has_namespace(attachment.container) && self.dice.one_in(2);
        let netns = self.node.netns(attachment.container).display().to_string();
        Call { attachment, command, netns: if unknown { String::new() } else { netns }, kill }
    }

    /// Mostly what makes sense in the attachment's state, and also what does not.
    fn command(&mut self, attachment: Attachment) -> Command {
        let likely = match self.model.state(attachment) {
            State::Absent => [Command::Add, Command::Add, Command::Add, Command::Del],
            State::Attached(_) | State::Torn => [Command::Del, Command::Del, Command::Add, Command::Del],
        };
        match self.results.get(&attachment) {
            Some(result) if self.dice.one_in(4) => Command::Check(result.clone()),
            _ => self.dice.pick(&likely).clone(),
        }
    }

    fn kill(&mut self) -> Kill {
        match self.dice.below(8) {
            0 => Kill::After(Duration::from_micros(self.dice.below(12_000) as u64)),
            1 => {
                let (kind, most) = *self.dice.pick(&INSTANTS);
                Kill::At(kind, 1 + self.dice.below(most))
            }
            _ => Kill::Never,
        }
    }

    /// GC with most of what is attached as valid.
    fn collection(&mut self) -> Call {
        let network = self.dice.pick(&NETWORKS);
        let attached = self.model.states().filter(|(_, state)| matches!(state, State::Attached(_)));
        let attached: Vec<Attachment> = attached.map(|(attachment, _)| *attachment).collect();
        let valid = attached
            .into_iter()
            .filter(|attachment| attachment.network == network && !self.dice.one_in(4))
            .collect();
        let kill = self.kill();
        self.call(Attachment { container: CONTAINERS[0], network }, Command::Gc(valid), kill)
    }

    fn excuse(&self, calls: &[Call], call: &Call) -> Excuse {
        let network = call.attachment.network;
        let adds = calls
            .iter()
            .filter(|call| call.command == Command::Add && call.attachment.network == network)
            .count();
        Excuse {
            full: self.node.taken(network.name) + adds > network.capacity,
            no_namespace: !self.node.has_namespace(call.attachment.container),
        }
    }

    /// After the runtime forgot everything, garbage collection leaves nothing.
    fn clean_up(&mut self) {
        for network in &NETWORKS {
            let attachment = Attachment { container: CONTAINERS[0], network };
            let call = self.call(attachment, Command::Gc(Vec::new()), Kill::Never);
            let outcome = call.make(&self.node.namespace, &self.node.data_dir());
            self.note(&call, &outcome, Excuse::default());
        }
        self.compare();
        self.node.assert_clean();
    }
}
