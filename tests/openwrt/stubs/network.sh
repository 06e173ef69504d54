# network_get_device of OpenWrt's network.sh: what netifd would say of the interfaces stands in /tmp/netifd.
network_get_device() {
	local found
	found=$(sed -n "s/^$2 //p" /tmp/netifd 2>/dev/null)
	[ -n "$found" ] || return 1
	eval "$1=\$found"
}
