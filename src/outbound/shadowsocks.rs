//! shadowsocks
