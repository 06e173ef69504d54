//! Several streams or associations in one: mux.cool with XUDP, packetaddr, and sing-mux.

pub mod frames;
pub mod packet_address;
pub mod sing;
