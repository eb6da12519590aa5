//! nf_tables of the calling thread's network namespace: reads what it holds and commits transactions.

use std::collections::BTreeMap;
use std::ops::Range;

use super::counter::Counter;
use super::element::{self, Contents, Dumped};
use super::encode::{
    Encoded, FIRST_SEQUENCE, Parts, RULE_DIGEST, SUBSYSTEM, digest, generic_header, message,
};
use super::family::TableFamily;
use super::flowtable::Flowtable;
use super::observed::{Observed, ObservedBase, ObservedChain, ObservedSet, ObservedTable};
use super::owned::Owned;
use super::rule::{Rule, Statement, decode::decode};
use super::set::{Data, Declaration};
use super::shape::Shape;
use super::table::{Table, TableKey};
use super::transaction::Transaction;
use super::userdata;
use super::value::{Name, Tuple};
use weft_netlink::attribute::{Attributes, Writer};
use weft_netlink::{Error, Frame, Protocol, Request, Result, Socket};

/// `struct nfgenmsg`, which stands before the attributes.
pub(super) const GENERIC_HEADER: usize = 4;
/// `NFT_SET_ANONYMOUS`: a set that is part of a rule, and goes with it.
const ANONYMOUS: u32 = 1;
/// Flags of a set whose elements the kernel counts otherwise than it shows them: `NFT_SET_INTERVAL`,
/// `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`.
const COUNTED_OTHERWISE: u32 = 0x04 | 0x10 | 0x20;
/// How often an observation is started anew because something was committed meanwhile, or a set was not shown
/// whole.
const OBSERVE_ATTEMPTS: u32 = 10;

/// How many bytes of messages make a part of a load.
const PART: usize = 512 * 1024;

/// A connection to the kernel's nf_tables.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
}

