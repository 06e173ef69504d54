# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # the parts share their variables
# The groups of cases: what is done to each peer while it runs. Sourced by ../run.

# Name, what the load does, and the peers that cannot do it.
RELAY_CASES=(
    "bulk-down1 bulk-down 1"
    "bulk-down8 bulk-down 8"
    "bulk-up1 bulk-up 1"
    "short32 short 32"
    "udp1 udp 1 16 64"
    "udp50 udp 50 4 64"
    "udp1k udp 1 16 1200"
)

group_relay() { rounds relay_cases headgate haproxy v2ray forward headgate-offload; }

relay_cases() {
    local line name
    local -a words
    for line in "${RELAY_CASES[@]}"; do
        read -ra words <<<"$line"
        name=${words[0]}
        wanted "$name" "$CASES" || continue
        # HAProxy relays TCP alone.
        if [[ $1 == haproxy && $name == udp* ]]; then continue; fi
        load_case relay "$name" "$1" "${words[@]:1}"
    done
}

# One run of the load: `load_case GROUP CASE PEER LOAD-CASE ARGUMENTS...`.
load_case() {
    local group=$1 case=$2 peer=$3 before after said bytes connections echoes failed
    before=$(cpu_ticks)
    said=$(in_ns "$LAN" "$LOAD" "$4" "$SERVER" 9000 "${@:5}" "$DURATION")
    # What the end of the load leaves to do (closing) belongs to it.
    sleep 0.2
    after=$(cpu_ticks)
    local ticks=$((after - before))
    if [[ $ticks -eq 0 && $peer != forward && $peer != *-offload ]]; then
        echo "$peer did nothing in $case: the traffic went past it; left out" >&2
        return
    fi
    bytes=$(field bytes "$said") connections=$(field connections "$said") echoes=$(field echoes "$said")
    if [ -n "$bytes" ]; then
        record "$group" "$case" "$peer" cpu "$(per_unit $ticks "$bytes" 1e9)" rate "$(field gbit "$said")"
    elif [ -n "$connections" ]; then
        failed=$(field failed "$said")
        record "$group" "$case" "$peer" cpu "$(per_unit $ticks "$connections" 1e3)" rate "$(field rate "$said")" lost "$failed"
    else
        record "$group" "$case" "$peer" cpu "$(per_unit $ticks "$echoes" 1e6)" rate "$(field rate "$said")" lost "$(field lost "$said")"
    fi
    record "$group" "$case" "$peer" pss "$(pss_kib)"
}

group_encrypted() {
    local -a rust=() blake3=()
    # Built without that feature, its sslocal redirects nothing.
    if command -v ssserver >/dev/null && [[ $(sslocal --help 2>&1) == *redir* ]]; then
        rust=(rust-chacha20 rust-aes128) blake3=(headgate-blake3 rust-blake3)
    else
        echo "shadowsocks-rust is not here (cargo install shadowsocks-rust --features local-redir): left out" >&2
    fi
    rounds encrypted_cases headgate-chacha20 libev-chacha20 headgate-aes128 libev-aes128 "${rust[@]}" "${blake3[@]}" \
        headgate-vmess v2ray-vmess headgate-vless v2ray-vless
}

encrypted_cases() {
    local case parts
    for case in "bulk-down1 bulk-down 1" "bulk-up1 bulk-up 1" "short32 short 32"; do
        read -ra parts <<<"$case"
        wanted "${parts[0]}" "$CASES" || continue
        load_case "encrypted" "${parts[0]}-${1##*-}" "${1%-*}" "${parts[@]:1}"
    done
    ! wanted "connections-1000" "$CASES" || idle_connections "${1%-*}" "connections-1000-${1##*-}"
}

# A server of Shadowsocks in the router; a headgate in the device is the client of each.
group_served() {
    if ! command -v ssserver >/dev/null; then
        echo "shadowsocks-rust is not here (cargo install shadowsocks-rust): left out" >&2
        return
    fi
    rounds served_cases headgate-served_chacha20 rust-served_chacha20 headgate-served_aes128 rust-served_aes128 \
        headgate-served_blake3 rust-served_blake3
}

served_cases() {
    local case parts
    for case in "bulk-down1 bulk-down 1" "bulk-up1 bulk-up 1"; do
        read -ra parts <<<"$case"
        wanted "${parts[0]}" "$CASES" || continue
        load_case "encrypted" "${parts[0]}-${1##*-}" "${1%-*}" "${parts[@]:1}"
    done
}

