//! From a socket to its cgroups, and whether a cgroup lies in a subtree the user asked for.

use agent_common::{connection::SocketCgroups, layout::Member};

use crate::kernel::{Kernel, field, has};

/// Address of the `struct cgroup` of whoever created the socket; for an accepted socket, the *listener's* creator
/// (`cgroup_sk_clone` copies it).
#[inline(always)]
fn creator<K: Kernel>(kernel: &K, sk: u64) -> u64 {
    if has(kernel, Member::SkCgroup) {
        return field(kernel, sk, Member::SkCgroup);
    }
    // Up to 5.14 the word is a pointer only if both low bits are clear: bit 0 says net_cls/net_prio data, bit 1 that
    // accounting is off.
    let value: u64 = field(kernel, sk, Member::SkCgroupVal);
    if value & 3 == 0 { value } else { 0 }
}

/// Address of the `struct cgroup` that the socket's memory is charged to: the acceptor's, because `accept()` charges
/// anew. 0 where the memory controller is not on cgroup v2: an id of a v1 hierarchy would name another directory.
#[inline(always)]
fn memory<K: Kernel>(kernel: &K, sk: u64) -> u64 {
    let memcg: u64 = field(kernel, sk, Member::SkMemcg);
    let cgroup: u64 = field(kernel, memcg, Member::MemcgCgroup);
    let root: u64 = field(kernel, cgroup, Member::CgroupRoot);
    if root == 0 || !has(kernel, Member::CgroupRootHierarchy) {
        return 0;
    }
    // The default hierarchy is number 0, which is why /proc/PID/cgroup shows v2 as `0::`.
    let hierarchy: u32 = field(kernel, root, Member::CgroupRootHierarchy);
    if hierarchy == 0 { cgroup } else { 0 }
}

/// Id of the `struct cgroup` at `cgroup`, which is the inode number of its directory.
#[inline(always)]
fn id<K: Kernel>(kernel: &K, cgroup: u64) -> u64 {
    let node: u64 = field(kernel, cgroup, Member::CgroupKn);
    field(kernel, node, Member::KernfsId)
}

/// The cgroups of a full socket or a listener. Never of a mini-socket: those end before these members.
#[inline(always)]
pub fn of_socket<K: Kernel>(kernel: &K, sk: u64) -> SocketCgroups {
    SocketCgroups { memory: id(kernel, memory(kernel, sk)), creator: id(kernel, creator(kernel, sk)) }
}

/// Id of `cgroup`'s ancestor `level` steps below the root; 0: it is not that deep.
#[inline(always)]
fn ancestor<K: Kernel>(kernel: &K, cgroup: u64, level: u64) -> u64 {
    let own_level: u32 = field(kernel, cgroup, Member::CgroupLevel);
    if cgroup == 0 || u64::from(own_level) < level {
        return 0;
    }
    if has(kernel, Member::CgroupAncestors) {
        let ancestor: u64 = kernel.read(cgroup, kernel.location(Member::CgroupAncestors).byte() + level * 8);
        id(kernel, ancestor)
    } else if has(kernel, Member::CgroupAncestorIds) {
        kernel.read(cgroup, kernel.location(Member::CgroupAncestorIds).byte() + level * 8)
    } else {
        0
    }
}

/// Whether `cgroup` lies in one of the subtrees asked for.
#[inline(always)]
fn asked_for<K: Kernel>(kernel: &K, cgroup: u64) -> bool {
    let settings = kernel.settings();
    let mut found = false;
    for (index, subtree) in settings.cgroups.iter().enumerate() {
        if (index as u32) < settings.cgroup_count && ancestor(kernel, cgroup, subtree.level) == subtree.id {
            found = true;
        }
    }
    found
}

/// Answers of the cgroup filter, as [`Connection::owner_in_cgroup`](agent_common::connection::Connection) keeps them.
pub mod verdict {
    /// Not asked.
    pub const UNTESTED: u8 = 0;
    /// Outside every subtree asked for.
    pub const OUTSIDE: u8 = 1;
    /// Inside one.
    pub const INSIDE: u8 = 2;
}

/// Judges the current task's cgroup.
#[inline(always)]
pub fn judge_current<K: Kernel>(kernel: &K) -> u8 {
    judge_task(kernel, kernel.current_task())
}

