# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # the parts share their variables
# LAN device, router and Internet, each a network namespace, joined by veth. Sourced by ../run.
#
#   lan 192.168.81.2 ── 192.168.81.1 lan0 (gw) wan0 5.5.81.1 ── 5.5.81.2 wan
#
# The Internet's addresses are public ones, since headgate leaves private ones alone. No NAT: the
# Internet knows the way back, so that plain forwarding needs nothing else.

TAG=hgb$$
LAN=$TAG-lan GW=$TAG-gw WAN=$TAG-wan
SERVER=5.5.81.2
# Of its own: headgate does not capture what goes to a proxy server's address.
NODE=5.5.81.254

in_ns() {
    local name=$1
    shift
    ip netns exec "$name" "$@"
}

namespaces_up() {
    local name
    for name in "$LAN" "$GW" "$WAN"; do
        ip netns add "$name"
        ip -n "$name" link set lo up
        # A run of short connections uses up the default ports and time-wait places in seconds. Below
        # 10000 are the ports that somebody listens on.
        in_ns "$name" sysctl -qw net.ipv4.ip_local_port_range='10000 65535' net.ipv4.tcp_tw_reuse=1 \
            net.ipv4.tcp_max_tw_buckets=20000 net.core.somaxconn=8192 net.ipv4.tcp_max_syn_backlog=8192
    done
    ip -n "$GW" link add lan0 type veth peer name eth0 netns "$LAN"
    ip -n "$GW" link add wan0 type veth peer name eth0 netns "$WAN"
    ip -n "$LAN" addr add 192.168.81.2/24 dev eth0
    ip -n "$GW" addr add 192.168.81.1/24 dev lan0
    ip -n "$GW" addr add 5.5.81.1/24 dev wan0
    ip -n "$WAN" addr add "$SERVER/24" dev eth0
    ip -n "$WAN" addr add "$NODE/24" dev eth0
    ip -n "$LAN" link set eth0 up
    ip -n "$WAN" link set eth0 up
    ip -n "$GW" link set lan0 up
    ip -n "$GW" link set wan0 up
    ip -n "$LAN" route add default via 192.168.81.1
    ip -n "$WAN" route add default via 5.5.81.1
    ip -n "$GW" route add default via "$SERVER"
    in_ns "$GW" sysctl -qw net.ipv4.ip_forward=1
    # Where packets go that a peer's nft rule marks for tproxy; headgate makes its own.
    ip -n "$GW" rule add fwmark 0x1/0x1 lookup 100 priority 10000
    ip -n "$GW" route add local default dev lo table 100
    # Connection tracking, as on every router with NAT, whoever relays. Its table is one for the
    # whole machine, so that dead entries must not stand for two minutes.
    in_ns "$GW" nft -f - <<'NFT'
table inet bench_tracking {
    chain forward {
        type filter hook forward priority filter
        ct state established,related accept
    }
}
NFT
    in_ns "$GW" sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=2 \
        net.netfilter.nf_conntrack_tcp_timeout_close=2 net.netfilter.nf_conntrack_tcp_timeout_close_wait=2 \
        net.netfilter.nf_conntrack_tcp_timeout_last_ack=2 net.netfilter.nf_conntrack_tcp_timeout_fin_wait=2
}

namespaces_down() {
    local name
    for name in "$LAN" "$GW" "$WAN"; do
        ip netns del "$name" 2>/dev/null || true
    done
}

# New addresses for the device and for the router's own connections: nobody pays for the time-wait
# sockets of the peer before. (Those would even stop forwarding: the kernel drops a packet to be
# forwarded that belongs to a local socket, be it one in time-wait.)
TURN=0
fresh_addresses() {
    TURN=$((TURN % 200 + 1))
    local host=$((TURN + 2))
    ip -n "$LAN" addr replace "192.168.81.$host/24" dev eth0
    ip -n "$LAN" route replace default via 192.168.81.1 src "192.168.81.$host"
    ip -n "$GW" addr replace "5.5.81.$host/24" dev wan0
    ip -n "$GW" route replace 5.5.81.0/24 dev wan0 src "5.5.81.$host"
}

# The peers that have no capture of their own: every TCP and UDP packet from the LAN to PORT.
capture_tproxy() {
    in_ns "$GW" nft -f - <<NFT
table inet bench_capture {
    chain prerouting {
        type filter hook prerouting priority mangle
        ct direction reply return
        iifname "lan0" meta l4proto { tcp, udp } meta mark set 0x1 tproxy ip to 127.0.0.1:$1 accept
    }
}
NFT
}

capture_redirect() {
    in_ns "$GW" nft -f - <<NFT
table inet bench_capture {
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname "lan0" meta l4proto tcp redirect to :$1
    }
}
NFT
}

capture_none() {
    in_ns "$GW" nft delete table inet bench_capture 2>/dev/null || true
}
