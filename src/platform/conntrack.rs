//! Forgetting connections that the kernel tracks (ctnetlink).

use super::netlink::{Batch, CONNTRACK, NetlinkError, Socket};

const CT_DELETE: u8 = 2;
const CTA_MARK: u16 = 8;
const CTA_MARK_MASK: u16 = 21;

/// Deletes every tracked connection, of both families, whose mark under `mask` is `value`.
///
/// # Errors
/// What the kernel says; `EINVAL` where it has no conntrack over netlink.
pub fn forget(value: u32, mask: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    batch.message(CONNTRACK, CT_DELETE, 0, 0);
    batch.be32(CTA_MARK, value);
    batch.be32(CTA_MARK_MASK, mask);
    Socket::open()?.request(batch)
}