impl Client {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<Client> {
        Ok(Client { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Whoever drops this does not wait for its end; see [`Socket::let_kernel_close`].
    pub fn let_kernel_close(&mut self) {
        self.socket.let_kernel_close();
    }

    /// Whether transactions of any size can be committed at once; see [`Socket::may_exceed_limits`].
    pub fn may_exceed_limits(&self) -> Result<bool> {
        self.socket.may_exceed_limits()
    }

    /// Reads these tables, all as they were at one moment.
    ///
    /// # Errors
    /// Whatever the kernel refuses; [`Error::DumpInterrupted`] where there is no moment of rest.
    pub fn observe(&mut self, tables: &[TableKey]) -> Result<Observed> {
        self.observe_at_rest(tables).map_err(|error| error.during("read nf_tables"))
    }

    fn observe_at_rest(&mut self, tables: &[TableKey]) -> Result<Observed> {
        for _ in 0..OBSERVE_ATTEMPTS {
            let before = self.generation()?;
            let observed = self.observe_once(tables);
            if self.generation()? != before {
                continue;
            }
            match observed {
                Err(Error::DumpInterrupted { .. }) => {}
                other => return other,
            }
        }
        Err(Error::DumpInterrupted { attempts: OBSERVE_ATTEMPTS })
    }

    /// The elements of a set with their owners; none where the set or its table does not exist.
    pub fn owned(&mut self, set: &Declaration) -> Result<Vec<Owned>> {
        self.each_element(set, Owned::parse)
    }

    /// What the elements of a counting set counted; none where the set or its table does not exist.
    pub fn counters(&mut self, set: &Declaration) -> Result<Vec<Counter>> {
        self.each_element(set, Counter::parse)
    }

    fn each_element<T>(
        &mut self,
        set: &Declaration,
        parse: fn(&Attributes<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let lists = self.dump(message::GET_ELEMENTS, set.family, Some(&set.table), Some(&set.name), |list| {
            list.nested(3).map(|(_, element)| parse(&Attributes(element))).collect::<Option<Vec<_>>>()
        });
        match lists {
            Ok(lists) => Ok(lists.into_iter().flatten().collect()),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error.during(format!("read {} {}", set.noun(), set.path()))),
        }
    }

    /// The rules of a table, by chain and in their order.
    ///
    /// # Errors
    /// [`Error::Foreign`] names a rule with an expression that this crate would not write.
    pub fn rules(&mut self, (family, table): &TableKey) -> Result<BTreeMap<Name, Vec<Rule>>> {
        let error = |error: Error| error.during(format!("read the rules of table {family} {table}"));
        let parse = |rule: &Attributes<'_>| parse_statements(*family, rule);
        let mut chains: BTreeMap<Name, Vec<Rule>> = BTreeMap::new();
        for (chain, rule) in self.dump(message::GET_RULE, *family, Some(table), None, parse).map_err(error)? {
            let unknown =
                |name| Error::Foreign(format!("a rule of chain {chain} has the expression \"{name}\""));
            chains.entry(chain.clone()).or_default().push(rule.map_err(unknown).map_err(error)?);
        }
        Ok(chains)
    }

    /// How many packets the counters of a chain's rules have seen; none where there is no such chain.
    pub fn counted(&mut self, (family, table): &TableKey, chain: &str) -> Result<u64> {
        let parse = |rule: &Attributes<'_>| {
            let counters =
                decode(*family, rule.nested(4)).statements.into_iter().map(|statement| match statement {
                    Statement::Counter { packets, .. } => packets,
                    _ => 0,
                });
            Some(counters.sum::<u64>())
        };
        // Rules have their chain's name where elements have that of their set.
        match self.dump(message::GET_RULE, *family, Some(table), Some(&chain.into()), parse) {
            Ok(rules) => Ok(rules.into_iter().sum()),
            Err(error) if error.is_missing() => Ok(0),
            Err(error) => Err(error.during(format!("read the counters of chain {family} {table} {chain}"))),
        }
    }

    /// What a set holds, one that packets write to as well; nothing where it is not there.
    pub fn held(&mut self, set: &Declaration) -> Result<BTreeMap<Tuple, Data>> {
        let header = SetHeader { shape: Shape::of(set), count: None };
        match self.elements(set.family, &set.table, &set.name, &header).map(|contents| contents.elements) {
            Err(error) if error.is_missing() => Ok(BTreeMap::new()),
            other => other.map_err(|error| error.during(format!("read {} {}", set.noun(), set.path()))),
        }
    }

    /// Whether the kernel has the rules of a table, as far as their digests tell. Cheaper than an
    /// observation.
    pub fn has_rules(&mut self, table: &Table) -> Result<bool> {
        let found = self.dump(message::GET_RULE, table.family, Some(&table.name), None, parse_rule).map_err(
            |error| error.during(format!("read the rules of table {} {}", table.family, table.name)),
        )?;
        let planned = table
            .chains
            .iter()
            .flat_map(|(name, chain)| chain.rules.iter().map(move |rule| (name.clone(), Some(digest(rule)))));
        let mut found: Vec<_> = found.into_iter().map(|(_, chain, digest)| (chain, digest)).collect();
        // Within a chain they stay in order.
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(planned.eq(found))
    }

    /// Applies a transaction, whole or not at all. An empty one does not reach the kernel.
    ///
    /// # Errors
    /// What the kernel refused first, under the name of the change that it refused.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<()> {
        self.commit_parts(transaction, usize::MAX).map(drop)
    }

    /// The same as [`Client::commit`]. Returns the number of the kernel's transaction by which
    /// [`super::Monitor`] announces it; none where others committed at the same time, so that it is not
    /// certain.
    ///
    /// # Errors
    /// As of [`Client::commit`].
    pub fn commit_numbered(&mut self, transaction: &Transaction) -> Result<Range<u32>> {
        self.number_parts(transaction, usize::MAX)
    }

    /// The same as [`Client::commit_numbered`], but what only adds may be large and is committed in parts, in
    /// its order: so neither this process nor the kernel ever holds the messages of all of it, and others
    /// come in between.
    ///
    /// # Errors
    /// As of [`Client::commit`]. Parts before the one that was refused stay.
    pub fn load(&mut self, transaction: &Transaction) -> Result<Range<u32>> {
        let limit = self.socket.send_limit(PART)?;
        self.number_parts(transaction, limit)
    }

    /// Commits part after part. Returns the numbers of the kernel's transactions, where they are certain.
    fn number_parts(&mut self, transaction: &Transaction, limit: usize) -> Result<Range<u32>> {
        let before = self.generation()?;
        let parts = self.commit_parts(transaction, limit)?;
        let after = self.generation()?;
        let own = |(before, after): (u32, u32)| {
            (before.wrapping_add(parts) == after).then_some(before + 1..after + 1)
        };
        Ok(before.zip(after).and_then(own).unwrap_or_default())
    }

