//! Capabilities of this process: what it has, what each is for.

use std::{fs, io};

/// A capability that pilotfish can use (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Bit number.
    pub bit: u32,
    /// Name without the prefix `CAP_`.
    pub name: &'static str,
    /// What pilotfish does with it.
    pub gives: &'static str,
    /// What happens without it.
    pub without: &'static str,
    /// Whether the backbone cannot run without it.
    pub required: bool,
}

const SYS_ADMIN: u32 = 21;

/// Every capability that any feature uses.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        bit: 39,
        name: "BPF",
        gives: "load eBPF programs and maps",
        without: "nothing can be traced",
        required: true,
    },
    Capability {
        bit: 38,
        name: "PERFMON",
        gives: "attach tracing programs and let them read kernel structures",
        without: "nothing can be traced",
        required: true,
    },
    Capability {
        bit: 19,
        name: "SYS_PTRACE",
        gives: "read /proc/PID/{ns,exe,cgroup} of processes of other users",
        without: "only processes of our own user, with no more capabilities than ours, are found and named",
        required: false,
    },
];

/// The effective capability set of this process, from `/proc/self/status`.
pub fn effective() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    parse(&status).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "no CapEff line in /proc/self/status",
        )
    })
}

fn parse(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether a set holds a capability. `CAP_SYS_ADMIN` stands in for BPF and PERFMON, as in the kernel's `bpf_capable`.
pub fn holds(set: u64, capability: &Capability) -> bool {
    let has = |bit: u32| set >> bit & 1 == 1;
    has(capability.bit) || (capability.required && has(SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        let set = parse("Name:\tx\nCapPrm:\t0\nCapEff:\t000000c000080000\n").expect("a set");
        let held: Vec<_> = CAPABILITIES.iter().map(|c| holds(set, c)).collect();
        assert_eq!(held, [true, true, true]);
        assert_eq!(parse("CapEff:\tzz\n"), None);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_but_not_for_ptrace() {
        let held: Vec<_> = CAPABILITIES
            .iter()
            .map(|c| holds(1 << SYS_ADMIN, c))
            .collect();
        assert_eq!(held, [true, true, false]);
    }
}
