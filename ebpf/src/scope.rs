//! Scope lives on the task: absent means that a program has nothing to do.

use crate::{kernel, maps::SCOPE};
use aya_ebpf::{
    bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, task_struct},
    helpers::generated::bpf_task_storage_get,
};
use core::ptr;
use pilotfish_abi::Scope;

/// The scope of a task's process, if it has one.
#[inline(always)]
pub fn of(task: *const task_struct) -> Option<Scope> {
    // SAFETY: the helper accepts the map and a task pointer that the verifier knows; it returns null or a value.
    let scope = unsafe {
        let value = bpf_task_storage_get(SCOPE.as_ptr(), kernel::leader(task), ptr::null_mut(), 0)
            .cast::<Scope>();
        if value.is_null() {
            return None;
        }
        ptr::read(value)
    };
    (scope.slot != 0).then_some(scope)
}

/// The scope of the running process: the first question of every program in process context.
#[inline(always)]
pub fn in_scope() -> Option<Scope> {
    of(kernel::current_task())
}

/// Puts one task in scope. Threads get an entry too: a thread that executes a program becomes the leader.
#[inline(always)]
pub fn put(task: *mut task_struct, mut scope: Scope) -> bool {
    // SAFETY: as above; the initial value is copied from our stack.
    unsafe {
        let value = (&raw mut scope).cast();
        !bpf_task_storage_get(
            SCOPE.as_ptr(),
            task,
            value,
            BPF_LOCAL_STORAGE_GET_F_CREATE.into(),
        )
        .is_null()
    }
}
