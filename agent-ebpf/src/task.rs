//! Who is running.
//!
//! `current` at a reset is almost never the owner of the socket; on loopback it is the peer. It is asked only where
//! the hook runs in process context, and even then the caller has to know why that process matters.

use agent_common::{connection::Task, layout::Member};

use crate::{
    cgroup,
    kernel::{Kernel, field, has},
};

/// `PF_EXITING`, `include/linux/sched.h`.
const EXITING: u32 = 0x0000_0004;
/// `PF_KTHREAD`: kernel threads, ksoftirqd and the workers of workqueues among them.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Whether a program's code runs on behalf of a user process: not softirq, not a kernel thread, not idle.
///
/// The preemption counter is no symbol a program could read. But every hook has its arguments on the stack it
/// runs on, and softirqs have a stack of their own (`do_softirq_own_stack`), so arguments on the task's own stack mean
/// process context. Work that another CPU's softirq left in a locked socket's backlog (`__release_sock`) also looks
/// like that; callers rule it out by what happened to the socket.
#[inline(always)]
pub fn in_process_context<K: Kernel>(kernel: &K) -> bool {
    let task = kernel.current_task();
    let flags: u32 = field(kernel, task, Member::TaskFlags);
    let pid_tgid = kernel.current_pid_tgid();
    if flags & KERNEL_THREAD != 0 || pid_tgid == 0 {
        return false;
    }
    on_its_stack(kernel)
}

/// Whether the hook runs on the stack of the current task.
#[inline(always)]
pub fn on_its_stack<K: Kernel>(kernel: &K) -> bool {
    let stack: u64 = field(kernel, kernel.current_task(), Member::TaskStack);
    let arguments = kernel.arguments();
    stack != 0 && arguments >= stack && arguments - stack < u64::from(kernel.settings().thread_size)
}

/// Writes the current process over `task`. Only meaningful [in process context](in_process_context).
#[inline(always)]
pub fn read_current<K: Kernel>(kernel: &K, task: &mut Task) {
    let pid_tgid = kernel.current_pid_tgid();
    let leader: u64 = field(kernel, kernel.current_task(), Member::TaskGroupLeader);
    task.tgid = (pid_tgid >> 32) as u32;
    task.tid = pid_tgid as u32;
    task.start_boottime_ns = field(kernel, leader, Member::TaskStartBoottime);
    task.cgroup_id = kernel.current_cgroup_id();
    task.comm = field(kernel, leader, Member::TaskComm);
}

/// Writes the process of any task over `task`.
#[inline(always)]
pub fn read<K: Kernel>(kernel: &K, address: u64, task: &mut Task) {
    let leader: u64 = field(kernel, address, Member::TaskGroupLeader);
    task.tgid = field(kernel, address, Member::TaskTgid);
    task.tid = field(kernel, address, Member::TaskPid);
    task.start_boottime_ns = field(kernel, leader, Member::TaskStartBoottime);
    task.cgroup_id = cgroup::id_of_task(kernel, address);
    task.comm = field(kernel, leader, Member::TaskComm);
}

/// If the current task is exiting, its `exit_code` (the low seven bits are the signal). Every kernel sets it before the
/// files are closed; the process's `group_exit_code` stays 0 before 5.17 if there is but one thread.
#[inline(always)]
pub fn exiting<K: Kernel>(kernel: &K) -> Option<u32> {
    let task = kernel.current_task();
    let flags: u32 = field(kernel, task, Member::TaskFlags);
    if flags & EXITING == 0 {
        return None;
    }
    Some(field(kernel, task, Member::TaskExitCode))
}

/// What has become of a process that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, and what is read of its leader is its own.
    Running,
    /// It has begun to exit and may still have its files; or the kernel does not show enough of it.
    Unclear,
    /// It has ended, files and all.
    Ended,
}

/// What has become of the process `task`, whose leader's `struct task_struct` was at `leader`.
///
/// Memory of a task that has gone is given to the next one: only the pid together with the start time proves that it is
/// still the same. A task found running stays readable until the program ends, for it is freed by RCU.
#[inline(always)]
pub fn life<K: Kernel>(kernel: &K, leader: u64, task: &Task) -> Life {
    let shown = has(kernel, Member::TaskTgid) && has(kernel, Member::TaskStartBoottime);
    if leader == 0 || !shown {
        return Life::Unclear;
    }
    let tgid: u32 = field(kernel, leader, Member::TaskTgid);
    let start: u64 = field(kernel, leader, Member::TaskStartBoottime);
    if tgid != task.tgid || start != task.start_boottime_ns {
        return Life::Ended;
    }
    let flags: u32 = field(kernel, leader, Member::TaskFlags);
    if flags & EXITING == 0 {
        return Life::Running;
    }
    // A leader may end before its other threads. `exit_state` is set after the files are closed (`exit_notify`), `live`
    // counts threads that have not begun to exit (`do_exit`).
    let exit_state: u32 = field(kernel, leader, Member::TaskExitState);
    let signal: u64 = field(kernel, leader, Member::TaskSignal);
    let live: u32 = field(kernel, signal, Member::SignalLive);
    let ended = exit_state != 0 && signal != 0 && has(kernel, Member::SignalLive) && live == 0;
    if ended { Life::Ended } else { Life::Unclear }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, STACK};

    #[test]
    fn arguments_on_the_task_stack_mean_process_context() {
        let kernel = Fake::new();
        assert!(in_process_context(&kernel));
    }

    #[test]
    fn softirq_on_its_own_stack_is_not_process_context() {
        let mut kernel = Fake::new();
        kernel.arguments = STACK + 16 * 1024;
        assert!(!in_process_context(&kernel));
        kernel.arguments = STACK - 8;
        assert!(!in_process_context(&kernel));
    }

    #[test]
    fn kernel_threads_and_idle_own_no_socket() {
        let mut kernel = Fake::new();
        kernel.set_task_flags(KERNEL_THREAD);
        assert!(!in_process_context(&kernel));
        let mut idle = Fake::new();
        idle.pid_tgid = 0;
        assert!(!in_process_context(&idle));
    }

    #[test]
    fn name_is_the_thread_groups_and_not_the_threads() {
        let kernel = Fake::new();
        let mut task = Task::default();
        read_current(&kernel, &mut task);
        assert_eq!(&task.comm[..5], b"envoy");
        assert_eq!((task.tgid, task.tid), (100, 101));
    }

    #[test]
    fn exit_code_is_known_only_of_an_exiting_task() {
        let mut kernel = Fake::new();
        assert_eq!(exiting(&kernel), None);
        kernel.set_task_flags(EXITING);
        kernel.set_exit_code(9);
        assert_eq!(exiting(&kernel), Some(9));
    }
}