group_dns() {
    local number
    for ((number = 0; number < 50000; number++)); do
        printf '192.0.2.%d name%d.bench.test\n' $((number % 250 + 1)) "$number"
    done >"$STATE/hosts"
    awk '{ print $2, "A" }' "$STATE/hosts" >"$STATE/names-50k"
    head -n 1000 "$STATE/names-50k" >"$STATE/names-1k"
    # Ads by the hundred thousand, and questions below each of a thousand of them.
    for ((number = 0; number < 100000; number++)); do
        printf 'ad%d.list%d.example\n' "$number" $((number % 977))
    done >"$STATE/ads"
    awk 'NR % 100 == 0 { print "x" NR "." $1, "A" }' "$STATE/ads" >"$STATE/names-ads"
    rounds dns_cases headgate-cached dnsmasq unbound headgate-listed dnsmasq-listed unbound-listed \
        headgate-fake-ip dnsmasq-hosts headgate-kept
}

dns_cases() {
    local peer=${1%-*}
    case $1 in
        *-cached | dnsmasq | unbound) dns_case cached "${1%-cached}" "$STATE/names-1k" ;;
        *-listed)
            dns_case cached-listed "$peer" "$STATE/names-1k"
            dns_case blocked "$peer" "$STATE/names-ads"
            ;;
        *-kept) dns_kept "$peer" ;;
        *)
            dns_case fake-ip-1k "${1%-fake-ip}" "$STATE/names-1k"
            dns_case fake-ip-50k "${1%-fake-ip}" "$STATE/names-50k"
            ;;
    esac
}

# What 50,000 answers in the cache cost.
dns_kept() {
    local empty full
    wanted cache-50k "$CASES" || return 0
    empty=$(pss_kib)
    in_ns "$GW" dnsperf -s 127.0.0.1 -p 1053 -d "$STATE/names-50k" -c 8 -q 100 -T 1 -n 1 >/dev/null
    full=$(pss_kib)
    record idle cache-50k "$1" added_pss $((full - empty)) pss "$full"
}

# One second to warm (the names known, the upstream asked), then the run that counts.
dns_case() {
    local case=$1 peer=$2 names=$3 before after said completed lost
    wanted "$case" "$CASES" || return 0
    local -a ask=(in_ns "$GW" dnsperf -s 127.0.0.1 -p 1053 -d "$names" -c 8 -q 200 -T 1)
    "${ask[@]}" -n 1 -l 2 >/dev/null
    before=$(cpu_ticks)
    said=$("${ask[@]}" -l "$DURATION")
    after=$(cpu_ticks)
    completed=$(awk '/Queries completed:/ { print $3 }' <<<"$said")
    lost=$(awk '/Queries lost:/ { print $3 }' <<<"$said")
    record dns "$case" "$peer" cpu "$(per_unit $((after - before)) "$completed" 1e6)" \
        rate "$(awk '/Queries per second:/ { print int($4) }' <<<"$said")" lost "$lost" pss "$(pss_kib)"
}

group_rest() { rounds rest_case headgate-rest nginx; }