    /// Commits part after part. Returns how many there were.
    fn commit_parts(&mut self, transaction: &Transaction, limit: usize) -> Result<u32> {
        let mut count = 0;
        for part in Parts::new(transaction, limit) {
            self.socket.batch(&part.batch, |_| Ok(())).map_err(|error| explain(error, &part, transaction))?;
            count += 1;
        }
        Ok(count)
    }

    fn observe_once(&mut self, wanted: &[TableKey]) -> Result<Observed> {
        let mut observed = Observed::default();
        for family in TableFamily::ALL {
            if !wanted.iter().any(|(wanted, _)| *wanted == family) {
                continue;
            }
            for (name, flags) in self.dump(message::GET_TABLE, family, None, None, parse_table)? {
                let key = (family, name);
                if wanted.contains(&key) {
                    let table = self.table(&key, flags)?;
                    observed.tables.insert(key, table);
                }
            }
        }
        Ok(observed)
    }

    fn table(&mut self, (family, name): &TableKey, flags: u32) -> Result<ObservedTable> {
        let family = *family;
        let mut table = ObservedTable { flags, ..ObservedTable::default() };
        for (owner, chain, base) in self.dump(message::GET_CHAIN, family, Some(name), None, parse_chain)? {
            // The kernel does not filter chains by table.
            if owner == *name {
                table.chains.insert(chain, ObservedChain { base, rules: Vec::new() });
            }
        }
        for (owner, chain, digest) in self.dump(message::GET_RULE, family, Some(name), None, parse_rule)? {
            if owner == *name {
                table.chains.entry(chain).or_default().rules.push(digest);
            }
        }
        for (owner, set, header) in self.dump(message::GET_SET, family, Some(name), None, parse_set)? {
            if let (true, Some(header)) = (owner == *name, header) {
                let Contents { elements, details } = match header.shape.is_expiring() {
                    true => Contents::default(),
                    false => self.elements(family, name, &set, &header)?,
                };
                table.sets.insert(set, ObservedSet { shape: header.shape, elements, details });
            }
        }
        for (owner, flowtable, held) in
            self.dump(message::GET_FLOWTABLE, family, Some(name), None, Flowtable::read)?
        {
            if owner == *name {
                table.flowtables.insert(flowtable, held);
            }
        }
        Ok(table)
    }

    /// While the kernel grows a set's hash table, which it does some time after a large commit, a dump misses
    /// elements and shows others twice, without a word. Kernels that count a set's elements let us know.
    fn elements(
        &mut self,
        family: TableFamily,
        table: &Name,
        set: &Name,
        header: &SetHeader,
    ) -> Result<Contents> {
        let lists = self.dump(message::GET_ELEMENTS, family, Some(table), Some(set), parse_elements)?;
        let contents =
            element::collect(header.shape.has_split_ranges(), lists.into_iter().flatten().collect());
        match header.count {
            Some(count) if contents.elements.len() < count as usize => {
                Err(Error::DumpInterrupted { attempts: 1 })
            }
            _ => Ok(contents),
        }
    }

