//! Truth tables: who reaches whom, over which port, protocol and family.

use std::fmt;

use weft_types::Protocol;

/// The namespaces of the cases.
pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
/// The pods in each of them.
pub(super) const PODS: [&str; 3] = ["a", "b", "c"];
/// The ports on which each pod serves, by TCP and by UDP.
pub(super) const PORTS: [u16; 2] = [80, 81];
/// How many pods there are.
pub(super) const COUNT: usize = NAMESPACES.len() * PODS.len();
/// How many ways there are from one pod to another.
const WAYS: usize = 8;

/// `x/a` and so on, in the order of the tables.
pub(super) fn name(pod: usize) -> String {
    format!("{}/{}", NAMESPACES[pod / PODS.len()], PODS[pod % PODS.len()])
}

/// One way from a pod to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The place of the family among a pod's addresses.
    pub(super) family: usize,
}

impl Way {
    /// All ways, in the order of the bits of a cell.
    pub(super) fn all() -> [Way; WAYS] {
        std::array::from_fn(|bit| Way {
            port: PORTS[bit & 1],
            protocol: if bit & 2 == 0 { Protocol::Tcp } else { Protocol::Udp },
            family: bit >> 2,
        })
    }

    /// `80`, `TCP` or `80/TCP`: is this way meant? Everything is by an empty text.
    fn is_meant_by(&self, text: &str) -> bool {
        let (protocol, port) = (self.protocol.to_string(), self.port.to_string());
        let is_meant = |part: &str| part.eq_ignore_ascii_case(&protocol) || part == port;
        text.split('/').filter(|part| !part.is_empty()).all(is_meant)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} IPv{}", self.port, self.protocol, [4, 6][self.family])
    }
}

/// Who reaches whom: a bit for each way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table(Vec<u8>);

impl Table {
    /// Filled by a question asked of every pair and way.
    pub(super) fn of(mut reaches: impl FnMut(usize, usize, Way) -> bool) -> Table {
        let mut table = Table(vec![0; COUNT * COUNT]);
        for from in 0..COUNT {
            for to in 0..COUNT {
                for (bit, way) in Way::all().into_iter().enumerate() {
                    table.set(from, to, bit, reaches(from, to, way));
                }
            }
        }
        table
    }

    /// Everybody reaches everybody.
    pub(super) fn open() -> Table {
        Table(vec![u8::MAX; COUNT * COUNT])
    }

    /// What both tables say.
    pub(super) fn and(&self, other: &Table) -> Table {
        Table(self.0.iter().zip(&other.0).map(|(one, other)| one & other).collect())
    }

    /// A way from each pod to each where the other table says otherwise, if there is one.
    pub(super) fn changes(&self, other: &Table) -> Table {
        let first = |(one, other): (&u8, &u8)| {
            let differing = one ^ other;
            differing & differing.wrapping_neg()
        };
        Table(self.0.iter().zip(&other.0).map(first).collect())
    }

    pub(super) fn set(&mut self, from: usize, to: usize, bit: usize, reaches: bool) {
        let cell = &mut self.0[from * COUNT + to];
        *cell = *cell & !(1 << bit) | u8::from(reaches) << bit;
    }

    pub(super) fn has(&self, from: usize, to: usize, bit: usize) -> bool {
        self.0[from * COUNT + to] >> bit & 1 == 1
    }

    /// What differs from the expected table, for every way that does: both tables, side by side.
    pub(super) fn difference(&self, expected: &Table) -> String {
        let mut text = String::from("rows: from, columns: to; .: reached, X: not, !: differs\n");
        for (bit, way) in Way::all().into_iter().enumerate() {
            let differs = |from: usize, to: usize| self.has(from, to, bit) != expected.has(from, to, bit);
            let any = (0..COUNT * COUNT).any(|cell| differs(cell / COUNT, cell % COUNT));
            if !any {
                continue;
            }
            text += &format!("{way}:\n{:<5}{:<11}{:<11}\n", "", "expected", "seen");
            for from in 0..COUNT {
                let row = |table: &Table| -> String {
                    (0..COUNT).map(|to| if table.has(from, to, bit) { '.' } else { 'X' }).collect()
                };
                let marks: String = (0..COUNT).map(|to| if differs(from, to) { '!' } else { ' ' }).collect();
                text += &format!("{:<5}{:<11}{:<11}{marks}\n", name(from), row(expected), row(self));
            }
        }
        text
    }
}

/// A table in words: everybody reaches everybody, but for these lines, of which later ones win.
#[derive(Clone, Debug, Default)]
pub(super) struct Expectation(Vec<(&'static str, &'static str, &'static str, bool)>);

/// Everybody reaches everybody.
pub(super) fn open() -> Expectation {
    Expectation::default()
}

impl Expectation {
    /// These do not reach those. Pods are `x/a`, `x/*`, `*/a` or `*`; ways `80`, `TCP`, `80/TCP`, or all by
    /// an empty text.
    pub(super) fn deny(mut self, from: &'static str, to: &'static str, ways: &'static str) -> Expectation {
        self.0.push((from, to, ways, false));
        self
    }

    /// These do reach those.
    pub(super) fn allow(mut self, from: &'static str, to: &'static str, ways: &'static str) -> Expectation {
        self.0.push((from, to, ways, true));
        self
    }

    /// The table. A pod always reaches itself.
    pub(super) fn table(&self) -> Table {
        let means = |text: &str, pod: usize| {
            let (namespace, own) = text.split_once('/').unwrap_or((text, "*"));
            (namespace == "*" || namespace == NAMESPACES[pod / PODS.len()])
                && (own == "*" || own == PODS[pod % PODS.len()])
        };
        Table::of(|from, to, way| {
            let line = self.0.iter().rev().find(|(sources, targets, ways, _)| {
                means(sources, from) && means(targets, to) && way.is_meant_by(ways)
            });
            from == to || line.is_none_or(|line| line.3)
        })
    }
}
