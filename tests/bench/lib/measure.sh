# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # the parts share their variables
# What a peer costs: CPU, memory, descriptors; and the lines that ../table reads. Sourced by ../run.

# User and system time of the peer's processes so far, in clock ticks (1/100 s).
cpu_ticks() {
    local pid stat sum=0
    local -a field
    for pid in "${PIDS[@]}"; do
        stat=$(<"/proc/$pid/stat")
        # After the program's name, which may hold spaces: state is field 3, utime 14, stime 15.
        read -ra field <<<"${stat##*) }"
        sum=$((sum + field[11] + field[12]))
    done
    echo "$sum"
}

# Proportional set size of the peer's processes, KiB: what the machine would get back.
pss_kib() {
    local pid sum=0 name value rest
    for pid in "${PIDS[@]}"; do
        while read -r name value rest; do
            if [ "$name" = Pss: ]; then sum=$((sum + value)); fi
        done <"/proc/$pid/smaps_rollup"
    done
    echo "$sum"
}

descriptors() {
    local pid sum=0
    local -a open
    for pid in "${PIDS[@]}"; do
        open=("/proc/$pid/fd/"*)
        sum=$((sum + ${#open[@]}))
    done
    echo "$sum"
}

# record GROUP CASE PEER METRIC VALUE...: one line per metric.
record() {
    local group=$1 case=$2 peer=$3
    shift 3
    while [ $# -gt 1 ]; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$group" "$case" "$peer" "$1" "$2" >>"$RESULTS"
        shift 2
    done
}

# The value after a word in the load's line: `field bytes "bytes 12 seconds 3"` is 12.
field() {
    local word previous=
    for word in $2; do
        if [ "$previous" = "$1" ]; then
            echo "$word"
            return
        fi
        previous=$word
    done
}

# CPU of the run per million of its units (bytes: per 10⁹), from ticks and a count.
per_unit() {
    awk -v ticks="$1" -v count="$2" -v scale="$3" 'BEGIN { printf "%.4f", (count > 0 ? ticks / 100 * scale / count : 0) }'
}

wanted() { [ -z "$2" ] || [[ " $2 " == *" $1 "* ]]; }

# The peers of a group that were asked for; with BASELINE set, the other binary follows headgate's.
chosen_peers() {
    local peer
    for peer in "$@"; do
        if wanted "$peer" "$PEERS"; then echo "$peer"; fi
        if [[ -n $BASELINE && $peer == headgate* ]] && wanted "${peer/headgate/baseline}" "$PEERS"; then
            echo "${peer/headgate/baseline}"
        fi
    done
}

# Every peer in turn, each round beginning with another one: `rounds FUNCTION PEER...` calls
# `FUNCTION PEER` while that peer runs, freshly started.
rounds() {
    local each=$1 round index count peer
    shift
    local -a peers
    mapfile -t peers < <(chosen_peers "$@")
    count=${#peers[@]}
    for ((round = 0; round < ROUNDS; round++)); do
        for ((index = 0; index < count; index++)); do
            peer=${peers[(index + round) % count]}
            [ ! -t 2 ] || printf '\rround %d of %d: %-30s' $((round + 1)) "$ROUNDS" "$peer" >&2
            fresh_addresses
            start_peer "$peer"
            "$each" "$peer"
            stop_peer
        done
    done
    [ ! -t 2 ] || printf '\r%-50s\r' '' >&2
}
