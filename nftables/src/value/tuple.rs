//! Keys of sets, and data of maps, as the kernel has them in registers.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{DataType, Value};

/// A set's key, or a map's data: one value or a concatenation, as the kernel has it (every field but the last
/// of a single one padded to four bytes). It knows nothing of its types; the set's declaration does.
#[derive(Clone)]
pub struct Tuple(Bytes);

/// How many bytes stand in the tuple itself: an IPv6 address, a protocol, a port and a number fit.
const SHORT: usize = 30;

/// The bytes of a tuple. A load makes and copies hundreds of thousands; nearly all are short, and so need no
/// allocation.
#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl Tuple {
    /// A tuple of these values. They must be of the types of the set that it goes into.
    pub fn new(values: &[Value]) -> Tuple {
        let mut bytes = Vec::with_capacity(SHORT);
        for (index, value) in values.iter().enumerate() {
            value.encode(&mut bytes);
            if values.len() > 1 || index > 0 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        Tuple::from_kernel(&bytes)
    }

    /// A tuple as the kernel has it in the registers.
    pub fn from_kernel(bytes: &[u8]) -> Tuple {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Tuple(Bytes::Short(bytes.len() as u8, short))
            }
            None => Tuple(Bytes::Long(bytes.into())),
        }
    }

    /// Its bytes in the registers.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }

    /// The same where the kernel compares ranges: with all numbers in network order.
    pub(crate) fn ordered(values: &[Value]) -> Tuple {
        let mut bytes = Vec::with_capacity(SHORT);
        for value in values {
            let start = bytes.len();
            value.encode(&mut bytes);
            if value.is_of_host_order() && cfg!(target_endian = "little") {
                bytes[start..].reverse();
            }
            if values.len() > 1 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        Tuple::from_kernel(&bytes)
    }

    /// Its values, read as those types; `None` where it is too short for them.
    pub fn values(&self, types: &[DataType]) -> Option<Vec<Value>> {
        let mut rest = self.bytes();
        let mut values = Vec::with_capacity(types.len());
        for kind in types {
            values.push(kind.decode(rest)?);
            rest = rest.get(kind.padded_len()..).unwrap_or_default();
        }
        Some(values)
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tuple").field(&self.bytes()).finish()
    }
}

impl PartialEq for Tuple {
    fn eq(&self, other: &Tuple) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Tuple {}

impl PartialOrd for Tuple {
    fn partial_cmp(&self, other: &Tuple) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tuple {
    fn cmp(&self, other: &Tuple) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// How long a tuple of those types is in the kernel.
pub(crate) fn tuple_len(types: &[DataType]) -> usize {
    match types {
        [single] => single.len(),
        _ => types.iter().map(|kind| kind.padded_len()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concatenation_is_padded_and_a_single_value_is_not() {
        let address = Value::Address("10.96.0.10".parse().unwrap());
        assert_eq!(
            Tuple::new(&[address, Value::Protocol(17), Value::Port(53)]).bytes(),
            [10, 96, 0, 10, 17, 0, 0, 0, 0, 53, 0, 0]
        );
        assert_eq!(Tuple::new(&[Value::Port(53)]).bytes(), [0, 53]);
    }

    #[test]
    fn long_and_short_tuples_compare_by_their_bytes_and_take_no_more_room_than_an_element_may() {
        let bytes: Vec<u8> = (0..64).collect();
        let tuples: Vec<Tuple> = (0..=64).map(|length| Tuple::from_kernel(&bytes[..length])).collect();
        assert!(
            tuples.is_sorted() && tuples.iter().enumerate().all(|(length, it)| it.bytes().len() == length)
        );
        // Hundreds of thousands of elements are held.
        assert_eq!((size_of::<Tuple>(), size_of::<crate::set::Data>()), (32, 32));
    }

    #[test]
    fn values_read_back_by_their_types() {
        use DataType::*;
        let values = [
            Value::Address("fd00::1".parse().unwrap()),
            Value::Protocol(6),
            Value::Port(443),
            Value::Integer(3),
        ];
        let types = [Ipv6Addr, InetProto, InetService, Integer];
        assert_eq!(Tuple::new(&values).values(&types).as_deref(), Some(&values[..]));
        assert_eq!(Tuple::new(&values).bytes().len(), tuple_len(&types));
        assert_eq!(Tuple::new(&values[..1]).values(&types), None, "too short");
    }
}
