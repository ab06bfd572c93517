//! Life cycle of processes: scope is inherited, and user space hears of it.

use crate::{kernel, maps, maps::CGROUPS, output, scope};
use aya_ebpf::{
    bindings::task_struct, helpers::generated::bpf_get_current_cgroup_id, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use pilotfish_abi::{Counter, Header, Kind, Member, Scope};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, all kernels to 6.18.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    forked(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn forked(parent: *mut task_struct, child: *mut task_struct) -> Option<()> {
    let inherited = scope::of(parent)?;
    let is_process = kernel::leader(child) == child;
    let tgid = if is_process {
        kernel::agent_view_of_pid(child)
    } else {
        inherited.tgid
    };
    if !scope::put(
        child,
        Scope {
            slot: inherited.slot,
            tgid,
        },
    ) {
        maps::count(inherited.slot, Counter::ScopeStorage, 1);
        return None;
    }
    if is_process {
        deliver(&Header {
            offset: u64::from(inherited.tgid),
            ..process_header(
                Kind::Fork,
                Scope {
                    slot: inherited.slot,
                    tgid,
                },
                child,
            )
        });
    }
    Some(())
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, all kernels to 6.18.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    executed(ctx.arg(0));
    0
}

#[inline(always)]
fn executed(task: *mut task_struct) {
    if let Some(scope) = scope::of(task) {
        deliver(&process_header(Kind::Exec, scope, task));
        return;
    }
    // Not in scope: a process that entered a container from outside (`docker exec`) is met here first.
    // SAFETY: no arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the value is copied out at once.
    if let Some(slot) = unsafe { CGROUPS.get(cgroup) }.copied() {
        let entered = Scope {
            slot,
            tgid: kernel::agent_view_of_pid(task),
        };
        if scope::put(task, entered) {
            deliver(&process_header(Kind::Exec, entered, task));
        } else {
            maps::count(slot, Counter::ScopeStorage, 1);
        }
        return;
    }
    if kernel::reports_newcomers() {
        let tgid = kernel::agent_view_of_pid(task);
        if tgid != 0 {
            deliver(&process_header(
                Kind::Newcomer,
                Scope { slot: 0, tgid },
                task,
            ));
        }
    }
}

/// `sched_process_exit(struct task_struct *p)`, with `bool group_dead` appended in 6.16.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    exited(ctx.arg(0));
    0
}

#[inline(always)]
fn exited(task: *mut task_struct) -> Option<()> {
    let scope = scope::of(task)?;
    if kernel::group_is_dead(task) {
        deliver(&process_header(Kind::Exit, scope, task));
    }
    Some(())
}

#[inline(always)]
fn deliver(header: &Header) {
    maps::count(header.slot, Counter::Process, 1);
    // A new program may talk TLS within milliseconds, and only user space can find its library. Next to what a fork or an
    // execution costs, an interrupt is nothing.
    if header.kind == Kind::Fork as u8 || header.kind == Kind::Exec as u8 {
        output::deliver_header_now(header);
    } else {
        output::deliver_header(header);
    }
}

#[inline(always)]
fn process_header(kind: Kind, scope: Scope, task: *const task_struct) -> Header {
    Header {
        kind: kind as u8,
        slot: scope.slot,
        tgid: scope.tgid,
        // SAFETY: the task comes from a tracepoint's argument.
        tid: unsafe { kernel::load(task.cast(), Member::TaskPid) },
        time: output::now(),
        ..Header::default()
    }
}
