//! Random bytes for salts, session ids and padding, from the kernel's generator.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};

/// Fills `bytes`.
///
/// # Errors
/// When the system has no randomness.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| io::Error::other("no randomness"))
}

/// A number from 1 to `limit`, near enough to even for lengths of padding.
///
/// # Errors
/// As [`fill`].
pub fn below(limit: u16) -> io::Result<u16> {
    let mut bytes = [0; 2];
    fill(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes) % limit.max(1) + 1)
}
