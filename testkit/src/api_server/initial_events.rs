//! How a watch that is to begin with all objects (KEP-3157) does begin.

/// What the server does about `sendInitialEvents` (KEP-3157).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialEvents {
    /// It sends all objects, and a bookmark that says that these are all.
    Sent,
    /// It finds it invalid, as servers do that lack it.
    Refused,
    /// It does not know it, and sends all objects, as to any watch from nowhere on.
    Unknown,
    /// It sends all objects, and then a bookmark that says nothing of them.
    Unmarked,
    /// It ends the answer after so many objects.
    BreakOff(usize),
    /// It says after so many objects that their version is gone, and ends the answer.
    Gone(usize),
}

impl InitialEvents {
    /// Whether the answer ends there.
    pub(super) fn breaks_off(self) -> bool {
        matches!(self, InitialEvents::BreakOff(_) | InitialEvents::Gone(_))
    }
}
