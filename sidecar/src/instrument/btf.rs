//! A reader of the kernel's BTF for two questions: where is a structure's member, and does a tracepoint exist.
//!
//! Format: Linux `Documentation/bpf/btf.rst`. The file comes from the kernel, yet every access is checked.

use pilotfish_abi::Member;
use std::{fs, io, path::Path};

/// Where the running kernel shows its BTF (`CONFIG_DEBUG_INFO_BTF`).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why BTF gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel was built without BTF, or /sys is not mounted.
    #[error(
        "cannot read {path}: {source}; pilotfish needs a kernel with CONFIG_DEBUG_INFO_BTF=y and /sys mounted"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Not what the specification says.
    #[error(
        "the kernel's BTF is malformed at byte {0}; report this kernel's version to the pilotfish project"
    )]
    Malformed(usize),
    /// This kernel lays the structure out differently.
    #[error(
        "this kernel's `struct {structure}` has no member `{path}`; report this kernel's version to the pilotfish project"
    )]
    NoMember {
        /// Structure.
        structure: &'static str,
        /// Member path.
        path: &'static str,
    },
}

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
const KIND_INT: u32 = 1;

const MAGIC: u16 = 0xeb9f;
const TYPE_SIZE: usize = 12;

/// Parsed index over the raw bytes: type id to position.
pub struct KernelBtf {
    data: Vec<u8>,
    strings: usize,
    /// Position of each type; id 0 (`void`) is a placeholder.
    types: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    length: usize,
    bitfields: bool,
    /// Size or referenced type, by kind.
    reference: u32,
}

impl KernelBtf {
    /// Reads the running kernel's BTF.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(VMLINUX))
    }

    /// Reads BTF from a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(data)
    }

    fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let mut btf = Self {
            data,
            strings: 0,
            types: vec![0],
        };
        if btf.word(0)? as u16 != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = btf.word(4)? as usize;
        let start = header + btf.word(8)? as usize;
        let end = start + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        let mut at = start;
        while at < end {
            btf.types
                .push(u32::try_from(at).map_err(|_| BtfError::Malformed(at))?);
            let this = btf.type_at(at)?;
            at += TYPE_SIZE + trailing_size(this).ok_or(BtfError::Malformed(at))?;
        }
        Ok(btf)
    }

    /// Byte offset of a member from the start of its structure.
    pub fn offset(&self, member: Member) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember {
            structure: member.structure(),
            path: member.path(),
        };
        let mut this = self.structure(member.structure())?.ok_or_else(missing)?;
        let mut bits = 0;
        for name in member.path().split('.') {
            let (offset, reference) = self.member(this, name, 0)?.ok_or_else(missing)?;
            bits += offset;
            this = self.resolve(reference)?;
        }
        Ok(bits / 8)
    }

    /// Whether the kernel has this tracepoint: BTF names its handlers `btf_trace_NAME`.
    pub fn has_tracepoint(&self, name: &str) -> Result<bool, BtfError> {
        let wanted = format!("btf_trace_{name}");
        for &at in self.types.iter().skip(1) {
            let this = self.type_at(at as usize)?;
            if this.kind == KIND_TYPEDEF && self.is_named(this.name, &wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the kernel has this enumerator in this enumeration.
    pub fn has_enumerator(&self, enumeration: &str, name: &str) -> Result<bool, BtfError> {
        for &at in self.types.iter().skip(1) {
            let this = self.type_at(at as usize)?;
            if this.kind != KIND_ENUM || !self.is_named(this.name, enumeration) {
                continue;
            }
            for index in 0..this.length {
                if self.is_named(self.word(this.at + TYPE_SIZE + index * 8)?, name) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn structure(&self, name: &str) -> Result<Option<Type>, BtfError> {
        for &at in self.types.iter().skip(1) {
            let this = self.type_at(at as usize)?;
            if this.kind == KIND_STRUCT && this.length > 0 && self.is_named(this.name, name) {
                return Ok(Some(this));
            }
        }
        Ok(None)
    }

    /// Bit offset and type of a member, looking through anonymous structures and unions.
    fn member(&self, this: Type, name: &str, depth: u32) -> Result<Option<(u32, u32)>, BtfError> {
        if depth > 8 || !matches!(this.kind, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        for index in 0..this.length {
            let at = this.at + TYPE_SIZE + index * TYPE_SIZE;
            let (member_name, reference, mut offset) =
                (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            if this.bitfields {
                offset &= 0xff_ffff;
            }
            if self.is_named(member_name, name) {
                return Ok(Some((offset, reference)));
            }
            if self.is_named(member_name, "")
                && let Some((inner, found)) =
                    self.member(self.resolve(reference)?, name, depth + 1)?
            {
                return Ok(Some((offset + inner, found)));
            }
        }
        Ok(None)
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<Type, BtfError> {
        for _ in 0..32 {
            let at = *self.types.get(id as usize).ok_or(BtfError::Malformed(0))? as usize;
            let this = self.type_at(at)?;
            if !matches!(
                this.kind,
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG
            ) {
                return Ok(this);
            }
            id = this.reference;
        }
        Err(BtfError::Malformed(0))
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = self.word(at + 4)?;
        Ok(Type {
            at,
            name: self.word(at)?,
            kind: (info >> 24) & 0x1f,
            length: (info & 0xffff) as usize,
            bitfields: info >> 31 != 0,
            reference: self.word(at + 8)?,
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let start = self.strings + name as usize;
        let end = start + wanted.len();
        self.data.get(start..end) == Some(wanted.as_bytes()) && self.data.get(end) == Some(&0)
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
        bytes
            .try_into()
            .map(u32::from_ne_bytes)
            .map_err(|_| BtfError::Malformed(at))
    }
}

/// Bytes that follow a type's fixed part.
fn trailing_size(this: Type) -> Option<usize> {
    Some(match this.kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => this.length * 12,
        KIND_ENUM | KIND_FUNC_PROTO => this.length * 8,
        2 | 7..=12 | 16 | KIND_TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_member_on_the_running_kernel() {
        let btf = KernelBtf::of_running_kernel().expect("this machine has BTF");
        for &member in Member::ALL {
            let offset = btf.offset(member).expect("member exists");
            assert!(offset < 16 * 1024, "{member:?} at {offset}");
        }
        assert_eq!(btf.offset(Member::SockRemoteV4).expect("exists"), 0);
        assert_eq!(btf.offset(Member::UpidNamespace).expect("exists"), 8);
    }

    #[test]
    fn knows_tracepoints() {
        let btf = KernelBtf::of_running_kernel().expect("this machine has BTF");
        assert!(btf.has_tracepoint("sched_process_fork").expect("readable"));
        assert!(!btf.has_tracepoint("sched_process_spork").expect("readable"));
    }

    #[test]
    fn refuses_garbage() {
        assert!(matches!(
            KernelBtf::parse(vec![0; 64]),
            Err(BtfError::Malformed(0))
        ));
        assert!(matches!(
            KernelBtf::parse(vec![0x9f, 0xeb]),
            Err(BtfError::Malformed(_))
        ));
    }
}
