//! All objects of one kind, and what one has to say about itself to be kept.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;

use crate::NamespacedName;
use crate::ordered_set::{Keyed, Lookup, OrderedSet};

/// A kind of object of the cluster. Each has a file of its own in `resource/`, and a line in the list there.
pub trait Resource: Clone + fmt::Debug + Eq + Sized + 'static {
    /// The kind, as the API spells it.
    const NAME: &'static str;

    /// The object's name: [`NamespacedName`], or `str` for objects of the whole cluster.
    type Key: Name + ?Sized;
    /// How a store holds one. `Self` lies in the store itself, which leaves a third of its room free on
    /// average; so large objects of which there are many are a `Box<Self>`, and those that an index holds too
    /// an `Arc<Self>`.
    type Stored: Borrow<Self> + From<Self> + Clone + fmt::Debug;
    /// What else finds objects of this kind; `()` where nothing does.
    type Index: Index<Self>;
    /// What a change set knows of this kind: as a rule the names of the objects that changed.
    type Changes: Changes<Self>;

    /// The object's name.
    fn key(&self) -> &Self::Key;

    /// Gives back the memory that its lists do not need: they were read from lists of larger things, and stay
    /// for long.
    fn shrink(&mut self) {}

    /// The Service that it is a part of, which counts as changed when this object comes, goes or changes.
    fn part_of(&self) -> Option<&NamespacedName> {
        None
    }
}

/// The name of an object among those of its kind.
pub trait Name: Lookup + ToOwned<Owned: Clone + fmt::Debug + fmt::Display + Ord> {
    /// The namespace, where the kind has one, and the name within it.
    fn parts(&self) -> (Option<&str>, &str);
}

impl Name for NamespacedName {
    fn parts(&self) -> (Option<&str>, &str) {
        (Some(&self.namespace), &self.name)
    }
}

impl Name for str {
    fn parts(&self) -> (Option<&str>, &str) {
        (None, self)
    }
}

/// The owned form of a kind's names.
pub type KeyOf<K> = <<K as Resource>::Key as ToOwned>::Owned;

/// What a change set knows of one kind.
pub trait Changes<K: Resource>: Clone + fmt::Debug + Default + Eq {
    /// Notes that an object came, went or changed.
    fn note(&mut self, object: &K);

    /// Whether nothing was noted.
    fn is_empty(&self) -> bool;
}

impl<K: Resource> Changes<K> for BTreeSet<KeyOf<K>> {
    fn note(&mut self, object: &K) {
        self.insert(object.key().to_owned());
    }

    fn is_empty(&self) -> bool {
        BTreeSet::is_empty(self)
    }
}

/// Finds objects of a kind by something else than their name.
pub trait Index<K: Resource>: Clone + fmt::Debug + Default {
    /// Lets an object that is about to be taken in share with others what many of them have.
    fn share(&mut self, _: &mut K) {}

    /// Takes one in. Its name is not there.
    fn add(&mut self, object: &K::Stored);

    /// Forgets one that is there.
    fn remove(&mut self, object: &K);
}

impl<K: Resource> Index<K> for () {
    fn add(&mut self, _: &K::Stored) {}

    fn remove(&mut self, _: &K) {}
}

/// One object as it is held.
#[derive(Clone, Debug)]
struct Kept<K: Resource>(K::Stored);

impl<K: Resource> Keyed for Kept<K> {
    type Key = K::Key;

    fn key(&self) -> &K::Key {
        self.0.borrow().key()
    }
}

/// All objects of one kind, in the order of their names.
#[derive(Clone, Debug)]
pub struct Store<K: Resource> {
    objects: OrderedSet<Kept<K>>,
    index: K::Index,
}

impl<K: Resource> Default for Store<K> {
    fn default() -> Self {
        Store { objects: OrderedSet::default(), index: K::Index::default() }
    }
}

impl<K: Resource> PartialEq for Store<K> {
    fn eq(&self, other: &Store<K>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Resource> Eq for Store<K> {}

impl<K: Resource> Store<K> {
    /// One object.
    pub fn get(&self, key: &K::Key) -> Option<&K> {
        self.objects.get(key).map(|kept| kept.0.borrow())
    }

    /// All objects, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.iter().map(|kept| kept.0.borrow())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What else finds the objects.
    pub fn index(&self) -> &K::Index {
        &self.index
    }

    /// Puts an object in, in the place of the one of its name.
    pub(crate) fn put(&mut self, mut object: K) {
        object.shrink();
        self.index.share(&mut object);
        if let Some(before) = self.objects.get(object.key()) {
            self.index.remove(before.0.borrow());
        }
        let stored = K::Stored::from(object);
        self.index.add(&stored);
        self.objects.put(Kept(stored));
    }

    /// Takes an object out.
    pub(crate) fn take(&mut self, key: &K::Key) -> Option<K::Stored> {
        let Kept(stored) = self.objects.take(key)?;
        self.index.remove(stored.borrow());
        Some(stored)
    }
}
