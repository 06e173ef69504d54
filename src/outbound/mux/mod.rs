//! Several streams or associations in one: mux.cool with XUDP, and packetaddr.

pub mod frames;
pub mod packet_address;
