//! What people see of the agents' answers: flows that are wanted, in order, and what is to be known besides.
//! Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_types::flow::FlowPage;

use super::flow::{Filter, Flow};
use super::names::Names;

/// How long losses of a node are summed up before they are said again.
const SUMMED: Duration = Duration::from_secs(5);

/// The view of all nodes.
#[derive(Debug)]
pub(super) struct View {
    pub(super) names: Names,
    filter: Filter,
    /// What was said of each node last.
    nodes: BTreeMap<String, Node>,
    /// The flows that wait to be shown, while those of other nodes may come before them.
    waiting: Option<Waiting>,
    /// It was said that bytes are not counted: mostly no node does, or all do.
    has_said_uncounted: bool,
}

/// Flows that wait: the latest of them.
#[derive(Debug)]
struct Waiting {
    flows: Vec<Flow>,
    most: usize,
    /// How many earlier ones there were.
    left_out: usize,
}

#[derive(Debug, Default)]
struct Node {
    since: u64,
    overruns: u64,
    /// How many events were forgotten, and how often the kernel lost some, since that was said last.
    losses: [u64; 2],
    said_losses: Option<Instant>,
    /// Each is said once.
    said: Vec<String>,
    fails: bool,
}

impl View {
    /// Gathers the latest flows that pass, up to so many, until they are shown.
    pub(super) fn new(names: Names, filter: Filter, most: usize) -> View {
        let waiting = Waiting { flows: Vec::new(), most, left_out: 0 };
        let nodes = BTreeMap::new();
        View { names, filter, nodes, waiting: Some(waiting), has_said_uncounted: false }
    }

    /// Takes in what a node's agent answers. Gives what is to be shown now, and what is to be said.
    pub(super) fn take(
        &mut self,
        node: &str,
        answer: Result<FlowPage, String>,
        now: Instant,
    ) -> (Vec<Flow>, Vec<String>) {
        let known = self.nodes.entry(node.to_owned()).or_default();
        let page = match answer {
            Ok(page) => page,
            Err(_) if known.fails => return (Vec::new(), Vec::new()),
            Err(problem) => {
                known.fails = true;
                return (Vec::new(), vec![format!("{node}: its flows are missing: {problem}")]);
            }
        };
        let mut notes = known.notes(node, &page);
        notes.extend(known.losses(node, now));
        if !page.counts_traffic && !std::mem::replace(&mut self.has_said_uncounted, true) {
            notes.push(format!(
                "{node} does not count packets and bytes; to have it do so: sysctl -w net.netfilter.nf_conntrack_acct=1"
            ));
        }
        let is_wanted =
            |flow: &Flow| !flow.is_told_by_an_answer(page.sees_questions) && self.filter.passes(flow);
        let own = page.flows.into_iter().filter(|event| self.names.is_told_by(node, event));
        let flows: Vec<Flow> =
            own.map(|event| Flow::new(node, event, &self.names)).filter(is_wanted).collect();
        match &mut self.waiting {
            None => (flows, notes),
            Some(waiting) => {
                waiting.flows.extend(flows);
                waiting.cut(4 * waiting.most);
                (Vec::new(), notes)
            }
        }
    }

    /// What was gathered, in the order of time. From now on, flows are shown as they come.
    pub(super) fn gathered(&mut self) -> (Vec<Flow>, Option<String>) {
        let Some(mut waiting) = self.waiting.take() else { return (Vec::new(), None) };
        waiting.cut(waiting.most);
        waiting.flows.sort_by_key(|flow| flow.event.time);
        let note = (waiting.left_out > 0)
            .then(|| format!("{} earlier flows are not shown: see --last", waiting.left_out));
        (waiting.flows, note)
    }

    /// The nodes that answered nothing but errors.
    pub(super) fn fail_all(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|node| node.fails)
    }
}

impl Waiting {
    /// Keeps the latest, where there are more than `limit`.
    fn cut(&mut self, limit: usize) {
        if self.flows.len() > limit {
            self.flows.sort_by_key(|flow| flow.event.time);
            let more = self.flows.len() - self.most;
            self.flows.drain(..more);
            self.left_out += more;
        }
    }
}

impl Node {
    fn notes(&mut self, node: &str, page: &FlowPage) -> Vec<String> {
        let mut notes = Vec::new();
        if self.fails {
            notes.push(format!("{node}: it answers again"));
            self.fails = false;
        }
        if self.since != page.since {
            if self.since != 0 {
                notes.push(format!("{node}: its agent began anew; what it remembered is gone"));
            }
            *self = Node { since: page.since, overruns: page.overruns, ..Node::default() };
        }
        self.losses[0] += page.lost;
        self.losses[1] += page.overruns.saturating_sub(self.overruns);
        self.overruns = page.overruns;
        for problem in &page.problems {
            if !self.said.contains(problem) {
                notes.push(format!("{node}: {problem}"));
                self.said.push(problem.clone());
            }
        }
        notes
    }

