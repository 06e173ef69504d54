//! Netlink messages, to and from bytes, and the blocking socket that carries them.
//!
//! Only what netfilter needs (nfnetlink: nftables batches, conntrack); routes and rules go
//! through the crate rtnetlink. Headers are in the machine's byte order, nfnetlink's own
//! numbers in network order; the writer's method names say which.
//!
//! Callers rely on this: [`Batch`] never writes an attribute longer than its 16-bit length
//! can say (the caller splits its lists by [`LIST_BYTES_MAX`]), and the reader never runs
//! past what the kernel sent. The kernel answers within `sendmsg` itself, so a reply is
//! there or will never be: the socket does not block.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

/// How many bytes of list elements go into one message; an attribute's length has 16 bits.
pub const LIST_BYTES_MAX: usize = 32 * 1024;
/// The largest batch, 4 MiB: some 60,000 address ranges. The kernel copies it once.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Room for one answer. Errors repeat the message that failed; its head is enough.
const ANSWER_BYTES: usize = 8 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// Asks for an answer also on success.
pub const NLM_F_ACK: u16 = 4;
/// Create if it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Add at the end (rules).
pub const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// nfnetlink subsystem of nftables.
pub const NFTABLES: u8 = 10;
/// nfnetlink subsystem of conntrack.
pub const CONNTRACK: u8 = 1;

/// Messages one behind the other, the way a transaction is sent.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    message: usize,
    sequence: u32,
}

impl Batch {
    /// A batch that the kernel applies whole or not at all, from its first message on.
    #[must_use]
    pub fn transaction() -> Self {
        let mut batch = Self::default();
        batch.begin(BATCH_BEGIN, 0, 0, u16::from(NFTABLES));
        batch
    }

    /// Starts a message of nfnetlink `subsystem` for `family`.
    pub fn message(&mut self, subsystem: u8, kind: u8, flags: u16, family: u8) {
        self.begin(
            u16::from(subsystem) << 8 | u16::from(kind),
            flags,
            family,
            0,
        );
    }

    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.finish();
        self.message = self.bytes.len();
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.sequence += 1;
    }

    /// Writes the length into the head of the message that was open.
    fn finish(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        if let Some(head) = self.bytes.get_mut(self.message..self.message + 4) {
            head.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// An attribute with these bytes, padded to four.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A 32-bit number in network order, as nfnetlink has them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A 64-bit number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text with its closing zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// An attribute that holds those which `inside` writes.
    pub fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.open_list(kind);
        inside(self);
        self.close_list(start);
    }

    /// Opens an attribute that holds all that follow until [`Self::close_list`] gets the
    /// number returned here.
    pub fn open_list(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        start
    }

    /// Closes what [`Self::open_list`] opened.
    pub fn close_list(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(head) = self.bytes.get_mut(start..start + 2) {
            head.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// How many bytes the batch has so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes so far, to compare two batches; lengths of the last message may be unset.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Closes the open message and asks the kernel to answer it; returns its number.
    fn acknowledged(&mut self) -> u32 {
        self.finish();
        let flags = self.message + 6..self.message + 8;
        if let Some(place @ &mut [low, high]) = self.bytes.get_mut(flags) {
            let flags = u16::from_ne_bytes([low, high]) | NLM_F_ACK;
            place.copy_from_slice(&flags.to_ne_bytes());
        }
        self.sequence.saturating_sub(1)
    }
}

/// Why the kernel did not do what a message asked.
#[derive(Debug)]
pub enum NetlinkError {
    /// The message with this number in the batch was refused.
    Refused(u32, Errno),
    /// The socket itself failed, or the batch is larger than [`BATCH_BYTES_MAX`].
    Socket(io::Error),
}

impl NetlinkError {
    /// The kernel's reason, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(_, errno) => Some(*errno),
            Self::Socket(error) => error.raw_os_error().map(Errno::from_raw),
        }
    }
}

impl std::fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(message, errno) => {
                write!(f, "message {message} of the batch: {}", errno.desc())
            }
            Self::Socket(error) => write!(f, "netlink socket: {error}"),
        }
    }
}

impl std::error::Error for NetlinkError {}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

