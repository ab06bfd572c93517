//! The TLS programs: loaded once, attached to a process's libraries one by one.

use super::{
    InstrumentError, OBJECT,
    multi_uprobe::{self, At, Probe},
    task_storage,
};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProgram {
    /// Entries of C functions.
    Enter,
    /// Returns of C functions.
    Leave,
    /// Entries and return instructions of Go functions.
    Go,
    /// Entries of the functions of rustls's record layer.
    RecordEnter,
    /// Returns of these.
    RecordLeave,
}

impl TlsProgram {
    const ALL: [Self; 5] = [
        Self::Enter,
        Self::Leave,
        Self::Go,
        Self::RecordEnter,
        Self::RecordLeave,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Enter => "tls_enter",
            Self::Leave => "tls_leave",
            Self::Go => "tls_go",
            Self::RecordEnter => "tls_record_enter",
            Self::RecordLeave => "tls_record_leave",
        }
    }

    const fn at(self) -> At {
        match self {
            Self::Enter | Self::Go | Self::RecordEnter => At::Instruction,
            Self::Leave | Self::RecordLeave => At::Return,
        }
    }
}

/// The loaded programs and the map of processes that have their probes.
pub struct TlsPrograms {
    /// In the order of [`TlsProgram::ALL`].
    programs: [OwnedFd; 5],
    processes: MapData,
}

impl TlsPrograms {
    /// Loads the programs of the built-in object with the maps that `ebpf` has made of it.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, InstrumentError> {
        let instructions = relocated(ebpf)?;
        let load = |program: TlsProgram| {
            let name = program.name();
            let code = instructions
                .get(name)
                .ok_or(InstrumentError::Missing(name))?;
            multi_uprobe::load(name, code, c"Dual MIT/GPL").map_err(|source| {
                InstrumentError::TlsProgram {
                    program: name,
                    source,
                }
            })
        };
        let [enter, leave, go, record_enter, record_leave] = TlsProgram::ALL.map(load);
        let programs = [enter?, leave?, go?, record_enter?, record_leave?];
        let Some(Map::Unsupported(processes)) = ebpf.take_map("TLS_PROCESSES") else {
            return Err(InstrumentError::Missing("TLS_PROCESSES as task storage"));
        };
        Ok(Self {
            programs,
            processes,
        })
    }

    /// Attaches one program to places of an open file in one process. Dropping the descriptor detaches it.
    ///
    /// # Errors
    /// `ESRCH` when the process is gone.
    pub fn link(
        &self,
        program: TlsProgram,
        file: BorrowedFd<'_>,
        probes: &[Probe],
        pid: i32,
    ) -> io::Result<OwnedFd> {
        let [enter, leave, go, record_enter, record_leave] = &self.programs;
        let loaded = match program {
            TlsProgram::Enter => enter,
            TlsProgram::Leave => leave,
            TlsProgram::Go => go,
            TlsProgram::RecordEnter => record_enter,
            TlsProgram::RecordLeave => record_leave,
        };
        multi_uprobe::link(loaded.as_fd(), file, program.at(), probes, pid)
    }

    /// Whether a link still sees the calls of this process: not if a thread other than its leader has executed a program.
    /// Before Linux 6.8 no link is known to.
    pub fn sees(&self, link: BorrowedFd<'_>, pid: i32) -> bool {
        matches!(multi_uprobe::process_of(link), Ok(Some(of)) if of == pid)
    }

    /// Says how the socket operations of a process find their TLS calls: bits of [`pilotfish_abi::tls_calls`].
    pub fn mark(&self, pidfd: BorrowedFd<'_>, calls: u32) -> io::Result<()> {
        task_storage::update(self.processes.fd().as_fd(), pidfd, &calls)
    }

    /// Ends that.
    pub fn unmark(&self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        task_storage::remove(self.processes.fd().as_fd(), pidfd)
    }
}

/// The code of every program, with references to the maps in place: what `EbpfLoader` does on its way to loading
/// programs in the one way that it knows.
fn relocated(ebpf: &Ebpf) -> Result<HashMap<String, Vec<u8>>, InstrumentError> {
    let refused = |error: String| InstrumentError::Relocation(error);
    let mut object = aya_obj::Object::parse(OBJECT).map_err(|error| refused(error.to_string()))?;
    let maps = object.maps.clone();
    let descriptors: HashMap<&str, i32> = ebpf
        .maps()
        .filter_map(|(name, map)| Some((name, descriptor(map)?)))
        .collect();
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let known = maps.iter().filter_map(|(name, map)| {
        let descriptor = descriptors.get(name.as_str())?;
        Some((name.as_str(), *descriptor, map))
    });
    object
        .relocate_maps(known, &text)
        .map_err(|error| refused(error.to_string()))?;
    object
        .relocate_calls(&text)
        .map_err(|error| refused(error.to_string()))?;
    Ok(TlsProgram::ALL
        .iter()
        .filter_map(|program| {
            let found = object.programs.get(program.name())?;
            let function = object.functions.get(&found.function_key())?;
            Some((program.name().to_owned(), bytes(&function.instructions)))
        })
        .collect())
}

/// Instructions as the kernel reads them (`struct bpf_insn`).
fn bytes(instructions: &[aya_obj::generated::bpf_insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(instructions.len() * 8);
    for instruction in instructions {
        let registers = instruction.dst_reg() | instruction.src_reg() << 4;
        bytes.extend([instruction.code, registers]);
        bytes.extend(instruction.off.to_ne_bytes());
        bytes.extend(instruction.imm.to_ne_bytes());
    }
    bytes
}

/// The descriptor of a map of a type that the object has.
fn descriptor(map: &Map) -> Option<i32> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::ProgramArray(data)
    | Map::RingBuf(data)
    | Map::SkStorage(data)
    | Map::Unsupported(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}
