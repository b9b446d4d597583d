//! What misleads whoever explains resets, and where this program minds it.
//!
//! Each of these was met with real programs on a real kernel, and each makes a wrong line if it is forgotten. The last
//! column names tests, here, on the kernel side or against the running kernel; a unit test checks that they exist.
//!
//! Who did it
//!
//! | # | what misleads | what is done | held by |
//! |---|---|---|---|
//! | 1 | at a received reset `current` is the peer's process, anybody's, or by chance the right one | received resets have no actor; owners are learned at connect, read and close | `a_received_reset_has_no_actor_even_in_process_context`, `the_reader_of_an_accepted_connection_is_known_when_the_peer_resets_it` |
//! | 2 | process context is no proof of ownership either: `ss -K` sends the RST itself | a socket that was still open names its destroyer as actor and keeps its owner | `destroyed_by_an_administrator` |
//! | 3 | a task's name is its thread's | the thread group leader's is taken | `the_process_is_named_and_not_the_thread_that_read` |
//! | 4 | a socket keeps the cgroup of whoever made it, an accepted one that of the listener's maker | the owner's own cgroup comes first; the maker's is marked `creator` | `cgroup_of_the_owner_comes_before_the_acceptors_before_the_creators`, `a_process_that_moved_is_found_where_it_is` |
//! | 5 | who connected, accepted or read first need not have the socket any more, nor be the same program in the same place | the last reader counts; at a reset and a close the record is held against the process, and one that has ended owns no open socket | `whoever_got_a_descriptor_and_reads_is_named_and_not_whoever_connected`, `a_process_goes_by_what_it_executes_at_the_reset`, `a_process_that_moves_with_its_connection_is_found_where_it_is`, `a_process_that_has_ended_is_not_named_for_a_socket_that_another_one_has` |
//! | 6 | softirq cannot be told from a process by asking the kernel | by whose stack holds the hook's arguments; kernel threads own nothing | `softirq_on_its_own_stack_is_not_process_context`, `kernel_threads_and_idle_own_no_socket` |
//!
//! Events
//!
//! | # | what misleads | what is done | held by |
//! |---|---|---|---|
//! | 7 | `tcp_receive_reset` runs without a RST when data meets a closed or shut socket; in FIN_WAIT1 that data left before our FIN was known | it becomes a reset sent; in FIN_WAIT1, after idleness, a keep-alive race | `data_for_a_shut_down_reader_is_sent_not_received_v4`, `cause_request_that_crossed_the_fin`, `data_that_crossed_the_fin_is_a_race_where_the_server_was_idle` |
//! | 8 | `tcp_send_reset` runs if nothing leaves; a firewall's RST does not run it | no line says that the peer got it; a missing sender is evidence only where every sender is seen | `cause_keepalive_timeout`, `cause_rejected_by_firewall` |
//! | 9 | on one host a RST that its owner sends is received before it is sent, an answer after it | either end waits for the other; nothing is concluded from order | `ends_find_each_other_in_either_order` |
//! | 10 | both ends on one host give two lines, with different addresses behind a redirect; a proxy's two connections share nothing | ends are joined by sequence numbers, a proxy's sides by thread, time and bytes | `ends_find_each_other_in_either_order`, `linger_zero_close_v4`, `cause_proxied_reset`, `two_workers_of_one_process_are_two_proxies` |
//! | 11 | SO_LINGER 0 comes with `TCP_STATE`, and so do three other causes; unread data wins over it | the socket decides, and the reason is held against it | `unread_data_wins_over_linger_zero`, `reasons_of_a_single_branch_belong_to_one_cause`, `a_contradiction_is_shown_and_nothing_is_certain_any_more` |
//! | 12 | who closes with SO_LINGER 0 gets ECONNRESET on its own socket | direction comes from the hook, never from the error | `linger_zero_close_v4` |
//! | 13 | after a FIN the error is EPIPE: the commonest keep-alive failure never shows ECONNRESET | `tcp.error` follows the state | `error_is_what_the_application_will_get`, `write_after_the_servers_close_is_answered_from_time_wait_v4` |
//! | 14 | a forgotten connection is reset by the listener as long as the port is served | a listener's answer is joined with the closed connection, else it names the listener's cgroup | `the_same_by_the_listener_after_time_wait_is_gone`, `a_listeners_answer_names_the_listeners_cgroup` |
//! | 15 | a full accept queue is called INVALID_SYN, of a segment that is no SYN; a real SYN with that reason meets a served port | both are needed for the queue; a SYN is for a closed port only if no socket was there | `cause_accept_queue_overflow`, `a_syn_for_a_port_that_is_served_is_not_a_closed_port` |
//! | 16 | a RST into TIME_WAIT or a half-open request shows nowhere | `doctor` and the first line say so; only its sender has a line | `a_rst_into_time_wait_is_told_by_its_sender_only` |
//! | 17 | a connection reset before `accept()` is handed out all the same, with its data | its end is told once, when the RST comes | `a_reset_before_accept_leaves_its_data_readable` |
//! | 18 | states repeat (FIN_WAIT1 to itself), and FIN_WAIT2 to CLOSE only means TIME_WAIT | the first FIN stays the first; a closed connection is remembered | `fin_wait1_again_keeps_the_first_fin_and_the_first_closer`, `write_after_the_servers_close_is_answered_from_time_wait_v4` |
//! | 19 | an ICMP error that comes while `connect()` holds the socket leaves no error behind | the kernel's note of it (`sk_err_soft`) is read | `cause_icmp_error_while_connect_holds_the_socket`, `an_icmp_error_that_was_only_noted_is_no_timeout` |
//!
//! Values
//!
//! | # | what misleads | what is done | held by |
//! |---|---|---|---|
//! | 20 | `sk_err` is not set yet when a RST is received | derived from the state | `error_is_what_the_application_will_get` |
//! | 21 | the local port is 0 once it was given back | `inet_sport` is read | `linger_zero_close_v4`, `connect_abandoned_after_a_set_time` |
//! | 22 | a socket can be destroyed before its reset is sent | births move to the closed connections first | `births_survive_a_destroy_that_comes_before_the_reset` |
//! | 23 | a disconnect wipes stamps and counters | they are read when the RST is sent, which is before | `linger_zero_close_v4`, `a_stamp_wiped_by_disconnect_is_unknown` |
//! | 24 | stamps are 0 before ESTABLISHED, which reads as uptime | 0 is unknown | `absent_before_established`, `connect_refused_v4` |
//! | 25 | a retransmission moves the stamp of the last send | no `idle.tx_ms` while one may be outstanding | `a_retransmission_is_not_the_last_send`, `retransmissions_used_up_is_a_timeout_without_reset` |
//! | 26 | a server's connection begins with the handshake's last ACK, not with the SYN | `age_ms` says so for each role, and ends are not compared by age | `a_server_is_born_in_softirq_and_owned_by_nobody_yet` |
//! | 27 | IPv4-mapped sockets are AF_INET6, answers without a socket AF_INET | one form of address everywhere | `linger_zero_close_mapped`, `a_closed_mapped_socket_is_found_by_the_ipv4_packet` |
//! | 28 | a timeout of 1 s is 0.998 to 1.002 s in the kernel | a tick early, 60 ms or 2 % late is the same timer | `timers_fire_late_and_a_round_time_is_still_round`, `no_timer_fires_early_nor_very_late` |
//!
//! The tracer itself
//!
//! | # | what misleads | what is done | held by |
//! |---|---|---|---|
//! | 29 | a slow reader of a small buffer loses most of a storm | small records, filters in the kernel, and every loss counted | `what_does_not_fit_is_counted`, `ten_thousand_resets_none_lost_none_twice` |
//! | 30 | single events can be missing | no rule needs a step that it did not see; what is waited for expires | `the_fin_of_a_connection_older_than_the_agent_begins_its_record`, `a_birth_overwrites_what_an_earlier_socket_left_at_the_address`, `other_numbers_are_another_connection` |

/// The source of every test of this repository that a document may name, in one text.
#[cfg(test)]
pub(crate) fn sources_of_tests() -> String {
    fn gather(path: &std::path::Path, text: &mut String) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).expect("a source folder") {
                gather(&entry.expect("an entry").path(), text);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("pitfalls.rs") {
            *text += &std::fs::read_to_string(path).expect("a source file");
        }
    }
    let mut text = String::new();
    for folder in ["src", "tests/kernel/cases", "../agent-ebpf/src"] {
        gather(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pitfall_is_held_by_tests_that_exist() {
        let tests = super::sources_of_tests();
        let rows: Vec<&str> = include_str!("pitfalls.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|row| row.starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        for (index, row) in rows.iter().enumerate() {
            assert!(row.starts_with(&format!("{} |", index + 1)), "out of order: {row}");
            let held_by = row.trim_end_matches('|').rsplit('|').next().expect("a last column");
            let mut names = held_by.split('`').skip(1).step_by(2).peekable();
            assert!(names.peek().is_some(), "held by nothing: {row}");
            for name in names {
                let exists = tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("fn {name}("));
                assert!(exists, "no test {name}: {row}");
            }
        }
        assert_eq!(rows.len(), 30);
    }
}
