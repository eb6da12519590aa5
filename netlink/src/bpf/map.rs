//! Maps: tables that programs and processes share.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::object::{self, failed, number};
use super::syscall::{Attributes, Command};
use crate::Result;

/// `BPF_F_NO_PREALLOC`: memory is taken by elements that are there.
const NO_PREALLOC: u32 = 1;
/// How many elements are read at once.
const CHUNK: usize = 1024;

/// How a map keeps its elements (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// All that were put in; what is too much is refused.
    Hash,
    /// Those that were used last.
    LruHash,
    /// What the longest of the prefixes that were put in and that begin a key has. A key begins with the length
    /// of its prefix in bits, in four bytes.
    Trie,
}

impl MapKind {
    fn number(self) -> u32 {
        match self {
            MapKind::Hash => 1,
            MapKind::LruHash => 9,
            MapKind::Trie => 11,
        }
    }

    /// Maps that forget take all their memory when they are made.
    fn flags(self) -> u32 {
        match self {
            MapKind::Hash | MapKind::Trie => NO_PREALLOC,
            MapKind::LruHash => 0,
        }
    }
}

/// What a map is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name, for those who list maps: at most 15 letters.
    pub name: &'static str,
    /// How it keeps its elements.
    pub kind: MapKind,
    /// How long keys are, in bytes.
    pub key: usize,
    /// How long values are, in bytes.
    pub value: usize,
    /// How many elements it can hold.
    pub capacity: u32,
}

/// A map of the kernel.
#[derive(Debug)]
pub struct Map {
    object: OwnedFd,
    spec: MapSpec,
}

impl Map {
    /// Makes an empty map, which is gone with this value and the programs that use it, unless it is pinned.
    ///
    /// # Errors
    /// What the kernel refused: EPERM without CAP_BPF or CAP_SYS_ADMIN.
    pub fn create(spec: MapSpec) -> Result<Map> {
        let attributes = Attributes::new()
            .number(0, spec.kind.number())
            .number(4, spec.key as u32)
            .number(8, spec.value as u32)
            .number(12, spec.capacity)
            .number(16, spec.kind.flags())
            .name(28, spec.name);
        let object = attributes.descriptor(Command::MapCreate);
        Ok(Map { object: object.map_err(failed(format!("create BPF map {}", spec.name)))?, spec })
    }

    /// Opens a pinned map; `None` where there is none, or one of another kind.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(path: &Path, spec: MapSpec) -> Result<Option<Map>> {
        let Some(object) = object::open(path)? else { return Ok(None) };
        let info = object::info(&object)?;
        let found = [0, 8, 12, 16, 20].map(|at| object::word(&info, at));
        let wanted =
            [spec.kind.number(), spec.key as u32, spec.value as u32, spec.capacity, spec.kind.flags()];
        Ok((found == wanted).then_some(Map { object, spec }))
    }

    /// Gives it a name in a bpffs, by which it stays.
    ///
    /// # Errors
    /// What the kernel refused: EPERM where the path is in no bpffs.
    pub fn pin(&self, path: &Path) -> Result<()> {
        object::pin(&self.object, path)
    }

    /// Its descriptor, for programs that use it.
    pub fn descriptor(&self) -> i32 {
        self.object.as_raw_fd()
    }

    /// The value at that key.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.assert_sizes(key, None);
        let mut value = vec![0; self.spec.value];
        match self.at(key).output(16, &mut value).call(Command::MapLookup) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read an element of")(source)),
        }
    }

    /// Puts a value at a key, in the place of what was there.
    ///
    /// # Errors
    /// What the kernel refused: E2BIG where the map is full.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.assert_sizes(key, Some(value));
        let done = self.at(key).input(16, value).call(Command::MapUpdate);
        done.map(drop).map_err(self.failed("put an element into"))
    }

    /// Deletes what is at a key, if anything is.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.assert_sizes(key, None);
        match self.at(key).call(Command::MapDelete) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map(drop).map_err(self.failed("delete an element of")),
        }
    }

    /// Shows every element, key and value, each once. What changes meanwhile may be shown or not.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut room = CHUNK;
        let (mut place, mut next) = (None::<[u8; 4]>, [0; 4]);
        loop {
            let (mut keys, mut values) = (vec![0; room * self.spec.key], vec![0; room * self.spec.value]);
            // A place is the number of a bucket of the hash table.
            let mut attributes = Attributes::new()
                .output(8, &mut next)
                .output(16, &mut keys)
                .output(24, &mut values)
                .number(32, room as u32)
                .number(36, number(&self.object));
            if let Some(place) = &place {
                attributes = attributes.input(0, place);
            }
            let done = attributes.call(Command::MapLookupBatch);
            let count = attributes.read(32) as usize;
            let ended = match done {
                Ok(_) => false,
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::ENOENT => true,
                    // One bucket has more than there is room for.
                    Errno::ENOSPC => {
                        room *= 2;
                        continue;
                    }
                    _ => return Err(self.failed("read")(error)),
                },
            };
            let pairs = keys.chunks_exact(self.spec.key).zip(values.chunks_exact(self.spec.value));
            pairs.take(count).for_each(|(key, value)| show(key, value));
            if ended {
                return Ok(());
            }
            place = Some(next);
        }
    }

    fn at<'a>(&self, key: &'a [u8]) -> Attributes<'a> {
        Attributes::new().number(0, number(&self.object)).input(8, key)
    }

    /// The kernel reads as much as the map's sizes say, so that nothing shorter may be lent to it.
    fn assert_sizes(&self, key: &[u8], value: Option<&[u8]>) {
        let MapSpec { name, .. } = self.spec;
        assert_eq!(key.len(), self.spec.key, "the length of a key of map {name}");
        assert!(
            value.is_none_or(|value| value.len() == self.spec.value),
            "the length of a value of map {name}"
        );
    }

    fn failed(&self, verb: &str) -> impl FnOnce(io::Error) -> crate::Error {
        failed(format!("{verb} BPF map {}", self.spec.name))
    }
}
