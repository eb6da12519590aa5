//! A watch's answer cut into its frames: a line of JSON each, or a message of protobuf behind its length.

use std::fmt;
use std::ops::Range;

use http_body_util::BodyExt;
use kube::client::Body;

use super::Encoding;
use crate::error::chain;

/// The longest frame. An API server takes no object beyond 3 MiB; written as JSON it may be longer.
const LONGEST: usize = 16 << 20;
/// How much room stays with a watch that is silent.
const KEPT: usize = 8 << 10;

/// The frames of an answer, as they come.
pub(crate) struct Frames<B = Body> {
    body: B,
    encoding: Encoding,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
    /// Up to where no end of a line was found.
    searched: usize,
    has_ended: bool,
}

/// Why no further frame comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection failed, for this reason.
    Connection(String),
    /// The next frame is longer than any object may be.
    TooLong,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Connection(problem) => f.write_str(problem),
            Broken::TooLong => write!(f, "an event of more than {LONGEST} bytes"),
        }
    }
}

impl<B> Frames<B>
where
    B: http_body::Body<Data: AsRef<[u8]>, Error: std::error::Error> + Unpin,
{
    /// The frames of a body in this encoding.
    pub(crate) fn new(body: B, encoding: Encoding) -> Self {
        Frames { body, encoding, buffer: Vec::new(), start: 0, searched: 0, has_ended: false }
    }

    /// How the frames are encoded.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether the last frame is one that the end of the answer may have cut off.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next frame; nothing at the end. Of JSON, what stands behind the last whole line is a frame too.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Some(&self.buffer[frame]));
            }
            if self.has_ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => frame.into_data().iter().for_each(|data| self.push(data.as_ref())),
                Some(Err(error)) => return Err(Broken::Connection(chain(&error))),
                None => self.has_ended = true,
            }
        }
    }

    fn push(&mut self, data: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT);
        }
        self.buffer.extend_from_slice(data);
    }

    /// Where the next frame is, if all of it is there.
    fn cut(&mut self) -> Result<Option<Range<usize>>, Broken> {
        let (frame, end) = match self.encoding {
            Encoding::Json => {
                let length = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
                let end = length.map(|length| self.searched + length);
                self.searched = end.map_or(self.buffer.len(), |end| end + 1);
                match end {
                    Some(end) => (self.start..end, end + 1),
                    None if self.has_ended && self.start < self.buffer.len() => {
                        (self.start..self.buffer.len(), self.buffer.len())
                    }
                    None if self.buffer.len() - self.start > LONGEST => return Err(Broken::TooLong),
                    None => return Ok(None),
                }
            }
            // k8s.io/apimachinery/pkg/util/framer: four bytes of length, the highest first.
            Encoding::Protobuf => {
                let Some((length, rest)) = self.buffer[self.start..].split_first_chunk() else {
                    return Ok(None);
                };
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > LONGEST {
                    return Err(Broken::TooLong);
                }
                if rest.len() < length {
                    return Ok(None);
                }
                let begin = self.start + size_of::<u32>();
                (begin..begin + length, begin + length)
            }
        };
        self.start = end;
        self.searched = self.searched.max(end);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    type Pieces = dyn http_body::Body<Data = &'static [u8], Error = std::io::Error>;

    /// A body that comes in pieces of so many bytes.
    fn in_pieces(bytes: &'static [u8], size: usize) -> Pin<Box<Pieces>> {
        let pieces = stream::iter(bytes.chunks(size));
        Box::pin(StreamBody::new(pieces.map(|piece| Ok(http_body::Frame::data(piece)))))
    }

    async fn all(bytes: &'static [u8], size: usize, encoding: Encoding) -> Result<Vec<Vec<u8>>, Broken> {
        let (mut frames, mut all) = (Frames::new(in_pieces(bytes, size), encoding), Vec::new());
        while let Some(frame) = frames.next().await? {
            all.push(frame.to_vec());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn frames_are_the_same_in_whatever_pieces_they_come() {
        for size in [1, 2, 3, 5, 7, 100] {
            let lines = all(b"{}\n{\"a\": 1}\n\nrest", size, Encoding::Json).await.unwrap();
            assert_eq!(lines, [&b"{}"[..], b"{\"a\": 1}", b"", b"rest"], "{size}");
            let frames =
                all(b"\0\0\0\x02hi\0\0\0\0\0\0\0\x03you\0\0\0\x05cut", size, Encoding::Protobuf).await;
            assert_eq!(frames.unwrap(), [&b"hi"[..], b"", b"you"], "{size}");
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_all_measure_is_refused() {
        let frames = all(b"\xff\xff\xff\xffhello", 100, Encoding::Protobuf).await;
        assert_eq!(frames, Err(Broken::TooLong));
        let line = vec![b' '; LONGEST + 2].leak();
        assert_eq!(all(line, 1 << 20, Encoding::Json).await, Err(Broken::TooLong));
    }

    #[tokio::test]
    async fn a_long_frame_keeps_no_room_once_it_is_read() {
        let mut bytes = vec![b' '; 1 << 20];
        bytes.extend(b"\n{}\n{}\n");
        let mut frames = Frames::new(in_pieces(bytes.leak(), 1 << 10), Encoding::Json);
        for _ in 0..3 {
            frames.next().await.unwrap().unwrap();
        }
        frames.push(b"{}\n");
        assert!(frames.buffer.capacity() <= KEPT, "{}", frames.buffer.capacity());
    }
}
