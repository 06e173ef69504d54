# The part of OpenWrt's /lib/functions.sh that headgate's scripts call, by its published interface: a
# UCI file is a list of calls of `config`, `option` and `list`, and so it is read here. Used where the
# real file cannot be had; the tests run against either.

CONFIG_SECTIONS=
CONFIG_COUNT=0

config() {
	CONFIG_COUNT=$((CONFIG_COUNT + 1))
	CONFIG_SECTION=${2:-cfg$CONFIG_COUNT}
	CONFIG_SECTIONS="$CONFIG_SECTIONS $CONFIG_SECTION"
	eval "CONFIG_${CONFIG_SECTION}_TYPE=\$1"
}

option() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\$2"
}

list() {
	local length
	eval "length=\${CONFIG_${CONFIG_SECTION}_$1_LENGTH:-0}"
	length=$((length + 1))
	eval "CONFIG_${CONFIG_SECTION}_$1_ITEM$length=\$2
		CONFIG_${CONFIG_SECTION}_$1_LENGTH=$length
		CONFIG_${CONFIG_SECTION}_$1=\"\${CONFIG_${CONFIG_SECTION}_$1:+\$CONFIG_${CONFIG_SECTION}_$1 }\$2\""
}

package() { :; }

config_load() {
	local name
	for name in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done
	CONFIG_SECTIONS=
	CONFIG_COUNT=0
	[ -r "/etc/config/$1" ] && . "/etc/config/$1"
}

config_get() {
	case "$2$3" in
	*[!A-Za-z0-9_]*) return ;;
	esac
	eval "$1=\${CONFIG_$2_$3:-\$4}"
}

config_get_bool() {
	local value
	config_get value "$2" "$3" "$4"
	case "$value" in
	1 | on | true | yes | enabled) eval "$1=1" ;;
	0 | off | false | no | disabled) eval "$1=0" ;;
	*) eval "$1=\$4" ;;
	esac
}

config_foreach() {
	local callback=$1 type=$2 section kind
	shift 2
	for section in $CONFIG_SECTIONS; do
		eval "kind=\$CONFIG_${section}_TYPE"
		[ "$kind" = "$type" ] && eval "$callback \"\$section\" \"\$@\""
	done
	return 0
}

config_list_foreach() {
	local section=$1 option=$2 callback=$3 length number=1 value
	shift 3
	eval "length=\${CONFIG_${section}_${option}_LENGTH:-0}"
	while [ $number -le $length ]; do
		eval "value=\$CONFIG_${section}_${option}_ITEM$number"
		eval "$callback \"\$value\" \"\$@\""
		number=$((number + 1))
	done
}
