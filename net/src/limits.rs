//! Every bound of the fabric, in one place.

/// The longest frame payload: the largest record (8 MiB value, 32 KiB key) with its message around it.
pub const FRAME_BYTES_MAX: usize = (8 << 20) + (64 << 10);
/// Size of one provided receive buffer.
pub const RX_BUFFER_BYTES: usize = 16 << 10;
/// Output queued on one endpoint beyond which `send` answers `Full`.
/// One frame of the largest size always fits an empty endpoint.
pub const OUT_BYTES_MAX: usize = 1 << 20;
/// A send above this may find no room in the socket and complete late.
pub const LARGE_SEND_BYTES: usize = 16 << 10;
/// Endpoints of one data core.
pub const ENDPOINTS_MAX: usize = 16 << 10;
/// One in so many places of a core is never a stream's: a core that is full of them can still be reached in frames.
pub const FRAMES_SHARE: usize = 16;
/// Provided receive buffers of one data core, unless configured otherwise. A power of two.
pub const RX_BUFFERS: u16 = 512;
/// Completions taken in one poll, so that one busy connection cannot starve the timers.
pub const CQES_PER_POLL_MAX: usize = 256;
/// A poll stops taking completions after this many events (a receive buffer may hold hundreds of frames).
pub const EVENTS_PER_POLL_MAX: usize = 1024;
/// Bodies shorter than this are copied, because a second `iovec` costs more than the copy.
pub const BODY_COPY_MAX: usize = 8 << 10;
/// Bodies queued on one endpoint (each is an `iovec` or two of one `sendmsg`, and `IOV_MAX` is 1024).
pub const BODIES_MAX: usize = 256;
/// Disk writes in flight on one data core.
pub const DISK_WRITES_MAX: usize = 1024;
/// Bytes of all half-received frames of one data core; past it the connection that asks for more is closed.
pub const ASSEMBLY_BYTES_MAX: usize = 256 << 20;
/// Submission queue entries. A fuller turn costs a second system call, nothing else.
pub const SQ_ENTRIES: u32 = 1024;
/// Completion queue entries; the kernel keeps what does not fit (`IORING_FEAT_NODROP`).
pub const CQ_ENTRIES: u32 = 4096;
/// Connections waiting to be accepted on one listening socket.
pub const BACKLOG: i32 = 4096;
/// An accepted or dialled frames connection must have shaken hands after this long.
pub const HANDSHAKE_NS_MAX: u64 = 10_000_000_000;
/// A closed endpoint whose peer has taken nothing of what was queued for so long is given up.
pub const DRAIN_NS_MAX: u64 = 5_000_000_000;
/// A listener that ran out of file descriptors tries again after this long.
pub const ACCEPT_RETRY_NS: u64 = 100_000_000;

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(ENDPOINTS_MAX <= 1 << 24, "a slot has 24 bits in a completion's user data");
const _: () = assert!(RX_BUFFERS.is_power_of_two());
const _: () = assert!(BODIES_MAX * 2 < 1024);
