//! What the running kernel says of its own types (BTF, Documentation/bpf/btf.rst): where members of its structures
//! are, and the numbers of functions that programs may call (kfuncs). Both differ from kernel to kernel.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::object::{failed, number};
use super::syscall::{Attributes, Command};
use crate::{Error, Result};

/// Where the kernel shows the types of itself and its modules.
const FOLDER: &str = "/sys/kernel/btf";
/// The kernel itself among them.
const KERNEL: &str = "vmlinux";
/// Of `struct btf_header`, as far as it is read.
const HEADER: usize = 24;
/// The length of `struct bpf_btf_info`.
const INFO: u32 = 32;
/// `BTF_KIND_*`
const STRUCT: u8 = 4;
const FUNCTION: u8 = 12;

/// A function of the kernel, as instructions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// The number of its type.
    pub number: i32,
    /// Where it is: 0 in the kernel itself, 1 in the module that was asked for.
    pub module: i16,
}

/// The types of the kernel and of one part of it that may be a module.
#[derive(Debug)]
pub struct KernelTypes {
    parts: Vec<Part>,
    /// The module, where it is one.
    pub(super) module: Option<OwnedFd>,
}

impl KernelTypes {
    /// Reads them.
    ///
    /// # Errors
    /// Where the kernel shows none (CONFIG_DEBUG_INFO_BTF), or does not let this process have the module's:
    /// EPERM without CAP_SYS_ADMIN.
    pub fn read(module: &str) -> Result<KernelTypes> {
        let kernel = Part::parse(read(KERNEL)?, 0, 0).ok_or_else(|| malformed(KERNEL))?;
        let mut types = KernelTypes { parts: vec![kernel], module: None };
        if Path::new(FOLDER).join(module).exists() {
            let (types_before, names_before) = types.parts[0].end();
            let part = Part::parse(read(module)?, types_before, names_before);
            types.parts.push(part.ok_or_else(|| malformed(module))?);
            types.module = Some(open(module)?);
        }
        Ok(types)
    }

    /// A function by its name.
    ///
    /// # Errors
    /// Where the kernel has none of that name.
    pub fn function(&self, name: &str) -> Result<KernelFunction> {
        let found = self.parts.iter().zip(0..).find_map(|(part, module)| {
            let found = part.find(FUNCTION, name)?;
            Some(KernelFunction { number: i32::try_from(found.number).ok()?, module })
        });
        found.ok_or_else(|| missing(format!("function {name}")))
    }

    /// How many bytes a member is behind the beginning of its structure.
    ///
    /// # Errors
    /// Where the kernel has no such structure or member.
    pub fn offset(&self, structure: &str, member: &str) -> Result<i16> {
        let offset = self.parts.iter().find_map(|part| part.member(structure, member, &self.parts[0]));
        let offset = offset.and_then(|bits| i16::try_from(bits / 8).ok());
        offset.ok_or_else(|| missing(format!("member {member} of struct {structure}")))
    }
}

/// The types of the kernel, or of a module: its numbers and names go on where the kernel's end.
#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    types: std::ops::Range<usize>,
    names: std::ops::Range<usize>,
    types_before: u32,
    names_before: u32,
    count: u32,
}

/// A type: its number, its kind, its name, and where its members are.
#[derive(Clone, Copy, Debug)]
struct Type {
    number: u32,
    kind: u8,
    name: u32,
    members: usize,
    count: usize,
}

impl Part {
    fn parse(bytes: Vec<u8>, types_before: u32, names_before: u32) -> Option<Part> {
        let word = |at| word(&bytes, at).map(|word| word as usize);
        if bytes.len() < HEADER || bytes[..2] != 0xeb9f_u16.to_ne_bytes() {
            return None;
        }
        let begin = word(4)?;
        let section = |at| Some(begin + word(at)?..begin + word(at)? + word(at + 4)?);
        let (types, names) = (section(8)?, section(16)?);
        if types.end.max(names.end) > bytes.len() {
            return None;
        }
        let mut part = Part { bytes, types, names, types_before, names_before, count: 0 };
        part.count = u32::try_from(part.iter().count()).ok()?;
        Some(part)
    }

    /// With which numbers a module's types and names begin.
    fn end(&self) -> (u32, u32) {
        (self.count, self.names.len() as u32)
    }

