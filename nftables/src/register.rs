//! The register file of nf_tables, and how one expression is written (`NFTA_EXPR_*`).

use weft_netlink::attribute::Writer;

/// `NFTA_LIST_ELEM`: one expression of a rule.
const LIST_ELEM: u16 = 1;
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
pub(crate) const EXPR_NAME: u16 = 1;
pub(crate) const EXPR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`
pub(crate) const DATA_VALUE: u16 = 1;
pub(crate) const DATA_VERDICT: u16 = 2;
/// `NFT_REG_VERDICT`
pub(crate) const VERDICT_REGISTER: u32 = 0;

/// The register that begins that many bytes into the register file. Those on a boundary of 16 bytes go by the
/// number of the old, wide registers, as in what nft writes and the kernel dumps.
pub(crate) fn register(offset: usize) -> u32 {
    let number = if offset.is_multiple_of(16) { 1 + offset / 16 } else { 8 + offset / 4 };
    number as u32
}

/// Where a register begins in the register file: the wide ones of 16 bytes are 1 to 4, those of 4 bytes begin
/// with 8. Where the file ends is for the kernel.
pub(crate) fn offset(register: u32) -> Option<usize> {
    match register {
        1..=7 => Some((register as usize - 1) * 16),
        8..=31 => Some((register as usize - 8) * 4),
        _ => None,
    }
}

/// Writes one expression.
pub(crate) fn expression(name: &str, writer: &mut Writer<'_>, data: impl FnOnce(&mut Writer<'_>)) {
    writer.nest(LIST_ELEM, |writer| {
        writer.string(EXPR_NAME, name);
        writer.nest(EXPR_DATA, data);
    });
}

/// Writes a constant into a register, or a verdict.
pub(crate) fn immediate(target: u32, writer: &mut Writer<'_>, value: impl FnOnce(&mut Writer<'_>)) {
    expression("immediate", writer, |data| {
        data.u32(1, target);
        data.nest(2, value);
    });
}

/// Masks what is in the first registers, and flips bits of it (`NFTA_BITWISE_*`).
pub(crate) fn bitwise(mask: &[u8], flipped: &[u8], writer: &mut Writer<'_>) {
    expression("bitwise", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, register(0));
        data.u32(3, mask.len() as u32);
        data.nest(4, |data| data.bytes(DATA_VALUE, mask));
        data.nest(5, |data| data.bytes(DATA_VALUE, flipped));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_nft_numbers_them() {
        let offsets = [0, 4, 8, 12, 16, 20, 32];
        assert_eq!(offsets.map(register), [1, 9, 10, 11, 2, 13, 3]);
        assert_eq!(offsets.map(register).map(offset), offsets.map(Some));
    }
}
