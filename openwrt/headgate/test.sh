#!/bin/sh
# Run by the feed's CI in an emulated root: test.sh PACKAGE VERSION.

[ "$1" = headgate ] || exit 0
headgate version | grep -qF "$2" || exit 1

config=$(mktemp)
printf 'mixed-port: 7890\nrules: ["MATCH,DIRECT"]\n' >"$config"
headgate check -f "$config" || exit 1
printf 'mixed-port: often\n' >"$config"
! headgate check -f "$config" 2>/dev/null || exit 1
rm -f "$config"
