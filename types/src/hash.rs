//! A hash whose values are promised: names that outlive a release are made from it.

use std::borrow::Borrow;

/// The 64-bit hash FNV-1a (draft-eastlake-fnv, section 2): the same in every version of every program.
pub fn fnv1a<B: Borrow<u8>>(bytes: impl IntoIterator<Item = B>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    let fold = |hash: u64, byte: B| (hash ^ u64::from(*byte.borrow())).wrapping_mul(PRIME);
    bytes.into_iter().fold(OFFSET_BASIS, fold)
}

/// The same of 32 bits.
pub fn fnv1a_32<B: Borrow<u8>>(bytes: impl IntoIterator<Item = B>) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x100_0193;
    let fold = |hash: u32, byte: B| (hash ^ u32::from(*byte.borrow())).wrapping_mul(PRIME);
    bytes.into_iter().fold(OFFSET_BASIS, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a("foo".bytes().chain("bar".bytes())), fnv1a(b"foobar"));
        assert_eq!(fnv1a_32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
    }
}