    /// What was lost since that was said last, unless that was just now.
    fn losses(&mut self, node: &str, now: Instant) -> Vec<String> {
        if self.losses == [0; 2] || self.said_losses.is_some_and(|said| now < said + SUMMED) {
            return Vec::new();
        }
        self.said_losses = Some(now);
        let [forgotten, overruns] = std::mem::take(&mut self.losses);
        let forgotten = (forgotten > 0).then(|| {
            format!(
                "{node}: {forgotten} events were forgotten before they could be read: more happens than this program takes"
            )
        });
        let overruns = (overruns > 0)
            .then(|| format!("{node}: the kernel could not tell of everything, {overruns} times"));
        forgotten.into_iter().chain(overruns).collect()
    }
}

#[cfg(test)]
mod tests {
    use weft_types::flow::FlowEvent;

    use super::super::names::tests::{event, names};
    use super::*;

    fn at(time: u64) -> FlowEvent {
        FlowEvent { time, ..event("10.244.0.2:4000", "10.96.0.7:5432", Some("10.244.1.3:5432")) }
    }

    fn page(times: &[u64]) -> FlowPage {
        let flows = times.iter().map(|time| at(*time)).collect();
        FlowPage { since: 1, counts_traffic: true, sees_questions: true, flows, ..FlowPage::default() }
    }

    fn times(flows: &[Flow]) -> Vec<u64> {
        flows.iter().map(|flow| flow.event.time).collect()
    }

    #[test]
    fn the_latest_of_all_nodes_are_gathered_in_order_and_then_shown_as_they_come() {
        let (mut view, now) = (View::new(names(), Filter::default(), 3), Instant::now());
        assert_eq!(view.take("node1", Ok(page(&[1, 5, 7])), now), (vec![], vec![]));
        let back = |time| FlowEvent { time, ..event("10.244.1.3:4000", "10.244.0.2:80", None) };
        let of_node2 = FlowPage { flows: vec![back(2), back(6), at(3)], ..page(&[]) };
        view.take("node2", Ok(of_node2), now);
        let (flows, note) = view.gathered();
        assert_eq!(times(&flows), [5, 6, 7]);
        assert_eq!(
            note.unwrap(),
            "2 earlier flows are not shown: see --last",
            "what node1 tells, node2 does not"
        );
        assert_eq!(times(&view.take("node1", Ok(page(&[9, 8])), now).0), [9, 8]);
    }

    #[test]
    fn no_more_waits_than_is_shown_at_the_end() {
        let mut view = View::new(names(), Filter::default(), 2);
        (0..100).for_each(|time| drop(view.take("node1", Ok(page(&[time, time])), Instant::now())));
        assert!(view.waiting.as_ref().unwrap().flows.len() <= 8);
        let (flows, note) = view.gathered();
        assert_eq!((times(&flows), note.unwrap().starts_with("198 earlier flows")), (vec![99, 99], true));
    }

    #[test]
    fn what_is_missing_is_said_once() {
        let (mut view, now) = (View::new(names(), Filter::default(), 3), Instant::now());
        let mut said = |answer: Result<FlowPage, String>| view.take("node1", answer, now).1;
        assert_eq!(said(Err("no route".into())), ["node1: its flows are missing: no route"]);
        assert!(said(Err("no route".into())).is_empty());
        assert_eq!(said(Ok(page(&[]))), ["node1: it answers again"]);
        let uncounted = FlowPage { counts_traffic: false, problems: vec!["DNS: no".into()], ..page(&[]) };
        let notes = said(Ok(uncounted.clone()));
        assert!(notes[0] == "node1: DNS: no" && notes[1].contains("nf_conntrack_acct=1"), "{notes:?}");
        assert!(said(Ok(uncounted.clone())).is_empty());
        let anew = "node1: its agent began anew; what it remembered is gone";
        assert_eq!(said(Ok(FlowPage { since: 2, ..page(&[]) })), [anew]);
        assert!(view.take("node2", Ok(FlowPage { problems: Vec::new(), ..uncounted }), now).1.is_empty());
        assert!(!view.fail_all());
    }

    #[test]
    fn losses_are_summed_up_and_not_a_line_for_each() {
        let (mut view, start) = (View::new(names(), Filter::default(), 3), Instant::now());
        let mut said = |lost, overruns, seconds| {
            let lossy = FlowPage { lost, overruns, ..page(&[]) };
            view.take("node1", Ok(lossy), start + Duration::from_secs(seconds)).1
        };
        assert!(said(0, 3, 0).is_empty(), "what was lost before is nobody's");
        let notes = said(7, 5, 0);
        assert!(notes[0].contains("7 events were forgotten") && notes[1].ends_with("2 times"), "{notes:?}");
        assert!(said(1, 6, 1).is_empty() && said(2, 6, 2).is_empty());
        let notes = said(0, 6, 5);
        assert!(notes[0].contains("3 events were forgotten") && notes[1].ends_with("1 times"), "{notes:?}");
        assert!(said(0, 6, 20).is_empty());
    }
}
