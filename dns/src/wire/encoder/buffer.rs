//! Where a message is written: a vector, or the room of one datagram.

use crate::wire::format::LARGEST_UDP;

/// Where a message is written.
pub(crate) trait Buffer {
    /// What is written so far.
    fn bytes(&self) -> &[u8];
    /// The same, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Appends bytes, for which there is room: no message is longer than its limit.
    fn push(&mut self, bytes: &[u8]);
    /// Takes back all but the first bytes.
    fn truncate(&mut self, length: usize);
}

impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn truncate(&mut self, length: usize) {
        Vec::truncate(self, length);
    }
}

/// Room for one datagram.
pub(crate) struct Datagram<'b> {
    bytes: &'b mut [u8; LARGEST_UDP as usize],
    length: usize,
}

impl<'b> Datagram<'b> {
    /// Nothing is written yet.
    pub(crate) fn new(bytes: &'b mut [u8; LARGEST_UDP as usize]) -> Datagram<'b> {
        Datagram { bytes, length: 0 }
    }
}

impl Buffer for Datagram<'_> {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn truncate(&mut self, length: usize) {
        self.length = length;
    }
}
