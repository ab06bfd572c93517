//! The kernel side from user space: loading the programs, attaching them, the scope, the counters.

pub mod btf;
mod multi_uprobe;
mod scope_map;
mod task_storage;
mod tls_programs;

pub use btf::{BtfError, KernelBtf};
pub use multi_uprobe::Probe;
pub use scope_map::KernelScope;
pub use tls_programs::{TlsProgram, TlsPrograms};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError},
};
use pilotfish_abi::{
    Counter, MAX_GOROUTINES, MAX_SLOTS, MAX_TLS_CONNECTIONS, MAX_TLS_HELD, MAX_TLS_KEYS,
    MAX_TLS_SEALED, Member, Settings, SlotCounters,
};
use std::{
    fmt, fs, io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

/// The eBPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pilotfish-ebpf"));

/// One program and the kernel hook that runs it.
///
/// The choice of hook for a kernel lives in this one table: older kernels will get other rows.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Name of the program in the object.
    pub program: &'static str,
    /// BTF tracepoint (`tp_btf/...`).
    pub tracepoint: &'static str,
    /// First kernel that has it.
    pub since: &'static str,
    /// What is lost without it.
    pub gives: &'static str,
}

/// Every program of the backbone. Processes first: from the moment that the fork program is attached no child of a
/// process in scope can be missed.
pub const ATTACHMENTS: &[Attachment] = &[
    Attachment {
        program: "process_fork",
        tracepoint: "sched_process_fork",
        since: "2.6",
        gives: "children of observed processes",
    },
    Attachment {
        program: "process_exec",
        tracepoint: "sched_process_exec",
        since: "3.4",
        gives: "processes that enter a running container",
    },
    Attachment {
        program: "process_exit",
        tracepoint: "sched_process_exit",
        since: "2.6",
        gives: "the end of processes",
    },
    Attachment {
        program: "socket_state",
        tracepoint: "inet_sock_set_state",
        since: "4.16",
        gives: "the end of connections",
    },
    Attachment {
        program: "socket_send",
        tracepoint: "sock_send_length",
        since: "6.3",
        gives: "bytes sent",
    },
    Attachment {
        program: "socket_receive",
        tracepoint: "sock_recv_length",
        since: "6.3",
        gives: "bytes received",
    },
];

/// Smallest ring buffer: it must hold a few of the largest records. Bytes.
pub const MIN_RING_BYTES: u32 = 64 * 1024;

/// Ring buffer unless configured otherwise. Bytes.
pub const DEFAULT_RING_BYTES: u32 = 2 * 1024 * 1024;

/// Why the kernel side did not come up.
#[derive(Debug, thiserror::Error)]
pub enum InstrumentError {
    /// No BTF, or a structure that we do not know.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya could not read the kernel's BTF.
    #[error("cannot parse the kernel's BTF: {0}")]
    KernelTypes(#[source] aya::BtfError),
    /// A tracepoint is missing.
    #[error(
        "this kernel has no tracepoint `{name}` (Linux {since} and later); without it pilotfish cannot see {gives}. `pilotfish check` lists what this kernel has"
    )]
    NoTracepoint {
        /// Its name.
        name: &'static str,
        /// First kernel with it.
        since: &'static str,
        /// What it is for.
        gives: &'static str,
    },
    /// The kernel allows no maps at all.
    #[error("the kernel refused pilotfish's eBPF maps: {0}")]
    Maps(#[source] io::Error),
    /// The kernel refused one map or the object.
    #[error("the kernel refused pilotfish's eBPF maps: {}", without_empty_log(.0))]
    Load(#[source] Box<EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the eBPF program `{program}`: {}", without_empty_log(.source))]
    Program {
        /// Its name.
        program: &'static str,
        /// The reason.
        source: Box<ProgramError>,
    },
    /// The kernel refused a TLS program.
    #[error(
        "the kernel refused the eBPF program `{program}`, which sees plaintext of TLS: {source}; Linux 6.6 and later, CAP_BPF and CAP_PERFMON are needed (`pilotfish check` shows which is missing), or switch it off (--tls off)"
    )]
    TlsProgram {
        /// Its name.
        program: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The built-in object could not be prepared.
    #[error("the built-in eBPF object is unusable: {0}; rebuild pilotfish")]
    Relocation(String),
    /// A map is not what the object promises.
    #[error("eBPF map `{map}` is unusable: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The reason.
        source: Box<MapError>,
    },
    /// The object lacks a program or map: built from other sources.
    #[error("the built-in eBPF object has no `{0}`; rebuild pilotfish")]
    Missing(&'static str),
    /// A system fact could not be read.
    #[error("cannot read {what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl InstrumentError {
    /// True when the kernel has everything that is needed, and said no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Maps(_) | Self::Load(_) | Self::Program { .. })
    }

    /// Maps are made in no order; which one was the first to be forbidden says nothing.
    fn of_load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { io_error, .. })
                if io_error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::Maps(io_error)
            }
            error => Self::Load(Box::new(error)),
        }
    }
}

