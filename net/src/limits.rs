//! Every bound of the fabric, in one place.

/// The longest frame payload: the largest record (8 MiB value, 32 KiB key) with its message around it.
pub const FRAME_BYTES_MAX: usize = (8 << 20) + (64 << 10);
/// Size of one provided receive buffer.
pub const RX_BUFFER_BYTES: usize = 16 << 10;
/// Output queued on one endpoint beyond which `send` answers `Full`.
/// One frame of the largest size always fits an empty endpoint.
pub const OUT_BYTES_MAX: usize = 1 << 20;
/// Endpoints of one data core.
pub const ENDPOINTS_MAX: usize = 16 << 10;

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
