# Read by run.sh and demo.sh: puts on this machine what is missing. Debian's packages come from apt, as root or with
# sudo; the RTPproxy and the Sippy B2BUA from PyPI, into an environment beside the build, where the tests look for them.

fail() {
    echo "$0: $*" >&2
    exit 1
}

# The directory that cargo builds in, whoever has set it.
target_directory() {
    cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

missing=

# Whether there is a compiler with a C library to link with: Rust links through it.
can_link() {
    echo 'int main(void) { return 0; }' | cc -x c -o /dev/null -
}

# want PACKAGE CHECK...: PACKAGE is needed where CHECK fails.
want() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

install_missing() {
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "please install what these packages of Debian hold:$missing"
    if [ "$(id -u)" -eq 0 ]; then
        sudo=
    elif command -v sudo >/dev/null; then
        sudo=sudo
    else
        fail "installing$missing needs root or sudo"
    fi
    echo "installing:$missing"
    # An update that fails may leave lists that are good enough; the installation will tell.
    $sudo apt-get update -q || echo "apt-get update failed, trying without" >&2
    # shellcheck disable=SC2086 # the words are the packages
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing ||
        fail "could not install$missing"
}

# An RTPproxy in DIRECTORY/rtpproxy.
install_rtpproxy() {
    python=$1/rtpproxy/bin/python
    if "$python" -c 'import rtp.io' 2>/dev/null; then
        return 0
    fi
    echo "installing RTPproxy into $1/rtpproxy"
    python3 -m venv --clear "$1/rtpproxy" || fail "could not make $1/rtpproxy (package python3-venv)"
    "$python" -m pip install --quiet --disable-pip-version-check 'rtp.io==1.1.1' ||
        fail "could not install rtp.io from PyPI"
    "$python" -c 'import rtp.io' || fail "rtp.io is installed but does not load"
}

# A Sippy B2BUA in the environment of the RTPproxy.
install_b2bua() {
    python=$1/rtpproxy/bin/python
    if "$python" -c 'import sippy' 2>/dev/null; then
        return 0
    fi
    echo "installing the Sippy B2BUA into $1/rtpproxy"
    "$python" -m pip install --quiet --disable-pip-version-check 'sippy==2.5.0' ||
        fail "could not install sippy from PyPI"
    "$python" -c 'import sippy' || fail "sippy is installed but does not load"
}

# What the tests speak with: a terminal for the client, and a reader of metrics.
install_readers() {
    python=$1/rtpproxy/bin/python
    if "$python" -c 'import pexpect, prometheus_client' 2>/dev/null; then
        return 0
    fi
    echo "installing pexpect and prometheus-client into $1/rtpproxy"
    "$python" -m pip install --quiet --disable-pip-version-check 'pexpect==4.9.0' 'prometheus-client==0.26.0' ||
        fail "could not install pexpect and prometheus-client from PyPI"
    "$python" -c 'import pexpect, prometheus_client' || fail "pexpect or prometheus-client does not load"
}
