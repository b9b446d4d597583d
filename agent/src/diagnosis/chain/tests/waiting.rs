//! How long a line waits for what it leads to, and that all of it is bounded.

use super::*;
use crate::diagnosis::{
    chain::{
        hold,
        recent::{self, Recent},
    },
    join::PATIENCE_NS,
};
use crate::event::What;

/// How many lines have left when the records tell this time.
fn left(diagnosis: &mut Diagnosis, ns: u64) -> usize {
    let mut out = Vec::new();
    diagnosis.expire(START + ns, &mut out);
    out.len()
}

#[test]
fn a_failed_connect_waits_for_what_it_leads_to_and_no_longer() {
    let mut diagnosis = diagnosis();
    diagnosis.take(decode(&gave_up(0)), owner(&gave_up(0)));
    assert_eq!(left(&mut diagnosis, PATIENCE_NS - 1), 0);
    assert_eq!(left(&mut diagnosis, PATIENCE_NS), 1);
}

#[test]
fn what_belongs_to_nobody_waits_for_nothing() {
    let mut nobodys = gave_up(0);
    nobodys.flags = flag::FACTS;
    let mut diagnosis = diagnosis();
    diagnosis.take(decode(&nobodys), Owner::default());
    assert_eq!(left(&mut diagnosis, 0), 1);
}

#[test]
fn both_ends_leave_together_the_senders_first() {
    let mut diagnosis = diagnosis();
    for record in [application(100_000), closes(120_000)] {
        diagnosis.take(decode(&record), owner(&record));
    }
    let mut out = Vec::new();
    diagnosis.expire(START + 100_000 + PATIENCE_NS, &mut out);
    let ports: Vec<_> = out.iter().map(|line| line.event.local.port.unwrap()).collect();
    assert_eq!(ports, [15_001, 50_000]);
}

/// The sender's line cannot wait for ever; its receiver learns from it all the same, and it is not told twice.
#[test]
fn a_receiver_that_comes_late_learns_from_the_sender_that_was_told() {
    let mut diagnosis = diagnosis();
    let sender = closes(0);
    diagnosis.take(decode(&sender), owner(&sender));
    let mut out = Vec::new();
    diagnosis.expire(START + PATIENCE_NS, &mut out);
    assert!(matches!(&out[..], [line] if line.event.what == What::ResetSent && line.other.is_none()), "{out:#?}");
    let told = out.remove(0);

    let receiver = application(3 * PATIENCE_NS);
    diagnosis.take(decode(&receiver), owner(&receiver));
    diagnosis.finish(&mut out);
    let [line] = &out[..] else { panic!("{out:#?}") };
    assert_eq!(line.event.what, What::ResetReceived);
    assert_eq!(line.cause.code, told.cause.code);
    assert_eq!(line.other.as_ref().map(|other| other.event.local.port), Some(told.event.local.port));
    assert_eq!(line.connection, told.connection);
}

/// Lines leave in the order of time, whatever the order in which their ends found each other.
#[test]
fn lines_leave_in_the_order_of_time() {
    let records: Vec<Record> = (0..200_u16)
        .map(|number| {
            let mut failure = gave_up(u64::from(number) * MS);
            failure.tuple.local_port += number;
            failure
        })
        .collect();
    let (mut diagnosis, mut out) = (diagnosis(), Vec::new());
    for record in records.iter().rev() {
        diagnosis.take(decode(record), owner(record));
    }
    diagnosis.finish(&mut out);
    assert!(out.is_sorted_by_key(|line| line.event.boot_ns));
    assert_eq!(out.len(), 200);
}

#[test]
fn in_a_storm_the_oldest_waits_no_longer_than_there_is_room() {
    let mut diagnosis = diagnosis();
    let most = hold::MOST as u64;
    for number in 0..=most {
        let mut failure = gave_up(number);
        failure.tuple.local_port = number as u16;
        diagnosis.take(decode(&failure), owner(&failure));
    }
    assert_eq!(left(&mut diagnosis, most), 1);
    assert_eq!(left(&mut diagnosis, most + PATIENCE_NS), most as usize);
}

/// A cause that was found is not lost with what it was found by.
#[test]
fn what_was_concluded_outlives_what_is_forgotten() {
    let (mut diagnosis, mut out) = (diagnosis(), Vec::new());
    for record in [gave_up(0), application(100_000), closes(120_000)] {
        diagnosis.take(decode(&record), owner(&record));
    }
    for number in 0..recent::MOST as u64 {
        let mut other = refused(200_000 + number);
        other.connection.owner = task(9, 9);
        other.tuple.local_port = number as u16;
        diagnosis.take(decode(&other), owner(&other));
    }
    diagnosis.finish(&mut out);
    let sent = out.iter().find(|line| line.event.local.port == Some(LISTENER.1)).unwrap();
    assert_eq!((sent.cause.code, sent.chain.len()), (Code::ProxyConnectTimeout, 0));
}

/// However long it runs, what is remembered stays bounded, and none of it refers to what was forgotten.
#[test]
fn what_is_remembered_is_bounded() {
    let mut recent = Recent::default();
    for number in 0..20_000_u64 {
        for mut record in [gave_up(number * MS), closes(number * MS + 100_000)] {
            record.connection.owner.tgid = 7 + (number % 3) as u32;
            record.actor.tgid = record.connection.owner.tgid;
            recent.note(&decode(&record), &Owner::default()).unwrap();
        }
    }
    // A connect that was given up is a failure and an ending.
    assert_eq!(recent.sizes(), [recent::MOST, recent::MOST / 2, recent::MOST]);
}