/// What aya says, whose verifier has nothing to say of what it never saw.
fn without_empty_log(error: &impl fmt::Display) -> String {
    let told = error.to_string();
    let log = told.trim_end().strip_suffix(". Verifier output:");
    log.map_or(told.clone(), str::to_owned)
}

/// How the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Size of the ring buffer in bytes; rounded up to a power of two of at least [`MIN_RING_BYTES`].
    pub ring_bytes: u32,
    /// Report executions of unscoped processes in our pid namespace.
    pub report_newcomers: bool,
    /// Load the programs that see plaintext of TLS.
    pub tls: bool,
}

/// The loaded and attached programs. Dropping it detaches them; so does the death of this process.
pub struct Probes {
    ebpf: Ebpf,
    counters: Arc<CounterMap>,
    /// `None` if it was not asked for, or was taken.
    tls: Option<Result<TlsPrograms, InstrumentError>>,
}

/// The counters of each slot.
type CounterMap = PerCpuArray<MapData, CounterValue>;

/// [`SlotCounters`] as aya wants map values.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct CounterValue(SlotCounters);

// SAFETY: plain integers, any bit pattern is valid, no padding.
unsafe impl aya::Pod for CounterValue {}

/// [`Settings`] as aya wants map values.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct SettingsValue(pub(crate) Settings);

// SAFETY: plain integers, any bit pattern is valid, no padding.
unsafe impl aya::Pod for SettingsValue {}

impl Probes {
    /// Loads and attaches everything. Nothing is observed until the scope names a task.
    pub fn load(options: LoadOptions) -> Result<Self, InstrumentError> {
        let kernel = KernelBtf::of_running_kernel()?;
        check_tracepoints(&kernel)?;
        let offsets = member_offsets(&kernel)?;
        drop(kernel);
        let types = Btf::from_sys_fs().map_err(InstrumentError::KernelTypes)?;
        let mut ebpf = load_object(&types, &offsets, options)?;
        for attachment in ATTACHMENTS {
            attach(&mut ebpf, &types, attachment)?;
        }
        drop(types);
        let tls = options.tls.then(|| TlsPrograms::load(&mut ebpf));
        release_free_memory();
        let counters = take_map(&mut ebpf, "COUNTERS", PerCpuArray::try_from)?;
        Ok(Self {
            ebpf,
            counters: Arc::new(counters),
            tls,
        })
    }

    /// The TLS programs, if they were asked for; can be taken once. Everything else works without them.
    pub fn take_tls(&mut self) -> Option<Result<TlsPrograms, InstrumentError>> {
        self.tls.take()
    }

