//! Timeouts: the idle limit learned of a server, and the products whose documented timeout fits a measured time.

use super::{
    super::timeouts::{Kind, Side},
    Context, long_idle, two_ticks,
};
use crate::{
    diagnosis::{
        cause::{Cause, Product},
        limits::Limit,
    },
    event::{Event, Millis, Role},
};

/// How many products a cause names.
const MOST_PRODUCTS: usize = 4;

/// Adds the products whose documented timeout of this `kind` fits `measured`, for the side that closed or gave up. The
/// `process` narrows them; it is `None` where the one whose timeout it is runs elsewhere.
#[must_use]
pub fn with_products(
    mut cause: Cause,
    event: &Event,
    context: &Context<'_>,
    kind: Kind,
    side: Side,
    measured: Millis,
    process: Option<&str>,
) -> Cause {
    let tick = two_ticks(event) / 2.0;
    cause.products = context
        .timeouts
        .fitting(kind, side, measured.0, tick, process, MOST_PRODUCTS)
        .into_iter()
        .map(|known| Product {
            product: known.product.clone(),
            versions: known.versions.clone(),
            setting: known.setting.clone(),
            seconds: known.seconds,
        })
        .collect();
    cause
}

/// The limit learned of the server of this connection.
#[must_use]
pub fn learned(event: &Event, context: &Context<'_>) -> Option<Limit> {
    let server = match event.role {
        Role::Client => event.peer,
        Role::Server => event.local,
        Role::Unknown => return None,
    };
    context.limits.of(server.ip, server.port?, event.netns?)
}

/// Whether the learned limit ran out, and the server was busy until it closed, with a request unread for `waited` that had
/// come after `gap`. It then looks at its timers before it reads (Node.js). No event loop is busy for longer than a second.
#[must_use]
pub fn ran_out_meanwhile(gap: Millis, waited: Millis, limit: Limit, event: &Event) -> bool {
    let (due, slack) = (limit.due().0, two_ticks(event));
    let (closed, busy) = (gap.0 + waited.0, long_idle(event));
    waited.0 < busy && closed >= due - slack && closed <= due * 1.02 + busy + slack
}

/// Whether `idle` is what the learned limit would have ended: not earlier than the least seen by more than two ticks,
/// not later than the last by more than a fiftieth.
#[must_use]
pub fn fits(idle: Millis, limit: Limit, event: &Event) -> bool {
    let slack = two_ticks(event);
    idle.0 >= limit.least.0 - slack && idle.0 <= limit.last.0.max(limit.least.0) * 1.02 + slack
}
