//! Everything that `pilotfish check` can say about what is missing. The troubleshooting table of manifests/README.md
//! has all of it, which a test sees to.

use clap::ValueEnum;

/// What a negative answer costs and what to do about it. `ValueEnum` lists them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Advice {
    /// The kernel does not describe its types.
    NoTypes,
    /// A tracepoint is not there.
    OlderKernel,
    /// No uprobes of many places at once.
    NoUprobeMulti,
    /// Control groups of version 1.
    NoUnifiedGroups,
    /// The strict mode of lockdown.
    Confidentiality,
    /// The process cannot read about itself.
    NoProc,
    /// A capability that the container was not given.
    NotGranted,
    /// One that is void because executing a file may give nothing.
    NoNewPrivileges,
    /// Outside of containers: neither the user nor the file has it.
    Ordinary,
    /// One that the container has, but neither user nor file.
    NotOfThisUser,
    /// The kernel refused, and what was asked before says why.
    MissingAbove,
    /// The kernel refused a permission, and capabilities are those of a user namespace.
    UserNamespace,
    /// The kernel refused a permission, and a filter of system calls is in force.
    Filtered,
    /// The kernel refused a permission, nobody knows why.
    Denied,
    /// Something else failed.
    Refused,
}

impl Advice {
    /// The sentence. Words in braces are put in by [`Advice::of`].
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoTypes => {
                "use a distribution kernel with CONFIG_DEBUG_INFO_BTF=y and mount /sys"
            }
            Self::OlderKernel => "needs Linux {since}; without it {what} cannot be seen",
            Self::NoUprobeMulti => "needs Linux 6.6; without it plaintext of TLS is not seen",
            Self::NoUnifiedGroups => {
                "processes that enter a container later are found by their exec and procfs instead of their cgroup"
            }
            Self::Confidentiality => {
                "this mode forbids eBPF programs to read kernel memory; boot with lockdown=integrity or none"
            }
            Self::NoProc => "mount /proc",
            Self::NotGranted => {
                "without it {what}; add it to the container's securityContext or `--cap-add`"
            }
            Self::NoNewPrivileges => {
                "without it {what}; it is granted, but no_new_privs voids what the image's binary has as file \
                 capability: allow privilege escalation (Kubernetes: allowPrivilegeEscalation: true; docker: no \
                 --security-opt no-new-privileges), or run as user 0"
            }
            Self::Ordinary => {
                "without it {what}; run pilotfish as root (sudo), or give this copy of the binary what it needs: `setcap \
                 cap_bpf,cap_perfmon,cap_sys_ptrace+p FILE`"
            }
            Self::NotOfThisUser => {
                "without it {what}; it is granted, but not to this user with this copy of the binary: use the image's \
                 binary, which has it as file capability (`getcap` shows it), or run as user 0"
            }
            Self::MissingAbove => "this follows from the lines marked NO above; mend those first",
            Self::UserNamespace => {
                "capabilities count within this user namespace only, and eBPF asks for the host's: start the container \
                 without a user namespace (podman: as root; docker: --userns=host, no rootless daemon; Kubernetes: \
                 hostUsers not false)"
            }
            Self::Filtered => {
                "a seccomp filter is in force, and those of some runtimes refuse bpf(2) to all but CAP_SYS_ADMIN: give \
                 the container a profile that allows bpf and perf_event_open (--security-opt seccomp=...), or unconfined"
            }
            Self::Denied => {
                "neither a capability nor a seccomp filter is in the way; most likely it is a security module (SELinux, \
                 AppArmor), whose log says what it refused"
            }
            Self::Refused => {
                "it is no matter of permission: the message is the kernel's own, and `dmesg` may have more of it"
            }
        }
    }

    /// The sentence about `what`, which is there from Linux `since` on.
    pub fn of(self, what: &str, since: &str) -> Consequence {
        let text = self.text();
        Consequence(text.replace("{what}", what).replace("{since}", since))
    }
}

/// An advice put into words; nothing else makes one, so that no check says what the table does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consequence(String);

impl From<Advice> for Consequence {
    fn from(advice: Advice) -> Self {
        Self(advice.text().to_owned())
    }
}

impl From<Consequence> for String {
    fn from(consequence: Consequence) -> Self {
        consequence.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table writes `...` for what is put in.
    #[test]
    fn the_troubleshooting_table_has_all_of_it_and_nothing_else() {
        let page = include_str!("../../../manifests/README.md");
        let (_, table) = page
            .split_once("| `check` says | what to do |\n|---|---|\n")
            .expect("a table");
        let rows = table.lines().take_while(|line| line.starts_with("| "));
        let mut documented: Vec<&str> = rows
            .filter_map(|row| row.strip_prefix("| ")?.split_once(" | "))
            .map(|(says, _)| says)
            .collect();
        let all = Advice::value_variants().iter();
        let mut possible: Vec<String> = all
            .map(|advice| String::from(advice.of("...", "...")))
            .collect();
        documented.sort_unstable();
        possible.sort_unstable();
        assert_eq!(documented, possible);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            String::from(Advice::OlderKernel.of("bytes sent", "6.3")),
            "needs Linux 6.3; without it bytes sent cannot be seen"
        );
    }
}
