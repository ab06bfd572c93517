//! `pilotfish check`: what this host and these privileges allow, and what each missing thing costs.

pub mod advice;
pub mod privileges;
pub mod refusal;

use crate::instrument::{ATTACHMENTS, DEFAULT_RING_BYTES, KernelBtf, LoadOptions, Probes, btf};
use advice::{Advice, Consequence};
use privileges::{CAPABILITIES, Privileges};
use refusal::Circumstances;
use serde::Serialize;
use std::{fmt, fs, path::Path};

/// Result of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Works.
    Yes,
    /// Does not; tracing works without it.
    No,
    /// Does not, and nothing can be traced without it.
    Fatal,
    /// A fact, neither good nor bad.
    Fact,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// What was asked.
    pub name: String,
    /// The answer.
    pub verdict: Verdict,
    /// The observed value.
    pub found: String,
    /// What a negative answer costs and what to do about it; empty when all is well.
    pub consequence: String,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the backbone can run.
    pub works: bool,
    /// Every answer.
    pub items: Vec<Item>,
}

impl Report {
    /// Asks everything. The last question is the real one: the programs are loaded, attached and removed again.
    pub fn make() -> Self {
        let mut items = vec![kernel_version()];
        items.extend(kernel_types());
        items.push(cgroups());
        items.push(lockdown());
        items.extend(capabilities());
        let lacking = items.iter().any(|item| item.verdict == Verdict::Fatal);
        items.push(trial(lacking));
        let works = items.iter().all(|item| item.verdict != Verdict::Fatal);
        Self { works, items }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let mark = match item.verdict {
                Verdict::Yes => "yes",
                Verdict::No => "no",
                Verdict::Fatal => "NO",
                Verdict::Fact => "-",
            };
            writeln!(out, "{mark:>4}  {:<34} {}", item.name, item.found)?;
            if !item.consequence.is_empty() {
                writeln!(out, "      -> {}", item.consequence)?;
            }
        }
        let summary = if self.works {
            "pilotfish can trace here."
        } else {
            "pilotfish cannot trace here: see the lines marked NO."
        };
        write!(out, "{summary}")
    }
}

fn item(
    name: impl Into<String>,
    verdict: Verdict,
    found: impl Into<String>,
    consequence: impl Into<Option<Consequence>>,
) -> Item {
    let consequence = consequence.into().filter(|_| verdict != Verdict::Yes);
    Item {
        name: name.into(),
        verdict,
        found: found.into(),
        consequence: consequence.map_or_else(String::new, String::from),
    }
}

fn kernel_version() -> Item {
    let release = nix::sys::utsname::uname().map_or_else(
        |error| error.to_string(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    item("kernel", Verdict::Fact, release, None)
}

fn kernel_types() -> Vec<Item> {
    let kernel = match KernelBtf::of_running_kernel() {
        Ok(kernel) => kernel,
        Err(error) => {
            return vec![item(
                "BTF",
                Verdict::Fatal,
                error.to_string(),
                Consequence::from(Advice::NoTypes),
            )];
        }
    };
    let mut items = vec![item("BTF", Verdict::Yes, btf::VMLINUX, None)];
    for attachment in ATTACHMENTS {
        let found = kernel
            .has_tracepoint(attachment.tracepoint)
            .unwrap_or(false);
        let verdict = if found { Verdict::Yes } else { Verdict::Fatal };
        let consequence = Advice::OlderKernel.of(attachment.gives, attachment.since);
        items.push(item(
            format!("tracepoint {}", attachment.tracepoint),
            verdict,
            attachment.gives,
            consequence,
        ));
    }
    let multi = kernel
        .has_enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI")
        .unwrap_or(false);
    let verdict = if multi { Verdict::Yes } else { Verdict::No };
    items.push(item(
        "uprobe_multi",
        verdict,
        "plaintext of TLS",
        Consequence::from(Advice::NoUprobeMulti),
    ));
    items
}

fn cgroups() -> Item {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hybrid = fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|mounts| mounts.contains(" - cgroup2 "));
    let (verdict, found) = if unified {
        (Verdict::Yes, "version 2")
    } else if hybrid {
        (
            Verdict::Fact,
            "version 1 with an unused version 2 beside it",
        )
    } else {
        (Verdict::Fact, "version 1")
    };
    item(
        "cgroups",
        verdict,
        found,
        Consequence::from(Advice::NoUnifiedGroups),
    )
}

fn lockdown() -> Item {
    let path = "/sys/kernel/security/lockdown";
    let state = fs::read_to_string(path).map_or_else(
        |_| "unknown (securityfs not mounted)".to_owned(),
        |text| active_lockdown(&text).to_owned(),
    );
    let (verdict, consequence) = if state == "confidentiality" {
        (Verdict::Fatal, Some(Advice::Confidentiality.into()))
    } else {
        (Verdict::Fact, None)
    };
    item("kernel lockdown", verdict, state, consequence)
}

/// The bracketed word of `none [integrity] confidentiality`.
fn active_lockdown(text: &str) -> &str {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(word, _)| word)
}

fn capabilities() -> Vec<Item> {
    let held = match Privileges::read() {
        Ok(held) => held,
        Err(error) => {
            return vec![item(
                "capabilities",
                Verdict::No,
                error.to_string(),
                Consequence::from(Advice::NoProc),
            )];
        }
    };
    CAPABILITIES
        .iter()
        .map(|capability| {
            let verdict = match (held.holds(capability), capability.required) {
                (true, _) => Verdict::Yes,
                (false, true) => Verdict::Fatal,
                (false, false) => Verdict::No,
            };
            let consequence = held.advice(capability).of(capability.without, "");
            item(
                format!("CAP_{}", capability.name),
                verdict,
                capability.gives,
                consequence,
            )
        })
        .collect()
}

/// `lacking` says that the lines before name something without which it cannot succeed.
fn trial(lacking: bool) -> Item {
    match Probes::load(LoadOptions {
        ring_bytes: DEFAULT_RING_BYTES,
        report_newcomers: false,
        tls: true,
    }) {
        Ok(_) => item(
            "load and attach the programs",
            Verdict::Yes,
            "done, and removed again",
            None,
        ),
        Err(error) => item(
            "load and attach the programs",
            Verdict::Fatal,
            refusal::told(&error),
            Consequence::from(Circumstances::of(&error, lacking).advice()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_active_lockdown_mode() {
        assert_eq!(
            active_lockdown("none [integrity] confidentiality\n"),
            "integrity"
        );
        assert_eq!(active_lockdown("nonsense"), "unknown");
    }

    #[test]
    fn a_negative_answer_always_says_what_it_costs() {
        for item in kernel_types().into_iter().chain(capabilities()) {
            assert!(
                matches!(item.verdict, Verdict::Yes | Verdict::Fact)
                    || !item.consequence.is_empty(),
                "{item:?}"
            );
        }
    }
}
