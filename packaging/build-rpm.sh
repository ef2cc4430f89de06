#!/bin/sh
# sh packaging/build-rpm.sh: builds the RPM into target/packages/rpm. What that needs and is missing comes from apt, on
# Debian; on others it has to be there. The cargo on PATH compiles.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh
. packaging/common.sh

want "gcc libc6-dev" can_link
want rpm command -v rpmbuild
want python3 command -v python3
install_missing
compile

staged=$packages/rpm-staged
tree=$packages/rpm-tree
rm -rf "$staged" "$tree"
mkdir -p "$tree/BUILD/examples" "$packages/rpm"
stage "$staged"
install -D -m 644 -t "$staged/usr/share/zsh/site-functions" packaging/completion/_rtp_cluster \
    packaging/completion/_rtp_cluster_client packaging/completion/_rtp_cluster_status
install -D -m 644 packaging/systemd/rtp_cluster.service "$staged/usr/lib/systemd/system/rtp_cluster.service"
install -D -m 644 -t "$staged/usr/lib/systemd/system" packaging/systemd/rtp_cluster_status.service
install -D -m 644 packaging/systemd/rtp_cluster.tmpfiles "$staged/usr/lib/tmpfiles.d/rtp_cluster.conf"
install -D -m 644 packaging/systemd/rtp_cluster.sysusers "$staged/usr/lib/sysusers.d/rtp_cluster.conf"
install -D -m 644 packaging/etc/rtp_cluster.default "$staged/etc/sysconfig/rtp_cluster"
install -D -m 644 packaging/etc/rtp_cluster_status.default "$staged/etc/sysconfig/rtp_cluster_status"
gzip -n9 "$staged"/usr/share/man/man*/*
strip "$staged/usr/sbin/rtp_cluster" "$staged/usr/sbin/rtp_cluster_status" "$staged/usr/bin/rtp_cluster_client"
# Read as %license and %doc.
cp LICENSE "$tree/BUILD"
cp etc/rtp_cluster.xml "$tree/BUILD/examples"
cp -R packaging/monitoring "$tree/BUILD/examples/monitoring"
sed 's/^rtp-cluster/rtp_cluster/' packaging/debian/changelog >"$tree/BUILD/changelog"
python3 packaging/copyright.py debian >"$tree/BUILD/copyright"

rpmbuild -bb --define "_topdir $tree" --define "_builddir $tree/BUILD" --define "_rpmdir $packages/rpm" \
    --define "staged $staged" --define "rtpc_version $version" --define "rtpc_revision $revision" \
    --define "rtpc_licence $(python3 packaging/copyright.py rpm)" \
    --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
    --define "_buildhost localhost" packaging/rpm/rtp_cluster.spec >"$packages/rpm.log" 2>&1 || {
    cat "$packages/rpm.log" >&2
    fail "could not build the package"
}
ls "$packages/rpm"/*/"rtp_cluster-$version-$revision".*.rpm
