//! Objects in the order of their names, each name held once: by the object itself. A cluster has hundreds of
//! thousands of them, so what is kept beside each counts. What they are is not of concern here.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::NamespacedName;

/// Something with a name of its own.
pub trait Keyed {
    /// The name.
    type Key: Lookup + ?Sized;

    /// The name.
    fn key(&self) -> &Self::Key;
}

/// Compares by name alone.
#[derive(Clone, Debug)]
pub struct Item<T>(T);

impl<T: Keyed> Ord for Item<T> {
    fn cmp(&self, other: &Item<T>) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl<T: Keyed> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Item<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Keyed> PartialEq for Item<T> {
    fn eq(&self, other: &Item<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Keyed> Eq for Item<T> {}

impl<T: Keyed<Key = NamespacedName>> Borrow<NamespacedName> for Item<T> {
    fn borrow(&self) -> &NamespacedName {
        self.0.key()
    }
}

impl<T: Keyed<Key = str>> Borrow<str> for Item<T> {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}

/// A name by which objects are found. `Borrow` cannot be said of every `Keyed::Key` at once (it might be
/// `Item` itself), but of each of the types of names, so each looks up for itself.
pub trait Lookup: Ord {
    /// The object of that name.
    fn find<'a, T: Keyed<Key = Self>>(&self, items: &'a BTreeSet<Item<T>>) -> Option<&'a Item<T>>;

    /// The same, taken out.
    fn take<T: Keyed<Key = Self>>(&self, items: &mut BTreeSet<Item<T>>) -> Option<Item<T>>;
}

macro_rules! lookup {
    ($key:ty) => {
        impl Lookup for $key {
            fn find<'a, T: Keyed<Key = Self>>(&self, items: &'a BTreeSet<Item<T>>) -> Option<&'a Item<T>> {
                items.get(self)
            }

            fn take<T: Keyed<Key = Self>>(&self, items: &mut BTreeSet<Item<T>>) -> Option<Item<T>> {
                items.take(self)
            }
        }
    };
}

lookup!(NamespacedName);
lookup!(str);

/// Objects in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct OrderedSet<T>(BTreeSet<Item<T>>);

impl<T> Default for OrderedSet<T> {
    fn default() -> Self {
        OrderedSet(BTreeSet::new())
    }
}

impl<T: Keyed> OrderedSet<T> {
    /// The object of that name.
    pub(crate) fn get(&self, key: &T::Key) -> Option<&T> {
        key.find(&self.0).map(|item| &item.0)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|item| &item.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts one in, in the place of the one of its name.
    pub(crate) fn put(&mut self, object: T) {
        self.0.replace(Item(object));
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, key: &T::Key) -> Option<T> {
        key.take(&mut self.0).map(|item| item.0)
    }
}
