#!/bin/bash
# Build the Debian image from a root file system made here, and try it: as root, in a minute or three.
#
#   etc/containers/try.sh [DIRECTORY]
#
# It makes a gateway, an origin that says back what it was sent, and the agent's container in the same
# network namespace as neither: the container's only neighbour is the gateway.  It exits 0 when the origin
# saw the credential and the agent did not.  Needs debootstrap, buildah, runc, podman, curl and openssl.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=${1:-$top/build/containers}
mkdir -p "$work"
cd "$work"

if [ ! -e root/usr/bin/s6-svscan ]; then
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,s6,curl \
        bookworm root >debootstrap.log
fi
rm -rf wheels context
"$top/.venv/bin/python" -m pip wheel -q -c "$top/constraints.txt" -w wheels "$top"
mkdir context
cp -R "$here"/. context/
cp -R wheels context/wheels

store=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)
buildah "${store[@]}" images -q slapenir-base | grep -q . ||
    tar -C root -c . | podman "${store[@]}" import -q - slapenir-base >/dev/null
buildah "${store[@]}" bud -q --isolation chroot --build-arg BASE=localhost/slapenir-base \
    -f context/debian.Containerfile -t slapenir-agent context
echo "built"
