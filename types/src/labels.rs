//! Labels of objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The labels of an object. As large as a pointer; where there are none, nothing is allocated.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Option<Arc<Sorted>>);

/// Keys and values in the order of the keys, each key once; at least one. An object has a handful: a map's
/// node would take several times the room.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sorted(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let Sorted(labels) = &**self.0.as_ref()?;
        let place = labels.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&labels[place].1)
    }

    /// All labels, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| &labels.0).map(|(key, value)| (&**key, &**value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Of a key that comes twice, the last value counts.
impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let labels: BTreeMap<_, _> =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Labels((!labels.is_empty()).then(|| Arc::new(Sorted(labels.into_iter().collect()))))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_their_key() {
        let labels: Labels = [("tier", "db"), ("app", "old"), ("app", "shop")].into_iter().collect();
        assert_eq!((labels.get("app"), labels.get("APP")), (Some("shop"), None));
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "shop"), ("tier", "db")]);
    }

    #[test]
    fn an_object_without_labels_holds_no_more_than_a_pointer() {
        let none: Labels = [("", ""); 0].into_iter().collect();
        assert!(none.is_empty() && none == Labels::default());
        assert_eq!(size_of::<Labels>(), size_of::<usize>());
    }
}