    /// The ring buffer's reading end; can be taken once.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, InstrumentError> {
        take_map(&mut self.ebpf, "RECORDS", RingBuf::try_from)
    }

    /// The writer of scope and settings; can be taken once.
    pub fn take_scope(&mut self) -> Result<KernelScope, InstrumentError> {
        let settings = take_map(&mut self.ebpf, "SETTINGS", Array::try_from)?;
        let scope = self
            .ebpf
            .take_map("SCOPE")
            .ok_or(InstrumentError::Missing("SCOPE"))?;
        let Map::Unsupported(scope) = scope else {
            return Err(InstrumentError::Missing("SCOPE as task storage"));
        };
        let cgroups = take_map(&mut self.ebpf, "CGROUPS", HashMap::try_from)?;
        let counters = Arc::clone(&self.counters);
        Ok(KernelScope::new(scope, settings, cgroups, counters))
    }

    /// Counters of one slot, summed over the CPUs. Slot 0 counts what belongs to no container.
    pub fn counters(&self, slot: u32) -> Result<SlotCounters, InstrumentError> {
        sum(&self.counters, slot)
    }

    /// Counters of every container together.
    pub fn total_counters(&self) -> Result<SlotCounters, InstrumentError> {
        let mut sum = SlotCounters::default();
        for slot in 0..MAX_SLOTS {
            let counters = self.counters(slot)?;
            for (total, part) in sum.values.iter_mut().zip(counters.values) {
                *total += part;
            }
        }
        Ok(sum)
    }

    /// Runs that the kernel skipped because the same program was already running on that CPU, by program.
    pub fn recursion_misses(&self) -> Vec<(&'static str, u64)> {
        ATTACHMENTS
            .iter()
            .map(|a| (a.program, self.missed(a.program).unwrap_or(0)))
            .collect()
    }

    fn missed(&self, name: &str) -> Option<u64> {
        let program = self.ebpf.program(name)?;
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        info.lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"))?
            .trim()
            .parse()
            .ok()
    }
}

/// The kernel's types take some 20 MB in small pieces, which glibc would keep for good.
fn sum(counters: &CounterMap, slot: u32) -> Result<SlotCounters, InstrumentError> {
    let values = counters
        .get(&slot, 0)
        .map_err(|source| InstrumentError::Map {
            map: "COUNTERS",
            source: Box::new(source),
        })?;
    let mut sum = SlotCounters::default();
    for value in values.iter() {
        for (total, part) in sum.values.iter_mut().zip(value.0.values) {
            *total += part;
        }
    }
    Ok(sum)
}

/// Records of what processes did with sockets, whether they found room or not.
pub fn socket_records(counters: &SlotCounters) -> u64 {
    let of_processes = counters.get(Counter::Process);
    counters.get(Counter::Produced).saturating_sub(of_processes)
}

