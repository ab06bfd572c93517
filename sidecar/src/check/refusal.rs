//! Why the kernel refuses programs, as far as it can be told from here.

use super::{
    advice::Advice,
    privileges::{CAPABILITIES, Privileges},
};
use crate::instrument::InstrumentError;
use nix::libc;
use std::{error::Error, fs, io};

/// A refusal, and what an agent can say of it without asking the kernel more.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}; {}", remedy(.missing))]
pub struct Refused {
    #[source]
    refusal: InstrumentError,
    /// Names of the capabilities that are needed and not there.
    missing: Vec<String>,
}

impl From<InstrumentError> for Refused {
    fn from(refusal: InstrumentError) -> Self {
        let held = Privileges::read().ok();
        let missing = CAPABILITIES.iter().filter(|capability| {
            capability.required && held.is_some_and(|held| !held.holds(capability))
        });
        Self {
            missing: missing
                .map(|capability| format!("CAP_{}", capability.name))
                .collect(),
            refusal,
        }
    }
}

fn remedy(missing: &[String]) -> String {
    if missing.is_empty() {
        "`pilotfish check` says what is in the way".to_owned()
    } else {
        let missing = missing.join(" and ");
        format!("without {missing} nothing can be traced, `pilotfish check` says what to do")
    }
}

/// What is known when the kernel has refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    lacking: bool,
    denial: Option<Denial>,
    /// Capabilities count in a user namespace only, not in the kernel's own.
    in_user_namespace: bool,
    /// A filter of system calls is in force.
    filtered: bool,
}

/// A refusal for want of permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    /// `EPERM`: what `bpf(2)` says to those who lack a capability, and what filters of system calls say to all.
    Privilege,
    /// `EACCES` before the verifier, whose word it is too, has anything to judge: a security module.
    Module,
}

impl Denial {
    fn of(refusal: &InstrumentError) -> Option<Self> {
        match errno(refusal)? {
            libc::EPERM => Some(Self::Privilege),
            libc::EACCES
                if matches!(refusal, InstrumentError::Maps(_) | InstrumentError::Load(_)) =>
            {
                Some(Self::Module)
            }
            _ => None,
        }
    }
}

/// The refusal and the kernel's own word, which some of aya's errors leave to their causes.
pub(super) fn told(refusal: &InstrumentError) -> String {
    let told = refusal.to_string();
    let word = errno(refusal).map(|number| io::Error::from_raw_os_error(number).to_string());
    match word {
        Some(word) if !told.contains(&word) => format!("{word}: {told}"),
        _ => told,
    }
}

/// The number that the kernel gave, if one is among the causes.
fn errno(error: &InstrumentError) -> Option<i32> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let system: Option<&io::Error> = error.downcast_ref();
        if let Some(number) = system.and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = error.source();
    }
    None
}

impl Circumstances {
    /// Those of this process. `lacking` says that something is missing without which nothing works.
    pub(super) fn of(refusal: &InstrumentError, lacking: bool) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            lacking,
            denial: Denial::of(refusal),
            in_user_namespace: is_of_user_namespace(&read("/proc/self/uid_map")),
            filtered: has_filter(&read("/proc/self/status")),
        }
    }

    /// Where to look: at what is known to be in the way before what may be.
    pub(super) fn advice(self) -> Advice {
        match self.denial {
            _ if self.lacking => Advice::MissingAbove,
            Some(Denial::Privilege) if self.in_user_namespace => Advice::UserNamespace,
            Some(Denial::Privilege) if self.filtered => Advice::Filtered,
            Some(_) => Advice::Denied,
            None => Advice::Refused,
        }
    }
}

/// `user_namespaces(7)`: the first one maps every user to itself.
fn is_of_user_namespace(uid_map: &str) -> bool {
    let fields: Vec<&str> = uid_map.split_whitespace().collect();
    !matches!(fields[..], [] | ["0", "0", "4294967295"])
}

/// Documentation/filesystems/proc.rst: 2 is a filter.
fn has_filter(status: &str) -> bool {
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    state.is_some_and(|state| state.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;

    fn system(errno: i32) -> InstrumentError {
        InstrumentError::System {
            what: "a test",
            source: io::Error::from_raw_os_error(errno),
        }
    }

    fn load(errno: i32) -> InstrumentError {
        InstrumentError::Load(Box::new(EbpfError::FileError {
            path: "object".into(),
            error: io::Error::from_raw_os_error(errno),
        }))
    }

    #[test]
    fn each_cause_has_its_own_advice() {
        let advice = |refusal, in_user_namespace, filtered| {
            let circumstances = Circumstances {
                in_user_namespace,
                filtered,
                denial: Denial::of(&refusal),
                lacking: false,
            };
            let lacking = Circumstances {
                lacking: true,
                ..circumstances
            };
            assert_eq!(lacking.advice(), Advice::MissingAbove);
            circumstances.advice()
        };
        assert_eq!(advice(load(libc::EPERM), false, false), Advice::Denied);
        assert_eq!(advice(load(libc::EPERM), false, true), Advice::Filtered);
        assert_eq!(advice(load(libc::EPERM), true, true), Advice::UserNamespace);
        assert_eq!(advice(load(libc::EACCES), true, true), Advice::Denied);
        assert_eq!(advice(system(libc::EACCES), true, true), Advice::Refused);
        assert_eq!(advice(system(libc::ENOMEM), true, true), Advice::Refused);
        let missing = InstrumentError::Missing("a map");
        assert_eq!(advice(missing, true, true), Advice::Refused);
    }

    #[test]
    fn an_agent_names_what_is_missing_and_nothing_else() {
        let told = |missing: &[&str]| {
            let refused = Refused {
                refusal: system(libc::EPERM),
                missing: missing.iter().map(|&name| name.to_owned()).collect(),
            };
            refused.to_string()
        };
        assert!(!told(&[]).contains("CAP_"));
        let one = told(&["CAP_PERFMON"]);
        assert!(
            one.contains("CAP_PERFMON") && !one.contains("CAP_BPF"),
            "{one}"
        );
    }

    #[test]
    fn the_kernels_word_is_told_once() {
        let word = io::Error::from_raw_os_error(libc::ENOMEM).to_string();
        for refusal in [load(libc::ENOMEM), system(libc::ENOMEM)] {
            assert_eq!(told(&refusal).matches(&word).count(), 1, "{refusal}");
        }
    }

    #[test]
    fn reads_what_the_kernel_says_of_a_process() {
        assert!(!is_of_user_namespace("         0          0 4294967295\n"));
        assert!(is_of_user_namespace("         0       1000          1\n"));
        assert!(is_of_user_namespace(
            "         0     100000      65536\n     65536     165536      65536\n"
        ));
        assert!(!is_of_user_namespace(""), "a kernel without them");
        assert!(has_filter("NoNewPrivs:\t1\nSeccomp:\t2\n"));
        assert!(!has_filter("Seccomp:\t0\nSeccomp_filters:\t2\n"));
    }
}