rest_case() {
    local before after said requests
    local -a ask=(in_ns "$GW" wrk -t1 -c32 -H 'Authorization: Bearer bench')
    "${ask[@]}" -d1s http://127.0.0.1:9090/version >/dev/null
    before=$(cpu_ticks)
    said=$("${ask[@]}" -d"${DURATION}s" http://127.0.0.1:9090/version)
    after=$(cpu_ticks)
    requests=$(awk '/requests in/ { print $1 }' <<<"$said")
    record rest version "${1%-rest}" cpu "$(per_unit $((after - before)) "$requests" 1e6)" \
        rate "$(awk '/Requests\/sec:/ { print int($2) }' <<<"$said")" \
        lost "$(awk '/Non-2xx/ { bad = $NF } END { print bad + 0 }' <<<"$said")" pss "$(pss_kib)"
}

# Name, pattern, quality, messages a second (0: as many as go).
MQTT_CASES=(
    "p2p-q0 p2p 0 0" "p2p-q1 p2p 1 0" "p2p-q2 p2p 2 0"
    "ten-q0 ten 0 0" "ten-q1 ten 1 0" "ten-q2 ten 2 0"
    "fanout500-q0 fanout 0 0" "fanout500-q1 fanout 1 0"
    "fanin500-q0 fanin 0 0" "fanin500-q1 fanin 1 0"
    "lat1k-q0 p2p 0 1000" "lat1k-q1 p2p 1 1000" "lat10k-q0 ten 0 10000" "lat10k-q1 ten 1 10000"
)

group_mqtt() { rounds mqtt_cases headgate-mqtt mosquitto; }

mqtt_cases() {
    local line name peer=${1%-mqtt} before after said count empty
    local -a words
    sleep 0.5
    for line in "${MQTT_CASES[@]}"; do
        read -ra words <<<"$line"
        name=${words[0]}
        wanted "$name" "$CASES" || continue
        before=$(cpu_ticks)
        said=$(in_ns "$GW" "$LOAD" mqtt 127.0.0.1 1883 "${words[@]:1}" "$DURATION")
        after=$(cpu_ticks)
        count=$(field deliveries "$said")
        record mqtt "$name" "$peer" cpu "$(per_unit $((after - before)) "$count" 1e6)" rate "$(field rate "$said")" \
            lost "$(field lost "$said")" pss "$(pss_kib)" p50 "$(field p50 "$said")" p99 "$(field p99 "$said")"
    done
    mqtt_connect "$peer"
    mqtt_memory "$peer" connections-5000 5000 mqtt-idle 0
    mqtt_memory "$peer" subscribed-5000 5000 mqtt-idle 1
    mqtt_memory "$peer" retained-100k 100000 mqtt-retain
    mqtt_memory "$peer" subscriptions-100k 100000 mqtt-subscribe
    [ "$peer" = mosquitto ] || mqtt_broker "$1"
}

# Clients that come and go, 32 at a time.
mqtt_connect() {
    local before after said count
    wanted connect "$CASES" || return 0
    before=$(cpu_ticks)
    said=$(in_ns "$GW" "$LOAD" mqtt-connect 127.0.0.1 1883 32 "$DURATION")
    after=$(cpu_ticks)
    count=$(field connections "$said")
    record mqtt connect "$1" cpu "$(per_unit $((after - before)) "$count" 1e3)" rate "$(field rate "$said")" \
        lost "$(field failed "$said")" pss "$(pss_kib)"
}

# What a broker that nobody uses adds to the daemon. It gives back what starting took after 5 s.
mqtt_broker() {
    local with without
    wanted broker-idle "$CASES" || return 0
    stop_peer
    start_peer "$1"
    sleep 8
    with=$(pss_kib)
    stop_peer
    start_peer "${1%-mqtt}-rest"
    sleep 8
    without=$(pss_kib)
    record idle mqtt-broker-idle "${1%-mqtt}" added $((with - without)) with "$with" without "$without"
}

# Memory for a number of something that then is still; its last argument is the load's.
mqtt_memory() {
    local peer=$1 case=$2 count=$3 empty full held
    wanted "$case" "$CASES" || return 0
    sleep 2
    empty=$(pss_kib)
    coproc HELD { in_ns "$GW" "$LOAD" "$4" 127.0.0.1 1883 "$count" "${@:5}" 3; }
    local load=$HELD_PID
    read -r -u "${HELD[0]}" _ held
    sleep 1
    full=$(pss_kib)
    wait "$load" || true
    record idle "mqtt-$case" "$peer" each "$(awk -v kib=$((full - empty)) -v n="$held" 'BEGIN { printf "%.3f", kib / n }')" \
        total "$((full - empty))" pss "$empty" lost $((count - held))
}

group_idle() {
    rounds idle_connections headgate haproxy v2ray
    rounds idle_whole headgate-everything
}

# A thousand connections, each proven by an echoed byte, then still: `idle_connections PEER [CASE]`.
idle_connections() {
    local count=1000 empty full after held fds
    sleep 1
    empty=$(pss_kib) fds=$(descriptors)
    coproc IDLE { in_ns "$LAN" "$LOAD" idle "$SERVER" 9000 $count 3; }
    local load=$IDLE_PID
    read -r -u "${IDLE[0]}" _ held
    sleep 1
    full=$(pss_kib) fds=$(($(descriptors) - fds))
    wait "$load" || true
    sleep 2
    after=$(pss_kib)
    record idle "${2:-connections-1000}" "$1" \
        per_connection "$(awk -v kib=$((full - empty)) -v n="$held" 'BEGIN { printf "%.2f", kib / n }')" \
        descriptors "$(awk -v fds="$fds" -v n="$held" 'BEGIN { printf "%.2f", fds / n }')" \
        returned "$(awk -v f="$full" -v a="$after" -v e="$empty" 'BEGIN { printf "%.0f", (f > e ? (f - a) * 100 / (f - e) : 0) }')" \
        pss "$empty" lost $((count - held))
}

# Everything on and nothing to do: memory, and the time from exec to readiness.
idle_whole() {
    # It gives back what starting took after 5 s.
    sleep 8
    record idle everything-on "${1%-everything}" pss "$(pss_kib)" ready_seen "$READY_SEEN" ready_said "$READY_SAID"
}

# In one process, without peers: tables of their own behind the others.
group_rules() { alone "Rule sets (tests/bench/rules/run)" tests/bench/rules/run; }
group_sql() { alone "SQL (cargo bench --bench sql)" cargo bench --quiet --locked --bench sql; }

alone() {
    {
        printf '%s\n\n' "$1"
        "${@:2}"
        echo
    } >>"$STATE/alone"
}
