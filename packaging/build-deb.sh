#!/bin/sh
# sh packaging/build-deb.sh: builds the Debian package into target/packages/deb. What that needs and is missing comes
# from apt, all but Rust: Debian's is too old, so the cargo on PATH compiles.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
. packaging/common.sh

want dpkg-dev command -v dpkg-buildpackage
want "gcc libc6-dev" can_link
want debhelper command -v dh
want fakeroot command -v fakeroot
want python3 command -v python3
install_missing
compile

# A tree with a debian/ at its top, which is all that debhelper asks for.
tree=$packages/deb-tree
rm -rf "$tree"
mkdir -p "$tree" "$packages/deb"
cp -R packaging/debian "$tree/debian"
cp packaging/systemd/rtp_cluster.service "$tree/debian/rtp-cluster.rtp_cluster.service"
cp packaging/systemd/rtp_cluster_status.service "$tree/debian/rtp-cluster.rtp_cluster_status.service"
cp packaging/systemd/rtp_cluster.tmpfiles "$tree/debian/rtp-cluster.rtp_cluster.tmpfiles"
cp packaging/init/rtp_cluster "$tree/debian/rtp-cluster.rtp_cluster.init"
cp packaging/etc/rtp_cluster.default "$tree/debian/rtp-cluster.rtp_cluster.default"
cp packaging/etc/rtp_cluster_status.default "$tree/debian/rtp-cluster.rtp_cluster_status.default"
cp etc/rtp_cluster.xml "$tree/example.xml"
cp -R packaging/monitoring "$tree/monitoring"
stage "$tree/staged"
install -D -m 644 -t "$tree/staged/usr/share/zsh/vendor-completions" packaging/completion/_rtp_cluster \
    packaging/completion/_rtp_cluster_client packaging/completion/_rtp_cluster_status
python3 packaging/copyright.py debian >"$tree/debian/copyright"
newest=$(dpkg-parsechangelog -l "$tree/debian/changelog" -S Version)
[ "${newest%-*}" = "$version" ] || fail "packaging/debian/changelog is of $newest, Cargo.toml of $version"
if [ "${newest#*-}" != "$revision" ]; then
    {
        printf 'rtp-cluster (%s) bookworm; urgency=medium\n\n  * Built again.\n\n' "$version-$revision"
        sed -n 's/^Maintainer: \(.*\)/ -- \1/p' packaging/debian/control | tr -d '\n'
        printf '  %s\n\n' "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
        cat packaging/debian/changelog
    } >"$tree/debian/changelog"
fi

(cd "$tree" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps) >"$packages/deb.log" 2>&1 || {
    cat "$packages/deb.log" >&2
    fail "could not build the package"
}
mv "$packages"/rtp-cluster*_"$version-$revision"_* "$packages/deb"
ls "$packages/deb"/rtp-cluster_"$version-$revision"_*.deb
