//! Plans for the kernels of the matrix, by the prototypes their BTF has, and for ones that lack something.

use std::{collections::HashMap, path::Path};

use super::*;

/// A kernel's prototypes.
#[derive(Default)]
struct Fake {
    tracepoints: HashMap<&'static str, usize>,
    functions: HashMap<&'static str, &'static [&'static str]>,
}

impl Prototypes for Fake {
    fn tracepoint_args(&self, name: &str) -> Option<usize> {
        self.tracepoints.get(name).copied()
    }

    fn function_parameters(&self, name: &str) -> Option<Vec<String>> {
        self.functions.get(name).map(|names| names.iter().map(|name| (*name).to_owned()).collect())
    }
}

/// Linux 5.10: `tcp_reset(sk)`, no `__inet_accept`, no reasons.
fn linux_5_10() -> Fake {
    Fake {
        tracepoints: [
            ("inet_sock_set_state", 3),
            ("tcp_destroy_sock", 1),
            ("tcp_receive_reset", 1),
            ("tcp_send_reset", 2),
            ("tcp_rcv_space_adjust", 1),
        ]
        .into(),
        functions: [
            ("tcp_set_state", &["sock", ""][..]),
            ("inet_sk_set_state", &["sock", ""]),
            ("tcp_reset", &["sock"]),
            ("inet_csk_accept", &["sock", "", "", ""]),
            ("tcp_v4_send_reset", &["sock", "sk_buff"]),
            ("tcp_v6_send_reset", &["sock", "sk_buff"]),
        ]
        .into(),
    }
}

/// Linux 6.1.
fn linux_6_1() -> Fake {
    let mut kernel = linux_5_10();
    kernel.functions.insert("tcp_reset", &["sock", "sk_buff"]);
    kernel.functions.insert("__inet_accept", &["socket", "socket", "sock"]);
    kernel
}

/// Linux 6.12: reasons everywhere.
fn linux_6_12() -> Fake {
    let mut kernel = linux_6_1();
    kernel.tracepoints.insert("tcp_send_reset", 3);
    kernel.functions.insert("inet_csk_accept", &["sock", "proto_accept_arg"]);
    for function in ["tcp_v4_send_reset", "tcp_v6_send_reset"] {
        kernel.functions.insert(function, &["sock", "sk_buff", ""]);
    }
    kernel
}

/// The programs of each want, in order: `|` between ways, `+` within one.
fn programs(kernel: &Fake, preference: Preference) -> Vec<String> {
    let way = |way: &Way| way.iter().map(|hook| hook.program).collect::<Vec<_>>().join("+");
    let plan = plan(kernel, preference, true).unwrap();
    plan.wants.iter().map(|want| want.ways.iter().map(way).collect::<Vec<_>>().join("|")).collect()
}

#[test]
fn where_the_segment_is_shown_the_function_goes_before_the_tracepoint() {
    assert_eq!(
        programs(&linux_6_12(), Preference::Auto),
        [
            "inet_sock_set_state|tcp_set_state_fentry+inet_sk_set_state_fentry\
             |tcp_set_state_kprobe+inet_sk_set_state_kprobe",
            "tcp_destroy_sock",
            "inet_accept_fentry|inet_accept_kprobe",
            "tcp_reset_fentry|tcp_reset_kprobe|tcp_receive_reset",
            "tcp_send_reset_reason",
            "tcp_rcv_space_adjust",
        ]
    );
}

#[test]
fn resets_without_a_socket_need_the_functions_only_where_the_tracepoint_misses_them() {
    const ANSWERS: &str = "tcp_v4_send_reset_fentry+tcp_v6_send_reset_fentry\
                           |tcp_v4_send_reset_kprobe+tcp_v6_send_reset_kprobe";
    for (kernel, needed) in [(linux_5_10(), true), (linux_6_1(), true), (linux_6_12(), false)] {
        assert_eq!(programs(&kernel, Preference::Auto).iter().any(|want| want == ANSWERS), needed);
    }
}

/// It would show no more than its tracepoint, whatever is asked for.
#[test]
fn a_tcp_reset_without_the_segment_is_not_probed() {
    for preference in [Preference::Auto, Preference::Fentry, Preference::Kprobe] {
        assert!(programs(&linux_5_10(), preference).contains(&"tcp_receive_reset".to_owned()), "{preference:?}");
    }
    let plan = plan(&linux_5_10(), Preference::Auto, true).unwrap();
    let refusal = plan.refused.iter().find(|refusal| refusal.hook == "tcp_reset").unwrap();
    assert!(refusal.reason.contains("(sock, sk_buff)"), "{}", refusal.reason);
}

#[test]
fn accept_is_watched_at_its_return_only_where_it_has_no_entry() {
    assert!(
        programs(&linux_5_10(), Preference::Auto)
            .contains(&"inet_csk_accept_fexit|inet_csk_accept_kretprobe".to_owned())
    );
    assert!(programs(&linux_6_1(), Preference::Kprobe).contains(&"inet_accept_kprobe".to_owned()));
    let mut odd = linux_6_12();
    odd.functions.remove("__inet_accept");
    let plan = plan(&odd, Preference::Auto, true).unwrap();
    assert!(plan.wants.iter().all(|want| !want.purpose.contains("accepts")));
    assert!(plan.unseen.iter().any(|unseen| unseen.contains("accepts a connection")), "{:?}", plan.unseen);
}

#[test]
fn a_forced_flavour_is_the_only_one_where_there_is_a_choice() {
    assert_eq!(
        programs(&linux_6_1(), Preference::Kprobe),
        [
            "tcp_set_state_kprobe+inet_sk_set_state_kprobe",
            "tcp_destroy_sock",
            "inet_accept_kprobe",
            "tcp_reset_kprobe",
            "tcp_send_reset",
            "tcp_v4_send_reset_kprobe+tcp_v6_send_reset_kprobe",
            "tcp_rcv_space_adjust",
        ]
    );
    let plan = plan(&linux_6_1(), Preference::Fentry, true).unwrap();
    let forced: Vec<_> = plan.wants.iter().map(|want| want.forced).collect();
    assert_eq!(forced, [true, false, true, true, false, true, false]);
}

#[test]
fn with_tracepoints_only_what_is_missing_then_is_said() {
    let plan = plan(&linux_6_1(), Preference::Tracepoint, false).unwrap();
    assert!(
        plan.wants
            .iter()
            .flat_map(|want| want.ways.iter().flatten())
            .all(|hook| { hook.flavour == Flavour::RawTracepoint && hook.program != "tcp_rcv_space_adjust" })
    );
    let said = |words: &[&str]| plan.unseen.iter().any(|unseen| words.iter().all(|word| unseen.contains(word)));
    assert!(said(&[UNSEEN_WITHOUT_SOCKET, "--hooks tracepoint"]), "{:?}", plan.unseen);
    assert!(said(&["accepts a connection", "--hooks tracepoint"]), "{:?}", plan.unseen);
    assert!(said(&["--no-reader-probe"]), "{:?}", plan.unseen);
    assert!(said(&["reset reason"]), "{:?}", plan.unseen);
}

#[test]
fn a_missing_hook_is_named() {
    let error = plan(&Fake::default(), Preference::Auto, true).unwrap_err().to_string();
    assert!(error.contains("inet_sock_set_state") && error.contains("5.10"), "{error}");
}

#[test]
fn without_a_tracepoint_the_functions_still_do() {
    let mut kernel = linux_6_12();
    kernel.tracepoints.remove("inet_sock_set_state");
    let first = &programs(&kernel, Preference::Auto)[0];
    assert!(first.starts_with("tcp_set_state_fentry+inet_sk_set_state_fentry|"), "{first}");
}

#[test]
fn the_running_kernel_has_what_its_plan_names() {
    let btf = Btf::from_kernel(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
    let plan = plan(&btf, Preference::Auto, true).unwrap();
    let hooks: Vec<&Hook> = plan.wants.iter().flat_map(|want| want.ways.iter().flatten()).collect();
    assert!(hooks.iter().any(|hook| hook.hook == "tcp_send_reset"));
    for hook in hooks {
        let there = match hook.flavour {
            Flavour::RawTracepoint => btf.tracepoint_args(hook.hook).is_some(),
            _ => btf.function_parameters(hook.hook).is_some(),
        };
        assert!(there, "{}", hook.hook);
    }
}
