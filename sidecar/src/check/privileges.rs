//! Capabilities of this process: what it has, what each is for.

use super::advice::Advice;
use crate::discovery::OwnContainer;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
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
        gives: "read /proc/PID/{ns,exe,maps} of processes of other users",
        without: "processes of other users may not be found or named, and their TLS is not seen",
        required: false,
    },
];

/// Makes those of [`CAPABILITIES`] effective that this process may use but does not: a binary's file capabilities
/// without the effective bit arrive so. With the bit, `execve` would fail wherever one of them is not allowed
/// (capabilities(7), "Safety checking for capability-dumb binaries"), and nobody could be told which.
///
/// It concerns the calling thread and those that it starts later, so it has to come first.
pub fn raise() -> io::Result<()> {
    let held = thread::capabilities(None)?;
    let raised = held.effective | (held.permitted & usable());
    if raised == held.effective {
        return Ok(());
    }
    let sets = CapabilitySets {
        effective: raised,
        ..held
    };
    Ok(thread::set_capabilities(None, sets)?)
}

/// The bits of [`CAPABILITIES`].
fn usable() -> CapabilitySet {
    CAPABILITIES
        .iter()
        .map(|capability| CapabilitySet::from_bits_retain(1 << capability.bit))
        .collect()
}

/// The capability sets of this process, from `/proc/self/status`, and what rules them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// What it can use now.
    pub effective: u64,
    /// What executing a file could give it at most.
    pub bounding: u64,
    /// Whether executing a file gives nothing (`PR_SET_NO_NEW_PRIVS`).
    pub no_new: bool,
    /// Whether this is the host's own pid namespace: most likely no container, and so no image.
    pub on_host: bool,
}

impl Privileges {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let on_host = OwnContainer::detect().is_ok_and(|own| own.is_in_host_pid_namespace());
        Self::parse(&status, on_host).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "no CapEff, CapBnd and NoNewPrivs lines in /proc/self/status",
            )
        })
    }

    fn parse(status: &str, on_host: bool) -> Option<Self> {
        let line = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim())
        };
        let set = |key: &str| u64::from_str_radix(line(key)?, 16).ok();
        Some(Self {
            effective: set("CapEff:")?,
            bounding: set("CapBnd:")?,
            no_new: line("NoNewPrivs:")? == "1",
            on_host,
        })
    }

    /// Whether a capability can be used. `CAP_SYS_ADMIN` stands in for BPF and PERFMON, as in the kernel's
    /// `bpf_capable`.
    pub fn holds(&self, capability: &Capability) -> bool {
        holds(self.effective, capability)
    }

    /// What to do to get a capability.
    pub fn advice(&self, capability: &Capability) -> Advice {
        let granted = self.bounding >> capability.bit & 1 == 1;
        match (granted, self.no_new) {
            (true, true) => Advice::NoNewPrivileges,
            (true, false) if self.on_host => Advice::Ordinary,
            (true, false) => Advice::NotOfThisUser,
            (false, _) => Advice::NotGranted,
        }
    }
}

fn holds(set: u64, capability: &Capability) -> bool {
    let has = |bit: u32| set >> bit & 1 == 1;
    has(capability.bit) || (capability.required && has(SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nCapPrm:\t0\nCapEff:\t0000008000080000\nCapBnd:\t000000c000080000\n\
                          NoNewPrivs:\t1\n";

    #[test]
    fn reads_the_sets() {
        let read = Privileges::parse(STATUS, false).expect("sets");
        let held: Vec<_> = CAPABILITIES.iter().map(|c| read.holds(c)).collect();
        assert_eq!(held, [true, false, true]);
        assert_eq!(Privileges::parse("CapEff:\tzz\n", false), None);
        assert_eq!(
            Privileges::parse(&STATUS.replace("NoNewPrivs", "Other"), false),
            None
        );
    }

    #[test]
    fn the_advice_fits_what_is_in_the_way() {
        let perfmon = &CAPABILITIES[1];
        let barred = Privileges::parse(STATUS, false).expect("sets");
        assert_eq!(barred.advice(perfmon), Advice::NoNewPrivileges);
        let free = Privileges {
            no_new: false,
            ..barred
        };
        assert_eq!(free.advice(perfmon), Advice::NotOfThisUser);
        let user_of_a_host = Privileges {
            on_host: true,
            ..free
        };
        assert_eq!(user_of_a_host.advice(perfmon), Advice::Ordinary);
        let bare = Privileges {
            bounding: 0,
            ..barred
        };
        assert_eq!(bare.advice(perfmon), Advice::NotGranted);
    }

    /// In a thread of its own, whose capabilities nobody else has.
    #[test]
    fn what_may_be_used_is_used_and_nothing_else() {
        let raised = std::thread::spawn(|| {
            let held = thread::capabilities(None).expect("capget");
            let lowered = CapabilitySets {
                effective: CapabilitySet::empty(),
                ..held
            };
            thread::set_capabilities(None, lowered).expect("capset");
            raise().expect("raising");
            let now = thread::capabilities(None).expect("capget");
            assert_eq!(now.permitted, held.permitted);
            (held.permitted & usable(), now.effective)
        });
        let (allowed, effective) = raised.join().expect("no panic");
        assert_eq!(effective, allowed);
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
