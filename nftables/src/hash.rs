//! The hash that rules make of packets' fields (`jhash`), computed here too: so that maps can be filled with
//! what a rule will look for. It is Bob Jenkins' lookup3 as in the kernel's `linux/jhash.h`.

use super::value::Tuple;

/// Hashes are below this.
pub(super) const HASH_MODULUS: u32 = 1 << 31;
/// What every hash begins with.
pub(super) const HASH_SEED: u32 = 1;

/// The number that `jhash ... mod 2147483648 seed 0x1` makes of a concatenation.
pub fn hash(fields: &Tuple) -> u32 {
    // The kernel scales by multiplication: the quotient of the modulus and 2^32.
    jhash(fields.bytes(), HASH_SEED) >> 1
}

pub(super) fn jhash(bytes: &[u8], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32).wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk::<12>().filter(|(_, behind)| !behind.is_empty())
    {
        add(&mut state, block);
        mix(&mut state);
        rest = behind;
    }
    if !rest.is_empty() {
        add(&mut state, rest);
        finish(&mut state);
    }
    state[2]
}

fn add(state: &mut [u32; 3], block: &[u8]) {
    for (word, bytes) in state.iter_mut().zip(block.chunks(4)) {
        let mut padded = [0; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = word.wrapping_add(u32::from_ne_bytes(padded));
    }
}

fn mix(state: &mut [u32; 3]) {
    for (index, rotation) in [4, 6, 8, 16, 19, 4].into_iter().enumerate() {
        let [first, second, third] = [0, 1, 2].map(|place| (index + place) % 3);
        state[first] = state[first].wrapping_sub(state[third]) ^ state[third].rotate_left(rotation);
        state[third] = state[third].wrapping_add(state[second]);
    }
}

fn finish(state: &mut [u32; 3]) {
    for (index, rotation) in [14, 11, 25, 16, 4, 14, 24].into_iter().enumerate() {
        let (target, source) = ((index + 2) % 3, (index + 1) % 3);
        state[target] = (state[target] ^ state[source]).wrapping_sub(state[source].rotate_left(rotation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the published values of lookup3's `hashlittle`, whose start lacks only the length's place.
    #[test]
    fn it_is_jenkins_lookup3() {
        let text = b"Four score and seven years ago";
        assert_eq!(jhash(text, 0), 0x1777_0551);
        assert_eq!(jhash(text, 1), 0xcd62_8161);
        assert_eq!(jhash(b"", 0), 0xdead_beef);
    }
}
