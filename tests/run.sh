#!/bin/sh
# sh tests/run.sh: installs what the tests need and is missing, then runs every test.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh

command -v cargo >/dev/null || fail "no cargo: install Rust from https://rustup.rs"
want "gcc libc6-dev" can_link
want git command -v git
want kamailio command -v kamailio
want mandoc command -v mandoc
want sip-tester command -v sipp
want socat command -v socat
want iproute2 command -v ip
want keepalived command -v keepalived
want procps command -v sysctl
want util-linux command -v unshare
want dnsmasq-base command -v dnsmasq
want redis-server command -v redis-server
want telnet command -v telnet
want curl command -v curl
want chromium command -v chromium
want prometheus command -v promtool
want python3 command -v python3
want dpkg-dev command -v dpkg-buildpackage
want debhelper command -v dh
want fakeroot command -v fakeroot
want lintian command -v lintian
want rpm command -v rpmbuild
want rpmlint command -v rpmlint
want debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
want mmdebstrap command -v mmdebstrap
want systemd-container command -v systemd-nspawn
want systemd command -v systemd-analyze
want zsh command -v zsh
want python3-venv python3 -c 'import venv, ensurepip'
install_missing
target=$(target_directory)
mkdir -p "$target"
install_rtpproxy "$target"
install_b2bua "$target"
install_readers "$target"

# The tests of the packages install them, on machines of their own, and those of a pair of hosts have networks of their
# own: for that one has to be root.
if [ "$(id -u)" -ne 0 ] && [ $# -eq 0 ]; then
    echo "not root: without the tests of the packages and of a pair of hosts; for them:" \
        "sudo env PATH=\"\$PATH\" sh tests/run.sh --test packages --test ha"
    set -- --lib --bins --test rules --test fuzz --test sim --test integration
fi
exec cargo test --locked "$@"
