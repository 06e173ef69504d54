//! socks5
