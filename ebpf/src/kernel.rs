//! Reading kernel structures whose layout is known only at load time.

use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_get_current_task_btf};
use core::{ffi::c_void, ptr};
use pilotfish_abi::Member;

/// Byte offsets in the order of [`Member::ALL`]; filled in by the loader, constant for the verifier.
#[unsafe(no_mangle)]
static MEMBER_OFFSETS: [u32; Member::ALL.len()] = [0; Member::ALL.len()];

/// Inode number of the agent's pid namespace.
#[unsafe(no_mangle)]
static AGENT_PID_NAMESPACE: u32 = 0;

/// Non-zero if executions of unscoped processes in the agent's pid namespace are reported.
#[unsafe(no_mangle)]
static REPORT_NEWCOMERS: u32 = 0;

/// Pid namespaces nest at most 32 deep (`MAX_PID_NS_LEVEL`); we look through this many.
const NAMESPACE_LEVELS: u32 = 8;

/// Size of `struct upid`: an int, padding and a pointer.
const UPID_SIZE: usize = 16;

#[inline(always)]
fn offset(member: Member) -> usize {
    // SAFETY: in bounds by construction; volatile because the loader replaces the values.
    unsafe { ptr::read_volatile(&raw const MEMBER_OFFSETS[member as usize]) as usize }
}

/// Address of a member.
#[inline(always)]
pub fn address(base: *const c_void, member: Member) -> *const c_void {
    base.wrapping_byte_add(offset(member))
}

/// Loads a member through a pointer that the verifier knows by BTF.
///
/// # Safety
/// `base` must point to the member's structure and `T` must be no larger than the member.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const c_void, member: Member) -> T {
    // SAFETY: by the caller; volatile so that neighbouring loads are not merged across members.
    unsafe { ptr::read_volatile(address(base, member).cast()) }
}

/// Reads `T` from any kernel address; `None` on a fault.
#[inline(always)]
fn read<T: Copy + Default>(from: *const c_void) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the address and writes at most the size of `value`.
    let result = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            from,
        )
    };
    (result == 0).then_some(value)
}

/// The running task.
#[inline(always)]
pub fn current_task() -> *mut task_struct {
    // SAFETY: no arguments; never null in process context.
    unsafe { bpf_get_current_task_btf() }
}

/// The thread-group leader of a task.
#[inline(always)]
pub fn leader(task: *const task_struct) -> *mut task_struct {
    // SAFETY: `task` comes from a helper or a tracepoint argument.
    unsafe { load(task.cast(), Member::TaskGroupLeader) }
}

/// Whether every thread of the task's group is exiting (`signal->live` has reached zero).
#[inline(always)]
pub fn group_is_dead(task: *const task_struct) -> bool {
    // SAFETY: as above; a task that exits still has its signal structure.
    unsafe {
        let signal: *const c_void = load(task.cast(), Member::TaskSignal);
        load::<u32>(signal, Member::SignalLive) == 0
    }
}

/// A task's process id in the agent's pid namespace, or 0 if it has none there.
#[inline(always)]
pub fn agent_view_of_pid(task: *const task_struct) -> u32 {
    // SAFETY: a live task always has a `struct pid`.
    let pid: *const c_void = unsafe { load(task.cast(), Member::TaskThreadPid) };
    let Some(level) = read::<u32>(address(pid, Member::PidLevel)) else {
        return 0;
    };
    let numbers = address(pid, Member::PidNumbers);
    for index in 0..NAMESPACE_LEVELS {
        if index > level {
            break;
        }
        let upid = numbers.wrapping_byte_add(index as usize * UPID_SIZE);
        let Some(namespace) = read::<usize>(address(upid, Member::UpidNamespace)) else {
            break;
        };
        let inode = read::<u32>(address(
            namespace as *const c_void,
            Member::PidNamespaceInode,
        ));
        if inode == Some(agent_pid_namespace()) {
            return read::<u32>(address(upid, Member::UpidNumber)).unwrap_or(0);
        }
    }
    0
}

#[inline(always)]
fn agent_pid_namespace() -> u32 {
    // SAFETY: a plain global; volatile because the loader replaces it.
    unsafe { ptr::read_volatile(&raw const AGENT_PID_NAMESPACE) }
}

/// Whether unscoped processes that execute a program are reported.
#[inline(always)]
pub fn reports_newcomers() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const REPORT_NEWCOMERS) != 0 }
}
