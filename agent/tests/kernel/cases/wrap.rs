//! The kernel keeps a socket's last activity as the low 32 bits of jiffies, which wrap five minutes after every boot (so
//! that nobody forgets it). An idle time must not notice.

use std::{io::Write, thread::sleep, time::Duration};

use crate::{
    Case,
    agent::Agent,
    expect::{Step, is, near},
    netns::Netns,
    sockets::{Family, Pair, linger_zero},
};

/// Only for a machine that has just started, as the guests of `cargo xtask vm` have: ignored unless it is asked for.
pub const CASES_AFTER_BOOT: &[Case] = &[("idle_time_across_the_wrap_of_jiffies", idle_time_across_the_wrap)];

const WRAP: u64 = 1 << 32;

/// The kernel's counter, which begins five minutes before its low 32 bits wrap.
fn jiffies() -> u64 {
    let list = std::fs::read_to_string("/proc/timer_list").expect("root reads /proc/timer_list");
    let value = list.lines().find_map(|line| line.strip_prefix("jiffies: ")).expect("it names jiffies");
    value.trim().parse().expect("a number")
}

fn idle_time_across_the_wrap() {
    assert!(jiffies() < WRAP, "this is for the first five minutes after a boot");
    let netns = Netns::new();
    let mut agent = Agent::start(&[]);
    let (born, mut pair) = Step::of(|| netns.run(|| Pair::connect(Family::V4)));
    // Two seconds before the wrap at HZ 250, half a second at HZ 1000.
    while jiffies() < WRAP - 500 {
        sleep(Duration::from_millis(50));
    }
    let (answered, ()) = Step::of(|| pair.exchange(50, 60));
    assert!(jiffies() < WRAP, "the exchange came too late");
    while jiffies() < WRAP {
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_millis(500));
    let (client, server) = (pair.client_port(), pair.server_port());
    let (asked, ()) = Step::of(|| pair.client.write_all(&[b'q'; 50]).unwrap());
    std::io::Read::read_exact(&mut pair.server, &mut [0; 50]).unwrap();
    sleep(Duration::from_millis(300));
    linger_zero(&pair.server);
    let Pair { client: _open, server: closing, listener: _listener } = pair;
    let (reset, ()) = Step::of(|| drop(closing));

    let received = agent.reset(&netns, "received", client);
    is(&received, "/age_is_minimum", false);
    near(&received, "/age_ms", &born.until(&reset));
    near(&received, "/idle/rx_ms", &answered.until(&reset));
    near(&received, "/idle/tx_ms", &asked.until(&reset));
    near(&received, "/idle/gap_before_last_send_ms", &answered.until(&asked));
    let sent = agent.reset(&netns, "sent", server);
    near(&sent, "/idle/rx_ms", &asked.until(&reset));
    near(&sent, "/idle/tx_ms", &answered.until(&reset));
    agent.nothing_more(&netns);
}