    /// Its types, in order. Number 0 is `void`, which is not written down.
    fn iter(&self) -> impl Iterator<Item = Type> + '_ {
        let mut at = self.types.start;
        let mut number = self.types_before;
        std::iter::from_fn(move || {
            if at >= self.types.end {
                return None;
            }
            number += 1;
            let information = word(&self.bytes, at + 4)?;
            let kind = (information >> 24 & 0x1f) as u8;
            let count = (information & 0xffff) as usize;
            let found = Type { number, kind, name: word(&self.bytes, at)?, members: at + 12, count };
            at = found.members
                + match kind {
                    // INT, VAR, DECL_TAG
                    1 | 14 | 17 => 4,
                    // ARRAY
                    3 => 12,
                    // STRUCT, UNION, DATASEC, ENUM64
                    4 | 5 | 15 | 19 => 12 * count,
                    // ENUM, FUNC_PROTO
                    6 | 13 => 8 * count,
                    _ => 0,
                };
            Some(found)
        })
    }

    fn find(&self, kind: u8, name: &str) -> Option<Type> {
        self.iter().find(|it| it.kind == kind && self.name(it.name) == Some(name.as_bytes()))
    }

    /// Where a member is, in bits. A module's structure may have names of the kernel.
    fn member(&self, structure: &str, member: &str, kernel: &Part) -> Option<u32> {
        let name = |number| self.name(number).or_else(|| kernel.name(number));
        let found =
            self.iter().find(|it| it.kind == STRUCT && name(it.name) == Some(structure.as_bytes()))?;
        let members = (0..found.count).map(|index| found.members + 12 * index);
        let is_named = |at: &usize| word(&self.bytes, *at).and_then(name) == Some(member.as_bytes());
        let at = members.into_iter().find(is_named)?;
        // The upper byte is the length of a bit field.
        word(&self.bytes, at + 8).map(|place| place & 0xff_ffff)
    }

    fn name(&self, number: u32) -> Option<&[u8]> {
        let at = number.checked_sub(self.names_before)? as usize;
        self.bytes.get(self.names.clone())?.get(at..)?.split(|byte| *byte == 0).next()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn read(name: &str) -> Result<Vec<u8>> {
    let path = PathBuf::from(FOLDER).join(name);
    let what = format!("read the kernel's types from {} (CONFIG_DEBUG_INFO_BTF)", path.display());
    fs::read(&path).map_err(failed(what))
}

/// The types of the kernel or a module, as an object of the kernel.
fn open(name: &str) -> Result<OwnedFd> {
    let refused = || failed(format!("open the types of kernel module {name}"));
    let mut last = 0;
    loop {
        let mut next = Attributes::new().number(0, last);
        next.call(Command::BtfNext).map_err(refused())?;
        last = next.read(4);
        let object = match Attributes::new().number(0, last).descriptor(Command::BtfOpen) {
            Ok(object) => object,
            // It was gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(refused()(error)),
        };
        if name_of(&object).map_err(refused())? == name.as_bytes() {
            return Ok(object);
        }
    }
}

/// The name that the kernel knows them by.
fn name_of(object: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut name = [0_u8; 64];
    let length = name.len() as u32;
    // `struct bpf_btf_info`
    let mut info = Attributes::new().output(16, &mut name).number(24, length);
    let mut attributes =
        Attributes::new().number(0, number(object)).number(4, INFO).information(8, &mut info);
    attributes.call(Command::Info)?;
    Ok(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}

fn malformed(name: &str) -> Error {
    Error::Malformed(format!("{FOLDER}/{name}"))
}

fn missing(what: String) -> Error {
    let source = io::Error::new(io::ErrorKind::NotFound, "the kernel does not have it");
    Error::System { operation: format!("find {what} among the kernel's types"), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types of a made-up kernel or module, and its names.
    fn bytes(types: &[u32], names: &[u8]) -> Vec<u8> {
        let length = 4 * types.len() as u32;
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for number in [HEADER as u32, 0, length, length, names.len() as u32] {
            bytes.extend(number.to_ne_bytes());
        }
        types.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes.extend(names);
        bytes
    }

    #[test]
    fn a_modules_types_go_on_where_the_kernels_end() {
        let information = |kind: u32, count: u32| kind << 24 | count;
        // int, and struct conn { int timeout; int status : 1 }
        let structure = [9, information(4, 2), 16, 14, 1, 64, 22, 1, 1 << 24 | 1024];
        let kernel = bytes(
            &[&[1, information(1, 0), 4, 32][..], &structure].concat(),
            b"\0int\0any\0conn\0timeout\0status\0",
        );
        let kernel = Part::parse(kernel, 0, 0).unwrap();
        assert_eq!(kernel.end(), (2, 29));
        let module = bytes(&[30, information(12, 1), 1], b"\0look\0");
        let module = Part::parse(module, 2, 29).unwrap();
        let types = KernelTypes { parts: vec![kernel, module], module: None };
        assert_eq!(types.function("look").unwrap(), KernelFunction { number: 3, module: 1 });
        assert_eq!(types.offset("conn", "timeout").unwrap(), 8);
        assert_eq!(types.offset("conn", "status").unwrap(), 128);
        let error = types.function("any").unwrap_err().to_string();
        assert!(error.contains("function any"), "{error}");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = bytes(&[1, 1 << 24, 4, 32], b"\0int\0");
        assert!(Part::parse(whole[..whole.len() - 1].to_vec(), 0, 0).is_none());
        assert!(Part::parse(vec![0; 64], 0, 0).is_none());
    }
}