/// Gives the kernel back what reading its types took, most of what the agent ever holds. (With musl the allocator is
/// mimalloc, see `main.rs`.)
fn release_free_memory() {
    // SAFETY: no arguments that could be wrong; the allocator locks itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
    // SAFETY: as above.
    #[cfg(target_env = "musl")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

fn check_tracepoints(kernel: &KernelBtf) -> Result<(), InstrumentError> {
    for &Attachment {
        tracepoint: name,
        since,
        gives,
        ..
    } in ATTACHMENTS
    {
        if !kernel.has_tracepoint(name)? {
            return Err(InstrumentError::NoTracepoint { name, since, gives });
        }
    }
    Ok(())
}

fn member_offsets(kernel: &KernelBtf) -> Result<Vec<u8>, InstrumentError> {
    let mut bytes = Vec::with_capacity(Member::ALL.len() * 4);
    for &member in Member::ALL {
        bytes.extend_from_slice(&kernel.offset(member)?.to_ne_bytes());
    }
    Ok(bytes)
}

fn load_object(types: &Btf, offsets: &[u8], options: LoadOptions) -> Result<Ebpf, InstrumentError> {
    let system = |what| move |source| InstrumentError::System { what, source };
    let cpus =
        aya::util::nr_cpus().map_err(|(what, source)| InstrumentError::System { what, source })?;
    let namespace = pid_namespace_inode().map_err(system("/proc/self/ns/pid"))?;
    let newcomers = u32::from(options.report_newcomers);
    let ring = options
        .ring_bytes
        .clamp(MIN_RING_BYTES, 1 << 30)
        .next_power_of_two();
    let wake_at = ring / 8;
    let scratches = u32::try_from(cpus * 2).unwrap_or(u32::MAX);
    EbpfLoader::new()
        .btf(Some(types))
        .allow_unsupported_maps()
        .override_global("MEMBER_OFFSETS", offsets, true)
        .override_global("AGENT_PID_NAMESPACE", &namespace, true)
        .override_global("REPORT_NEWCOMERS", &newcomers, true)
        .override_global("WAKE_AT_BYTES", &wake_at, true)
        .override_global("TLS_SCRATCHES", &scratches, true)
        .map_max_entries("SCRATCH", scratches)
        .map_max_entries("TLS_SCRATCH", scratches)
        .map_max_entries(
            "TLS_CONNECTIONS",
            if options.tls { MAX_TLS_CONNECTIONS } else { 1 },
        )
        .map_max_entries("GO_CALLS", if options.tls { MAX_GOROUTINES } else { 1 })
        .map_max_entries("TLS_KEYS", if options.tls { MAX_TLS_KEYS } else { 1 })
        .map_max_entries("TLS_SEALED", if options.tls { MAX_TLS_SEALED } else { 1 })
        .map_max_entries("TLS_HELD", if options.tls { MAX_TLS_HELD } else { 1 })
        .map_max_entries("RECORDS", ring)
        .load(OBJECT)
        .map_err(InstrumentError::of_load)
}

fn attach(ebpf: &mut Ebpf, types: &Btf, attachment: &Attachment) -> Result<(), InstrumentError> {
    let program = attachment.program;
    let failed = |source| InstrumentError::Program {
        program,
        source: Box::new(source),
    };
    let loaded = ebpf
        .program_mut(program)
        .ok_or(InstrumentError::Missing(program))?;
    let loaded: &mut BtfTracePoint = loaded.try_into().map_err(failed)?;
    loaded.load(attachment.tracepoint, types).map_err(failed)?;
    loaded.attach().map_err(failed)?;
    Ok(())
}

fn take_map<T>(
    ebpf: &mut Ebpf,
    map: &'static str,
    convert: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, InstrumentError> {
    let taken = ebpf.take_map(map).ok_or(InstrumentError::Missing(map))?;
    convert(taken).map_err(|source| InstrumentError::Map {
        map,
        source: Box::new(source),
    })
}

/// Inode number of our own pid namespace.
pub fn pid_namespace_inode() -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/ns/pid")?.ino() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;

    fn refused_map(name: &str, errno: i32) -> String {
        let error = MapError::CreateError {
            name: name.to_owned(),
            io_error: io::Error::from_raw_os_error(errno),
        };
        InstrumentError::of_load(error.into()).to_string()
    }

    #[test]
    fn a_map_is_named_only_where_it_is_that_map() {
        for errno in [libc::EPERM, libc::EACCES] {
            assert_eq!(refused_map("SCOPE", errno), refused_map("RECORDS", errno));
        }
        assert!(refused_map("SCOPE", libc::ENOMEM).contains("SCOPE"));
    }

    #[test]
    fn a_verifier_that_said_nothing_is_not_mentioned() {
        let refused = "the BPF_PROG_LOAD syscall returned EPERM";
        let told = |log: &str| without_empty_log(&format!("{refused}. Verifier output: {log}"));
        assert_eq!(told(""), refused);
        assert!(told("invalid access").ends_with("Verifier output: invalid access"));
    }
}
