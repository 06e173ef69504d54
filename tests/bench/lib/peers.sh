# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # the parts share their variables
# The peers: `start_peer NAME` starts one in the router and routes the LAN through it, `stop_peer`
# ends it. Sourced by ../run. PIDS are the processes whose CPU and memory count.

PIDS=()
CLIENTS=()
SERVERS=()

# Starts a program in a namespace; its process id goes into SPAWNED. `ip netns exec` becomes the program.
spawn() {
    local name=$1 log=$2
    shift 2
    ip netns exec "$name" "$@" >"$STATE/$log.out" 2>"$STATE/$log.err" &
    SPAWNED=$!
}

end() {
    local pid
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        # Ten seconds to end cleanly; a peer that does not is no reason to hang.
        timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

UUID=66ad4540-b58c-4ad2-9926-ea63445a9b57
BLAKE3_KEY=AQEBAQEBAQEBAQEBAQEBAQ==

# The Internet: the load's servers, a server per method, a name server.
start_servers() {
    spawn "$WAN" load "$LOAD" serve "$SERVER" 9000
    SERVERS+=("$SPAWNED")
    local method port=8388
    for method in chacha20-ietf-poly1305 aes-128-gcm; do
        spawn "$WAN" "ss-server-$method" ss-server -s "$NODE" -p $port -k secret -m "$method"
        SERVERS+=("$SPAWNED")
        port=$((port + 1))
    done
    if command -v ssserver >/dev/null; then
        spawn "$WAN" ssserver ssserver -s "$NODE:8390" -k "$BLAKE3_KEY" -m 2022-blake3-aes-128-gcm
        SERVERS+=("$SPAWNED")
        wait_listening "$WAN" "$NODE:8390"
    fi
    cat >"$STATE/v2ray-server.json" <<JSON
{"log": {"loglevel": "warning"},
 "inbounds": [{"listen": "$NODE", "port": 8391, "protocol": "vmess", "settings": {"clients": [{"id": "$UUID"}]}},
              {"listen": "$NODE", "port": 8392, "protocol": "vless", "settings": {"clients": [{"id": "$UUID"}], "decryption": "none"}}],
 "outbounds": [{"protocol": "freedom", "settings": {}}]}
JSON
    spawn "$WAN" v2ray-server v2ray -config "$STATE/v2ray-server.json"
    SERVERS+=("$SPAWNED")
    wait_listening "$WAN" "$NODE:8391" "$NODE:8392"
    spawn "$WAN" upstream dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
        --listen-address="$SERVER" --bind-interfaces --local-ttl=3600 --address=/bench.test/192.0.2.1 --dns-forward-max=1000
    SERVERS+=("$SPAWNED")
    wait_listening "$WAN" "$SERVER:9001" "$NODE:8388" "$NODE:8389" "$SERVER:53"
}

stop_servers() {
    end "${SERVERS[@]}"
    SERVERS=()
}

wait_listening() {
    local name=$1 listening place tries
    shift
    for place in "$@"; do
        for tries in {1..200}; do
            listening=$(in_ns "$name" ss -Hlntu)
            [[ $listening == *"$place"* ]] && continue 2
            sleep 0.05
        done
        echo "nothing listens on $place after $((tries / 20)) s" >&2
        tail -n 5 "$STATE"/*.err >&2
        return 1
    done
}

# The general part of every configuration, as a user has it.
headgate_head() {
    cat <<YAML
mode: rule
log-level: info
ipv6: false
mixed-port: 7890
external-controller: 127.0.0.1:9090
secret: bench
dns:
  enable: true
  listen: 127.0.0.1:1053
  enhanced-mode: ${1:-fake-ip}
  fake-ip-range: 198.18.0.1/16
  nameserver: [$SERVER]
YAML
}

# `headgate_rules POLICY [FIRST-RULE]`
headgate_rules() {
    echo rules:
    [ -z "${2:-}" ] || echo "  - $2"
    cat <<YAML
  - DOMAIN-SUFFIX,blocked.test,REJECT
  - DOMAIN-KEYWORD,tracker,REJECT
  - DST-PORT,25,REJECT-DROP
  - IP-CIDR,203.0.113.0/24,REJECT,no-resolve
  - SRC-IP-CIDR,192.168.81.250/32,REJECT
  - MATCH,$1
YAML
}

headgate_capture() {
    cat <<YAML
transparent:
  enable: true
  interfaces: [lan0]
  offload: $1
YAML
}

# `start_headgate BINARY`, configuration on standard input; ends when it says that it is ready.
start_headgate() {
    local binary=$1 directory=$STATE/headgate
    rm -rf "$directory"
    mkdir "$directory"
    cat >"$directory/config.yaml"
    spawn_ready "$GW" "$binary" "$directory"
    PIDS=("$SPAWNED")
    # A line per connection is not what a router writes, nor what the peers do.
    in_ns "$GW" curl -sf -X PATCH -H 'Authorization: Bearer bench' -d '{"log-level":"warning"}' http://127.0.0.1:9090/configs
}

# `spawn_ready NAMESPACE BINARY DIRECTORY`: a headgate, once it says that it is ready.
spawn_ready() {
    local begin=$EPOCHREALTIME line
    spawn_reading "$1" "$2" -d "$3" -f "$3/config.yaml"
    while read -r -t 20 line <&"$READING"; do
        if [[ $line =~ headgate\ ready\ in\ ([0-9]+)\ ms ]]; then
            READY_SAID=${BASH_REMATCH[1]}
            READY_SEEN=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
            # Somebody must go on reading, or a full pipe would stop the daemon.
            cat <&"$READING" >>"$STATE/headgate.err" &
            exec {READING}<&-
            return
        fi
        echo "$line" >>"$STATE/headgate.err"
    done
    echo "headgate did not become ready:" >&2
    cat "$STATE/headgate.err" >&2
    end "$SPAWNED"
    return 1
}

# As `spawn`, its standard error readable from the descriptor READING.
spawn_reading() {
    local name=$1 pipe=$STATE/said
    shift
    rm -f "$pipe"
    mkfifo "$pipe"
    ip netns exec "$name" "$@" >/dev/null 2>"$pipe" &
    SPAWNED=$!
    exec {READING}<"$pipe"
}

start_haproxy() {
    cat >"$STATE/haproxy.cfg" <<'CFG'
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen all
    bind 127.0.0.1:7894 transparent
    server destination 0.0.0.0
CFG
    spawn "$GW" haproxy haproxy -db -f "$STATE/haproxy.cfg"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:7894
    capture_tproxy 7894
}

# Its argument: the outbound.
start_v2ray() {
    cat >"$STATE/v2ray.json" <<JSON
{"log": {"loglevel": "warning"},
 "inbounds": [{"listen": "127.0.0.1", "port": 7895, "protocol": "dokodemo-door",
               "settings": {"network": "tcp,udp", "followRedirect": true},
               "streamSettings": {"sockopt": {"tproxy": "tproxy"}}}],
 "outbounds": [$1]}
JSON
    spawn "$GW" v2ray v2ray -config "$STATE/v2ray.json"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:7895
    capture_tproxy 7895
}

start_ss_redir() {
    spawn "$GW" ss-redir ss-redir -s "$NODE" -p "$2" -b 0.0.0.0 -l 7896 -k secret -m "$1"
    PIDS=("$SPAWNED")
    wait_listening "$GW" :7896
    capture_redirect 7896
}

# shadowsocks-rust, built with its redirection ("local-redir").
start_sslocal() {
    spawn "$GW" sslocal sslocal --protocol redir -b 0.0.0.0:7897 -s "$NODE:$2" -k "$(node_key "$1")" -m "$1"
    PIDS=("$SPAWNED")
    wait_listening "$GW" :7897
    capture_redirect 7897
}

node_key() {
    case $1 in
        2022-*) echo "$BLAKE3_KEY" ;;
        *) echo secret ;;
    esac
}

# A Shadowsocks server in the router, and its client in the device, whose CPU does not count.
start_served() {
    local method=chacha20-ietf-poly1305 key each
    if [[ $1 == *aes128 ]]; then method=aes-128-gcm; fi
    if [[ $1 == *blake3 ]]; then method=2022-blake3-aes-128-gcm; fi
    key=$(node_key $method)
    for each in client served; do
        rm -rf "${STATE:?}/$each"
        mkdir "$STATE/$each"
    done
    cat >"$STATE/client/config.yaml" <<YAML
log-level: info
ipv6: false
transparent: {enable: true, interfaces: [lo], ipv6: false, dns-hijack: false, router-traffic: true, offload: false}
proxies:
  - {name: node, type: ss, server: 192.168.81.1, port: 8500, cipher: $method, password: '$key'}
rules: ['MATCH,node']
YAML
    cat >"$STATE/served/config.yaml" <<YAML
log-level: info
ipv6: false
listeners:
  - {name: served, type: shadowsocks, listen: 0.0.0.0, port: 8500, cipher: $method, password: '$key'}
rules: ['MATCH,DIRECT']
YAML
    case $1 in
        rust-*)
            spawn "$GW" served ssserver -s 0.0.0.0:8500 -k "$key" -m $method
            wait_listening "$GW" :8500
            ;;
        *) spawn_ready "$GW" "$2" "$STATE/served" ;;
    esac
    PIDS=("$SPAWNED")
    spawn_ready "$LAN" "$HEADGATE" "$STATE/client"
    CLIENTS=("$SPAWNED")
}

start_dnsmasq() {
    spawn "$GW" dnsmasq dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
        --listen-address=127.0.0.1 --bind-interfaces --port=1053 --cache-size=10000 "$@"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:1053
}

# A forwarder of one thread; more lines of its server section on standard input.
start_unbound() {
    cat - >"$STATE/unbound.conf" <<CFG
  directory: "$STATE"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  num-threads: 1
  interface: 127.0.0.1@1053
  do-not-query-localhost: no
  module-config: "iterator"
  msg-cache-size: 16m
  rrset-cache-size: 16m
forward-zone:
  name: "."
  forward-addr: $SERVER
remote-control:
  control-enable: no
CFG
    sed -i '1i server:' "$STATE/unbound.conf"
    spawn "$GW" unbound unbound -d -c "$STATE/unbound.conf"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:1053
}

start_nginx() {
    cat >"$STATE/nginx.conf" <<CFG
worker_processes 1;
daemon off;
master_process off;
pid $STATE/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:9090;
        location = /version { default_type application/json; return 200 '{"meta":true,"version":"v1.19.0"}'; }
    }
}
CFG
    spawn "$GW" nginx nginx -p "$STATE" -c "$STATE/nginx.conf"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:9090
}

# With the bounds of headgate's defaults, and without Nagle's delay, which would cost it nine milliseconds.
start_mosquitto() {
    cat >"$STATE/mosquitto.conf" <<'CFG'
listener 1883 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 1000
user root
log_type error
CFG
    spawn "$GW" mosquitto mosquitto -c "$STATE/mosquitto.conf"
    PIDS=("$SPAWNED")
    wait_listening "$GW" 127.0.0.1:1883
}

headgate_mqtt() {
    cat <<YAML
mqtt:
  listeners: [{name: tcp, type: tcp, listen: 127.0.0.1:1883, max-connections: 10000}]
  allow-anonymous: true
  max-retained: 200000
  persistence: false
YAML
}

# headgate or the binary it is compared with.
binary_of() {
    case $1 in
        baseline*) echo "$BASELINE" ;;
        *) echo "$HEADGATE" ;;
    esac
}

# Starts a peer by the name that the table prints.
start_peer() {
    local binary
    binary=$(binary_of "$1")
    case $1 in
        headgate | baseline) start_headgate "$binary" < <(headgate_head && headgate_capture false && headgate_rules DIRECT) ;;
        *-offload) start_headgate "$binary" < <(headgate_head && headgate_capture true && headgate_rules DIRECT "IP-CIDR,$SERVER/24,DIRECT,no-resolve") ;;
        *-vmess | *-vless)
            local kind=${1##*-} port=8391
            if [ "$kind" = vless ]; then port=8392; fi
            case $1 in
                v2ray-*) start_v2ray "$(v2ray_node "$kind" $port)" ;;
                *) start_headgate "$binary" < <(headgate_head && headgate_capture false && headgate_user "$kind" $port && headgate_rules node) ;;
            esac
            ;;
        *-chacha20 | *-aes128 | *-blake3)
            local method=chacha20-ietf-poly1305 port=8388
            if [[ $1 == *-aes128 ]]; then method=aes-128-gcm port=8389; fi
            if [[ $1 == *-blake3 ]]; then method=2022-blake3-aes-128-gcm port=8390; fi
            case $1 in
                libev-*) start_ss_redir $method $port ;;
                rust-*) start_sslocal $method $port ;;
                *) start_headgate "$binary" < <(headgate_head && headgate_capture false && headgate_node $method $port && headgate_rules node) ;;
            esac
            ;;
        *-served_*) start_served "$1" "$binary" ;;
        *-cached) start_headgate "$binary" < <(headgate_head redir-host && headgate_rules DIRECT) ;;
        headgate-listed | baseline-listed) start_headgate "$binary" < <(headgate_head redir-host && headgate_listed && headgate_rules DIRECT) ;;
        *-kept) start_headgate "$binary" < <(headgate_head redir-host && echo '  cache-max-size: 50000' && headgate_rules DIRECT) ;;
        *-fake-ip) start_headgate "$binary" < <(headgate_head fake-ip && headgate_rules DIRECT) ;;
        *-everything) start_headgate "$binary" < <(headgate_everything) ;;
        *-mqtt) start_headgate "$binary" < <(headgate_head && headgate_mqtt && headgate_rules DIRECT) ;;
        mosquitto) start_mosquitto ;;
        *-rest) start_headgate "$binary" < <(headgate_head && headgate_rules DIRECT) ;;
        haproxy) start_haproxy ;;
        v2ray) start_v2ray '{"protocol": "freedom", "settings": {}}' ;;
        forward) PIDS=() ;;
        dnsmasq) start_dnsmasq --server="$SERVER" --dns-forward-max=1000 ;;
        dnsmasq-listed)
            sed 's|.*|address=/&/|' "$STATE/ads" >"$STATE/dnsmasq.ads"
            start_dnsmasq --server="$SERVER" --dns-forward-max=1000 --conf-file="$STATE/dnsmasq.ads"
            ;;
        unbound) start_unbound </dev/null ;;
        unbound-listed) start_unbound < <(sed 's|.*|  local-zone: "&" always_nxdomain|' "$STATE/ads") ;;
        dnsmasq-hosts) start_dnsmasq --addn-hosts="$STATE/hosts" ;;
        nginx) start_nginx ;;
    esac
}

# Follows `headgate_head`: names of the list do not exist.
headgate_listed() {
    sed 's|^|+.|' "$STATE/ads" >"$STATE/ads.txt"
    cat <<YAML
  nameserver-policy: {'rule-set:ads': rcode://name_error}
rule-providers:
  ads: {type: file, behavior: domain, format: text, path: $STATE/ads.txt}
YAML
}

headgate_node() {
    cat <<YAML
proxies:
  - {name: node, type: ss, server: $NODE, port: $2, cipher: $1, password: '$(node_key "$1")'}
YAML
}

# Of VMess with AES, or of VLESS, without TLS.
headgate_user() {
    local more=
    if [ "$1" = vmess ]; then more=', cipher: aes-128-gcm'; fi
    cat <<YAML
proxies:
  - {name: node, type: $1, server: $NODE, port: $2, uuid: $UUID$more}
YAML
}

v2ray_node() {
    local user="{\"id\": \"$UUID\", \"security\": \"aes-128-gcm\", \"encryption\": \"none\"}"
    echo "{\"protocol\": \"$1\", \"settings\": {\"vnext\": [{\"address\": \"$NODE\", \"port\": $2, \"users\": [$user]}]}}"
}

# All that the configuration offers, for the memory of an idle router.
headgate_everything() {
    sed -e 's/^ipv6: false/ipv6: true/' -e 's/^  listen: 127.0.0.1:1053/&\n  ipv6: true/' <(headgate_head)
    cat <<YAML
port: 7891
socks-port: 7892
redir-port: 7893
tproxy-port: 7894
allow-lan: true
profile: {store-selected: true, store-fake-ip: true}
sniffer:
  enable: true
  sniff: {TLS: {ports: [443]}, HTTP: {ports: [80]}, QUIC: {ports: [443]}}
listeners:
  - {name: guests, type: mixed, port: 7900, listen: 127.0.0.1}
proxies:
  - {name: node, type: ss, server: $NODE, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, udp: true}
  - {name: office, type: socks5, server: $NODE, port: 1080, udp: true}
  - {name: web, type: http, server: $NODE, port: 8080, tls: true, skip-cert-verify: true}
proxy-groups:
  - {name: Pick, type: select, proxies: [node, office, web, DIRECT, REJECT]}
YAML
    headgate_capture true
    headgate_rules Pick
}

stop_peer() {
    capture_none
    [ ${#CLIENTS[@]} -eq 0 ] || end "${CLIENTS[@]}"
    CLIENTS=()
    [ ${#PIDS[@]} -eq 0 ] || end "${PIDS[@]}"
    PIDS=()
}
