//! The per-CPU counters of the kernel side.

/// An index into the `COUNTERS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Events lost because the ring buffer had no room.
    RingBufferFull = 0,
    /// Connections whose birth or owner could not be recorded because the connection table was full. Their events
    /// still come, with what the kernel alone knows.
    ConnectionTableFull = 1,
    /// Closed connections that could not be remembered.
    ClosedTableFailed = 2,
    /// Reads of kernel memory that failed; the event concerned is marked and its numbers left out.
    ReadFault = 3,
    /// Closed connections remembered. Not a loss: with the table's size it tells how long they stay.
    ClosedRecorded = 4,
    /// Events left out by the filters. Not a loss: somebody asked for it.
    Filtered = 5,
    /// Events handed to the ring buffer.
    Emitted = 6,
    /// Connections older than the agent whose process was found by its open files. Not a loss.
    FoundOpen = 7,
    /// Of those, the ones that several processes had open, so that none is named. Not a loss.
    FoundShared = 8,
}

/// How many counters there are.
pub const COUNTERS: u32 = 9;

impl Counter {
    /// Those that mean something was lost, with the name used in a `lost` line.
    pub const LOSSES: [(Self, &'static str); 4] = [
        (Self::RingBufferFull, "ring_buffer_full"),
        (Self::ConnectionTableFull, "connection_table_full"),
        (Self::ClosedTableFailed, "closed_table_failed"),
        (Self::ReadFault, "kernel_read_fault"),
    ];
}
