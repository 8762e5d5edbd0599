//! Every bound of the RESP front, in one place.

pub use firebrick_partition::log::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The longest argument that is skipped rather than a reason to close: Redis's `proto-max-bulk-len`.
pub const BULK_BYTES_MAX: i64 = 512 << 20;
/// All bytes of one command.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;
/// Arguments of one command.
pub const ARGUMENTS_MAX: i64 = 1 << 20;
/// An inline command, and any line of the protocol.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Bytes reserved for a command that has only begun to arrive: about what one receive brings.
pub const RESERVE_BYTES_MIN: usize = 16 << 10;
/// GET and SET gathered before they are executed.
pub const BATCH: usize = 64;
/// Commands handled in one call.
pub const COMMANDS_PER_CALL: usize = 1024;
/// Replies of a connection that may wait, or wait behind one that waits.
pub const REPLIES_WAITING_MAX: usize = 1024;
/// Bytes of a connection's requests and replies that may wait, behind one that waits or for their own answers: past it
/// nothing more is executed.
pub const AHEAD_BYTES_MAX: usize = 16 << 20;
/// What a reply that waits is taken for on a new connection; then, about as large as those before it were.
pub const EXPECTED_BYTES: u32 = 2 << 20;
/// A connection that has had no answer for so long is told so and closed: whoever has its request waits for something
/// that may never come. (FLUSHALL of a large partition takes a while.)
pub const ANSWER_NS_MAX: u64 = 30_000_000_000;
/// Bytes of all connections of a data core, received, waiting or not taken, past which only those are served that have
/// none; past twice as many, nobody is.
pub const CORE_BYTES_MAX: usize = 256 << 20;
/// Meanwhile a client that takes nothing for so long is closed.
pub const STALLED_NS: u64 = 2_000_000_000;
/// Keys of a many-key command in flight at a time, and done in one step.
pub const KEYS_PER_STEP: usize = 128;
/// Bytes of keys and values moved in one step, but for the last of them.
pub const BYTES_PER_STEP: usize = 256 << 10;
/// Keys asked of a partition in one step of SCAN or KEYS.
pub const SCAN_COUNT_MAX: u32 = 1000;
/// The longest reply of MGET or KEYS.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(COMMAND_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(VALUE_BYTES_MAX < COMMAND_BYTES_MAX);
