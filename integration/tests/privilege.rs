//! Least privilege: an unprivileged user with three capabilities, and a clear refusal without one of them.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::server::kind;
use integration::trial::Need;
use integration::{Kind, Scene, Trials, load, place};
use nix::errno::Errno;
use nix::libc;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// `nobody` on every distribution.
const NOBODY: u32 = 65534;

pub(crate) const ENOUGH: &[&str] = &["bpf", "perfmon", "sys_ptrace"];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("privilege");
    let needs = [
        Need::Bpf,
        Need::Root,
        Need::Tool("bpftool"),
        Need::Tool("setpriv"),
        Need::Tool("nginx"),
    ];
    trials.add_with("three_capabilities_are_enough", &needs, |scene| {
        exact_with(ENOUGH, scene)
    });
    for missing in &ENOUGH[..2] {
        trials.add_with(&format!("without_cap_{missing}"), &needs, |scene| {
            refused_without(missing, scene)
        });
    }
    trials.add_with(
        "without_cap_sys_ptrace_named_processes_stay_exact",
        &needs,
        |scene| exact_with(&ENOUGH[..2], scene),
    );
    trials.add_with("without_any", &needs, |scene| {
        refused(&[], "CAP_BPF", scene)
    });
    trials.add_with(
        "check_names_what_is_missing",
        &needs,
        check_names_what_is_missing,
    );
    trials.add_with(
        "check_tells_the_causes_of_a_refusal_apart",
        &[&needs[..], &[Need::Tool("unshare")]].concat(),
        causes_of_a_refusal,
    );
}

/// A copy of the agent that user 65534 may execute, and a folder that it may write.
pub(crate) struct Ground {
    pub(crate) binary: PathBuf,
    pub(crate) output: PathBuf,
}

impl Ground {
    pub(crate) fn prepare(scene: &Scene) -> Result<Self> {
        let binary = scene.folder().join("pilotfish");
        fs::copy(place::agent_binary()?, &binary).context("cannot copy the agent")?;
        fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
        let output = scene.folder().join("output");
        fs::create_dir(&output)?;
        chown(&output, Some(NOBODY), Some(NOBODY))?;
        Ok(Self { binary, output })
    }
}

/// Becomes user 65534 with exactly these capabilities.
pub(crate) fn setpriv(capabilities: &[&str]) -> Result<Vec<OsString>> {
    let list = capabilities
        .iter()
        .fold("-all".to_owned(), |list, capability| {
            format!("{list},+{capability}")
        });
    let user = NOBODY.to_string();
    let words = [
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps",
        &list,
        "--ambient-caps",
        &list,
        "--bounding-set",
        &list,
    ];
    let program = place::tool("setpriv").context("setpriv")?;
    Ok([program.into_os_string()]
        .into_iter()
        .chain(words.map(OsString::from))
        .collect())
}

/// The target is nginx as root with workers of another user: nothing about it belongs to user 65534.
fn exact_with(capabilities: &[&str], scene: &Scene) -> Result<()> {
    let ground = Ground::prepare(scene)?;
    let server = kind("nginx")?.start(scene)?;
    let agent = Setup::watching(scene, &[server.pid()])?
        .wrapped(setpriv(capabilities)?, &ground.binary)
        .print_file(&ground.output.join("spans.jsonl"))
        .start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    ensure!(
        line("Uid:").is_some_and(|ids| ids.split('\t').all(|id| id == "65534")),
        "the agent's user:\n{status}"
    );
    let expected = capabilities.iter().map(|name| bit(name)).sum::<u64>();
    ensure!(
        line("CapEff:") == Some(format!("{expected:016x}").as_str()),
        "the agent's capabilities:\n{status}"
    );
    let tally = load::run(server.port, &load::mix(4, 10))?;
    agent.finish()?.must_match(&tally, Kind::Server)
}

/// Numbers of include/uapi/linux/capability.h.
fn bit(capability: &str) -> u64 {
    match capability {
        "sys_ptrace" => 1 << 19,
        "perfmon" => 1 << 38,
        "bpf" => 1 << 39,
        _ => 0,
    }
}

fn refused_without(missing: &str, scene: &Scene) -> Result<()> {
    let left: Vec<&str> = ENOUGH
        .iter()
        .copied()
        .filter(|capability| *capability != missing)
        .collect();
    refused(&left, &format!("CAP_{}", missing.to_uppercase()), scene)
}

fn refused(capabilities: &[&str], named: &str, scene: &Scene) -> Result<()> {
    let ground = Ground::prepare(scene)?;
    let server = kind("nginx")?.start(scene)?;
    let log = Setup::watching(scene, &[server.pid()])?
        .wrapped(setpriv(capabilities)?, &ground.binary)
        .print_file(&ground.output.join("spans.jsonl"))
        .refused()?;
    ensure!(
        log.contains(named),
        "the message does not name {named}:\n{log}"
    );
    Ok(())
}

fn check_names_what_is_missing(scene: &Scene) -> Result<()> {
    let ground = Ground::prepare(scene)?;
    let without_ptrace = &ENOUGH[..2];
    for (capabilities, fine, named) in [
        (ENOUGH, true, "CAP_SYS_PTRACE"),
        (
            without_ptrace,
            true,
            "without it processes of other users may not be found",
        ),
        (&ENOUGH[1..], false, "CAP_BPF"),
        (&[][..], false, "CAP_PERFMON"),
    ] {
        let mut words = setpriv(capabilities)?.into_iter();
        let mut command = Command::new(words.next().context("setpriv")?);
        let output = command
            .args(words)
            .arg(&ground.binary)
            .args(["check", "--json"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() == fine,
            "with {capabilities:?} check ended with {}:\n{text}",
            output.status
        );
        serde_json::from_str::<serde_json::Value>(&text)
            .with_context(|| format!("not JSON: {text}"))?;
        ensure!(
            text.contains(named),
            "check does not say {named:?}:\n{text}"
        );
    }
    Ok(())
}

/// A filter of system calls is in force in all three cases; only in one it is the cause.
fn causes_of_a_refusal(scene: &Scene) -> Result<()> {
    let ground = Ground::prepare(scene)?;
    let rootless = ["unshare", "--user", "--map-root-user"].map(OsString::from);
    for (wrapper, denied, advice) in [
        (setpriv(&ENOUGH[1..])?, libc::SYS_bpf, "marked NO above"),
        (setpriv(ENOUGH)?, libc::SYS_bpf, "a seccomp filter is"),
        (
            rootless.into(),
            libc::SYS_personality,
            "user namespace only",
        ),
    ] {
        let mut words = wrapper.into_iter();
        let mut command = Command::new(words.next().context("a wrapper")?);
        command.args(words).arg(&ground.binary).arg("check");
        deny(&mut command, denied);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text
            .lines()
            .skip_while(|line| !line.contains("load and attach"))
            .nth(1)
            .with_context(|| format!("no consequence: {output:?}"))?;
        ensure!(said.contains(advice), "not {advice:?}:\n{text}");
    }
    Ok(())
}

/// The program gets `EPERM` for one system call, by a filter as container runtimes set them (seccomp(2)).
fn deny(command: &mut Command, number: libc::c_long) {
    let statement = |code: u32, k: u32, jt: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    // The number of the system call is the first field of what a filter reads.
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            number as u32,
            1,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            0,
        ),
    ];
    let set = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the program and its statements live until the call has returned, which only reads them.
        Errno::result(unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        })?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes one system call.
    unsafe {
        command.pre_exec(set);
    }
}