/// Judges a task's cgroup.
#[inline(always)]
pub fn judge_task<K: Kernel>(kernel: &K, task: u64) -> u8 {
    if kernel.settings().cgroup_count == 0 {
        return verdict::UNTESTED;
    }
    if asked_for(kernel, of_task(kernel, task)) { verdict::INSIDE } else { verdict::OUTSIDE }
}

/// Address of a task's `struct cgroup` in the v2 hierarchy.
#[inline(always)]
fn of_task<K: Kernel>(kernel: &K, task: u64) -> u64 {
    let set: u64 = field(kernel, task, Member::TaskCgroups);
    field(kernel, set, Member::CssSetDefault)
}

/// Id of a task's cgroup in the v2 hierarchy, as `bpf_get_current_cgroup_id()` gives it of the current one.
#[inline(always)]
pub fn id_of_task<K: Kernel>(kernel: &K, task: u64) -> u64 {
    id(kernel, of_task(kernel, task))
}

/// Judges a socket by its cgroups, for when no process is known.
#[inline(always)]
pub fn judge_socket<K: Kernel>(kernel: &K, sk: u64) -> u8 {
    if kernel.settings().cgroup_count == 0 {
        return verdict::UNTESTED;
    }
    let acceptor = memory(kernel, sk);
    let cgroup = if acceptor == 0 { creator(kernel, sk) } else { acceptor };
    if asked_for(kernel, cgroup) { verdict::INSIDE } else { verdict::OUTSIDE }
}

#[cfg(test)]
mod tests {
    use agent_common::settings::CgroupSubtree;

    use super::*;
    use crate::fake::Fake;

    #[test]
    fn id_of_the_creator_is_read_through_the_pointer() {
        let mut kernel = Fake::new();
        let cgroup = kernel.cgroup(4711, &[1, 20, 4711]);
        let sk = kernel.established();
        kernel.set(sk, Member::SkCgroup, cgroup);
        assert_eq!(of_socket(&kernel, sk), SocketCgroups { memory: 0, creator: 4711 });
    }

    #[test]
    fn on_5_10_flagged_words_are_no_pointers() {
        let mut kernel = Fake::new();
        kernel.swap(Member::SkCgroup, Member::SkCgroupVal);
        let cgroup = kernel.cgroup(4711, &[1, 4711]);
        let sk = kernel.established();
        kernel.set(sk, Member::SkCgroupVal, cgroup);
        assert_eq!(of_socket(&kernel, sk).creator, 4711);
        kernel.set(sk, Member::SkCgroupVal, cgroup | 1);
        assert_eq!(of_socket(&kernel, sk).creator, 0, "net_prio data");
        kernel.set(sk, Member::SkCgroupVal, cgroup | 2);
        assert_eq!(of_socket(&kernel, sk).creator, 0, "accounting switched off");
    }

    #[test]
    fn memory_cgroup_of_a_v1_hierarchy_is_not_an_id_of_ours() {
        let mut kernel = Fake::new();
        let cgroup = kernel.cgroup(55, &[1, 55]);
        let sk = kernel.established();
        kernel.charge_memory(sk, cgroup, 0);
        assert_eq!(of_socket(&kernel, sk).memory, 55);
        kernel.charge_memory(sk, cgroup, 4);
        assert_eq!(of_socket(&kernel, sk).memory, 0);
    }

    #[test]
    fn a_subtree_takes_in_all_below_it_and_nothing_beside_it() {
        let mut kernel = Fake::new();
        let deep = kernel.cgroup(4711, &[1, 20, 300, 4711]);
        let beside = kernel.cgroup(4712, &[1, 21, 300, 4712]);
        let sk = kernel.established();
        kernel.settings.cgroup_count = 1;
        kernel.settings.cgroups[0] = CgroupSubtree { id: 20, level: 1 };
        kernel.set(sk, Member::SkCgroup, deep);
        assert_eq!(judge_socket(&kernel, sk), verdict::INSIDE);
        kernel.set(sk, Member::SkCgroup, beside);
        assert_eq!(judge_socket(&kernel, sk), verdict::OUTSIDE);
    }

    #[test]
    fn nobody_asked_nobody_is_judged() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        assert_eq!(judge_socket(&kernel, sk), verdict::UNTESTED);
    }
}
