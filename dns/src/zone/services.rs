//! All Services by their names, in parts that zones share: a change copies the parts that it is about, and no
//! others. What there is at a name is in [`super::service_names`].

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::ServiceNames;

/// How many parts there are. Each zone copies the list of them, and each change one part: at 100,000 Services
/// both are a few hundred pointers.
const PARTS: usize = 256;

/// Services by their keys. A clone shares all parts.
#[derive(Clone, Debug)]
pub(super) struct Services {
    hasher: DefaultHashBuilder,
    parts: Box<[Arc<HashTable<ServiceNames>>]>,
    count: usize,
}

impl Default for Services {
    fn default() -> Services {
        let empty = Arc::new(HashTable::new());
        Services { hasher: DefaultHashBuilder::default(), parts: vec![empty; PARTS].into(), count: 0 }
    }
}

impl Services {
    pub(super) fn get(&self, key: &[u8]) -> Option<&ServiceNames> {
        let hash = self.hasher.hash_one(key);
        self.parts[part(hash)].find(hash, |branch| branch.key() == key)
    }

    /// Puts a Service in, in the place of the one with its key.
    pub(super) fn put(&mut self, branch: ServiceNames) {
        self.take(branch.key());
        let hash = self.hasher.hash_one(branch.key());
        let hasher = &self.hasher;
        Arc::make_mut(&mut self.parts[part(hash)])
            .insert_unique(hash, branch, |branch| hasher.hash_one(branch.key()));
        self.count += 1;
    }

    /// Takes the Service of that key out, if there is one.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<ServiceNames> {
        let hash = self.hasher.hash_one(key);
        // What is not there must not make a part be copied.
        self.get(key)?;
        let part = Arc::make_mut(&mut self.parts[part(hash)]);
        let entry = part.find_entry(hash, |branch| branch.key() == key).ok()?;
        self.count -= 1;
        Some(entry.remove().0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ServiceNames> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

/// The part of a hash. Of its bits the table uses the highest and the lowest.
fn part(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}