/// A NETLINK_NETFILTER socket. A table made over it with the `owner` flag lives as long as it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// What the kernel says; `EPROTONOSUPPORT` where it has no nfnetlink.
    pub fn open() -> Result<Self, NetlinkError> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// Sends a transaction and returns when the kernel has applied it whole, or not at all.
    ///
    /// # Errors
    /// The first refusal.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        // Kernels before 6.10 never answer the end of a batch, so the last message of
        // the work itself is the one that asks.
        let last = batch.acknowledged();
        batch.begin(BATCH_END, 0, 0, u16::from(NFTABLES));
        batch.finish();
        self.exchange(&batch, last)
    }

    /// Asks whether the kernel would take a transaction; nothing is applied, since a batch
    /// without an end is thrown away.
    ///
    /// # Errors
    /// The first refusal.
    pub fn rehearse(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        let last = batch.acknowledged();
        self.exchange(&batch, last)
    }

    /// Sends a single message, begun by [`Batch::message`], and waits for its answer.
    ///
    /// # Errors
    /// The refusal.
    pub fn request(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        self.rehearse(batch)
    }

    fn exchange(&mut self, batch: &Batch, last: u32) -> Result<(), NetlinkError> {
        if batch.len() > BATCH_BYTES_MAX {
            return Err(Errno::EMSGSIZE.into());
        }
        // The kernel's default of about 200 KiB is too small for long range lists; it
        // counts its own bookkeeping too, hence the double.
        setsockopt(&self.0, sockopt::SndBufForce, &(2 * batch.len() + 4096))?;
        send(self.0.as_raw_fd(), &batch.bytes, MsgFlags::empty())?;
        let mut answer = [0; ANSWER_BYTES];
        let mut outcome = Ok(());
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                // Everything was read: a refusal may stand without the final answer.
                Err(Errno::EAGAIN) if outcome.is_err() => return outcome,
                Err(errno) => return Err(errno.into()),
            };
            match answer.get(..length).and_then(acknowledgement) {
                Some((sequence, Some(errno))) if outcome.is_ok() => {
                    outcome = Err(NetlinkError::Refused(sequence, errno));
                }
                Some((sequence, None)) if sequence == last && outcome.is_ok() => return Ok(()),
                _ => {}
            }
        }
    }
}

/// The sequence number that a kernel message answers, and the error it reports.
fn acknowledgement(message: &[u8]) -> Option<(u32, Option<Errno>)> {
    let field = |at: usize| -> Option<[u8; 4]> { message.get(at..at + 4)?.try_into().ok() };
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != NLMSG_ERROR && kind != NLMSG_DONE {
        return None;
    }
    let sequence = u32::from_ne_bytes(field(8)?);
    let code = i32::from_ne_bytes(field(16)?);
    Some((sequence, (code != 0).then(|| Errno::from_raw(-code))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_framed_as_nfnetlink_wants_it() {
        let mut batch = Batch::transaction();
        batch.message(NFTABLES, 0, NLM_F_CREATE, 1);
        batch.text(1, "t");
        batch.nested(4, |batch| batch.be32(1, 7));
        assert_eq!(batch.acknowledged(), 1);
        let bytes = batch.as_bytes();
        assert_eq!(bytes[..4], 20_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], BATCH_BEGIN.to_ne_bytes());
        assert_eq!(bytes[16..20], [0, 0, 0, NFTABLES]);
        assert_eq!(bytes[20..24], 40_u32.to_ne_bytes());
        assert_eq!(bytes[24..26], 0x0a00_u16.to_ne_bytes());
        assert_eq!(bytes[26..28], 0x405_u16.to_ne_bytes());
        assert_eq!(bytes[40..42], 6_u16.to_ne_bytes());
        assert_eq!(bytes[44..48], *b"t\0\0\0");
        assert_eq!(bytes[48..50], 12_u16.to_ne_bytes());
        assert_eq!(bytes[50..52], 0x8004_u16.to_ne_bytes());
        assert_eq!(bytes[56..60], [0, 0, 0, 7]);
        assert_eq!(bytes.len(), 60);
    }

    #[test]
    fn answers_that_end_early_are_no_answers() {
        let mut answer = vec![0; 20];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[8..12].copy_from_slice(&9_u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer), Some((9, Some(Errno::ENOENT))));
        for length in 0..20 {
            assert_eq!(acknowledgement(&answer[..length]), None);
        }
    }
}
