//! Counting of events by cause and by pairs of workloads.

use agent_common::event::{Event as Record, kind};

use super::*;
use crate::{
    diagnosis::cause::{Cause, Confidence},
    event::{
        decode::Decoder,
        party::{Attribution, Pod, Workload},
    },
};

fn owner(namespace: &str, workload: &str) -> Owner {
    Owner {
        pod: Some(Pod { namespace: Some(namespace.to_owned()), name: Some(format!("{workload}-x")), ..Pod::default() }),
        workload: Some(Workload { kind: "Deployment".to_owned(), name: workload.to_owned() }),
        attribution: Some(Attribution { pod: Some(Source::Kubelet), ..Attribution::default() }),
        ..Owner::default()
    }
}

fn line(kind: u8, local: Owner, peer: Owner) -> Diagnosed {
    let record = Record { kind, ..Record::default() };
    Diagnosed {
        event: Decoder::of_a_whole_kernel(&[]).decode(&record, 0),
        owner: local,
        cause: Cause::new(Code::PeerAbortedIdle, Confidence::Likely, "", ""),
        other: None,
        peer,
        connection: None,
        chain: Vec::new(),
    }
}

#[test]
fn events_are_counted_by_cause_and_pair() {
    let mut counts = Counts::default();
    for _ in 0..3 {
        counts.event(&line(kind::RESET_RECEIVED, owner("shop", "checkout"), owner("shop", "cart")), 10);
    }
    counts.event(&line(kind::RESET_SENT, owner("shop", "checkout"), owner("shop", "cart")), 10);
    assert_eq!(counts.events.len(), 1);
    let (pair, kinds) = counts.events.iter().next().unwrap();
    let found: Vec<_> = kinds.iter().map(|(kind, count)| (kind.direction, *count)).collect();
    assert_eq!(found, [(Some("received"), 3), (Some("sent"), 1)]);
    assert_eq!((pair.local.namespace.as_str(), pair.local.workload.as_str()), ("shop", "Deployment/checkout"));
    assert_eq!(pair.peer.workload, "Deployment/cart");
    assert_eq!(counts.names[&(Named::Workload, "kubelet")], 4);
    assert_eq!(counts.names[&(Named::Process, "none")], 4);
}

#[test]
fn a_cluster_of_any_size_makes_no_more_pairs_than_the_bound() {
    let mut counts = Counts::default();
    counts.event(&line(kind::RESET_SENT, Owner::default(), Owner::default()), 5);
    for number in 0..100 {
        counts.event(&line(kind::RESET_SENT, owner("ns", &format!("w{number}")), Owner::default()), 5);
    }
    // Five by name, all others, and the one that nobody knows anything of.
    assert_eq!(counts.events.len(), 7);
    assert_eq!(counts.events.values().flat_map(BTreeMap::values).sum::<u64>(), 101);
    let (_, others) = counts.events.iter().find(|(pair, _)| pair.local.workload == OTHER).unwrap();
    assert_eq!(others.values().sum::<u64>(), 95);
}