    /// Every kind of object has its table's name in attribute 1, and elements that of their set in attribute
    /// 2.
    pub(super) fn dump<T>(
        &mut self,
        kind: u16,
        family: TableFamily,
        table: Option<&Name>,
        set: Option<&Name>,
        parse: impl Fn(&Attributes<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut payload = generic_header(family.number(), 0).to_vec();
        let mut writer = Writer(&mut payload);
        table.iter().for_each(|table| writer.string(1, table));
        set.iter().for_each(|set| writer.string(2, set));
        let request = Request { kind: SUBSYSTEM << 8 | kind, flags: 0, payload };
        self.socket.dump(request, |frame| parse_frame(frame, &parse))
    }

    /// The number of the last transaction that anybody committed, to whatever table.
    pub fn generation(&mut self) -> Result<Option<u32>> {
        let kind = SUBSYSTEM << 8 | message::GET_GENERATION;
        let request = Request { kind, flags: 0, payload: generic_header(0, 0).to_vec() };
        let answers = self.socket.query(request, |frame| parse_frame(frame, |answer| answer.u32(1)))?;
        Ok(answers.first().copied())
    }
}

/// Names the change that the kernel refused first.
fn explain(error: Error, part: &Encoded, transaction: &Transaction) -> Error {
    let change = match &error {
        Error::Batch(refusals) => refusals.iter().find_map(|refusal| {
            let message = refusal.sequence.checked_sub(FIRST_SEQUENCE)?;
            part.changes.get(message as usize).copied().flatten()
        }),
        _ => None,
    };
    error.during(match change {
        Some(index) => transaction.changes[index].summary(),
        None => "commit an nf_tables transaction".to_owned(),
    })
}

fn parse_frame<T>(frame: Frame<'_>, parse: impl Fn(&Attributes<'_>) -> Option<T>) -> Result<T> {
    let malformed = || Error::Malformed(format!("an nf_tables message of type {:#x}", frame.kind));
    let attributes = frame.payload.get(GENERIC_HEADER..).ok_or_else(malformed)?;
    parse(&Attributes(attributes)).ok_or_else(malformed)
}

pub(super) fn parse_table(table: &Attributes<'_>) -> Option<(Name, u32)> {
    Some((table.string(1)?.into(), table.u32(2).unwrap_or_default()))
}

pub(super) fn parse_chain(chain: &Attributes<'_>) -> Option<(Name, Name, Option<ObservedBase>)> {
    let hook = chain.nested(4);
    let base = chain.string(7).map(|kind| ObservedBase {
        kind: kind.to_owned(),
        hook: hook.u32(1).unwrap_or_default(),
        priority: hook.u32(2).unwrap_or_default() as i32,
        policy: chain.u32(5).unwrap_or_default(),
        device: hook.string(3).map(ToOwned::to_owned),
    });
    Some((chain.string(1)?.into(), chain.string(3)?.into(), base))
}

fn parse_rule(rule: &Attributes<'_>) -> Option<(Name, Name, Option<u64>)> {
    let digest = rule.get(7).and_then(find_digest);
    Some((rule.string(1)?.into(), rule.string(2)?.into(), digest))
}

/// A rule as statements, or what in it this crate would not write.
fn parse_statements(family: TableFamily, rule: &Attributes<'_>) -> Option<(Name, Result<Rule, String>)> {
    let comment = rule.get(7).and_then(userdata::comment).map(Name::from);
    let decoded = Rule { comment, ..decode(family, rule.nested(4)) };
    let other = decoded.statements.iter().find_map(|statement| match statement {
        Statement::Other(words, _) => Some(words.to_string()),
        _ => None,
    });
    Some((rule.string(2)?.into(), other.map_or(Ok(decoded), Err)))
}

/// The digest in a rule's user data.
pub(super) fn find_digest(userdata: &[u8]) -> Option<u64> {
    userdata::find(userdata, RULE_DIGEST)?.try_into().ok().map(u64::from_be_bytes)
}

/// A set apart from its elements.
struct SetHeader {
    shape: Shape,
    /// How many elements it has, where the kernel tells.
    count: Option<u32>,
}

/// A set that is part of a rule has no header here.
fn parse_set(set: &Attributes<'_>) -> Option<(Name, Name, Option<SetHeader>)> {
    let flags = set.u32(3).unwrap_or_default();
    // NFTA_SET_COUNT, which older kernels do not send.
    let count = set.u32(20).filter(|_| flags & COUNTED_OTHERWISE == 0);
    let header = (flags & ANONYMOUS == 0).then(|| SetHeader { shape: Shape::read(set), count });
    Some((set.string(1)?.into(), set.string(2)?.into(), header))
}

fn parse_elements(list: &Attributes<'_>) -> Option<Vec<Dumped>> {
    list.nested(3).map(|(_, dumped)| element::decode(&Attributes(dumped))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_found_behind_a_comment_and_garbage_is_passed_over() {
        let mut userdata = vec![0, 3, b'h', b'i', 0, RULE_DIGEST, 8];
        userdata.extend(7u64.to_be_bytes());
        assert_eq!(find_digest(&userdata), Some(7));
        assert_eq!(find_digest(&userdata[..10]), None);
        assert_eq!(find_digest(&[]), None);
    }
}
