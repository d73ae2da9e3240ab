#!/usr/bin/env bash
# A bare Debian in a folder, to try what README says as a newcomer would. Needs root, debootstrap and Linux.
#
#     tools/bare_machine.sh make ROOT             makes it, with a copy of this checkout in /home/newcomer/staf-nerf
#     tools/bare_machine.sh run ROOT COMMAND      runs a command there as an ordinary user, in that copy
#     tools/bare_machine.sh admin ROOT COMMAND    the same as root
#     tools/bare_machine.sh block NAME            prints README's commands behind the comment <!-- NAME -->
#
# It holds Debian's minimal set of packages, certificates, and sudo for an ordinary user. From the machine around it come
# its package managers' configuration (where to fetch packages, which certificates to trust), and nothing else.
# RELEASE names another release of Debian than bookworm. BARE_FOLDER names a folder that can be read there as well.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
release=${RELEASE:-bookworm}
home=/home/newcomer

make_root() {
    local root=$1 mirror
    if ! command -v debootstrap >/dev/null; then
        echo "bare_machine.sh: debootstrap is missing. On Debian or Ubuntu: sudo apt install debootstrap" >&2
        exit 1
    fi
    # Without a mirror of this machine's, debootstrap takes its own.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.* 2>/dev/null |
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' | head -n 1 || true)
    mkdir -p "$root"
    if ! debootstrap --variant=minbase --include=ca-certificates,sudo "$release" "$root" ${mirror:+"$mirror"} \
        >"$root.log" 2>&1; then
        tail -n 20 "$root.log" >&2
        echo "bare_machine.sh: debootstrap could not make a bare Debian ($release) in $root" >&2
        exit 1
    fi
    if compgen -G "/etc/apt/sources.list.d/debian.*" >/dev/null; then
        rm -f "$root/etc/apt/sources.list"
        cp /etc/apt/sources.list.d/debian.* "$root/etc/apt/sources.list.d/"
    fi
    cp /etc/apt/apt.conf.d/99* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    chroot "$root" useradd --create-home --shell /bin/bash newcomer
    echo "newcomer ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/newcomer"
    mkdir "$root$home/staf-nerf"
    git -C "$checkout" archive HEAD | tar -x -C "$root$home/staf-nerf"
    chroot "$root" chown -R newcomer: "$home"
    inside root "$root" "apt-get update -qq"
}

# inside USER ROOT COMMAND: with mounts that end with the command, and none of this machine's environment.
inside() {
    local settings=(PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 USER="$1")
    settings+=(SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt DEBIAN_FRONTEND=noninteractive)
    for name in CI PIP_DEFAULT_TIMEOUT PIP_DISABLE_PIP_VERSION_CHECK PIP_PROGRESS_BAR PYTEST_ADDOPTS STAF_DATA STAF_SHORT_DEMO; do
        if [ -n "${!name:-}" ]; then settings+=("$name=${!name}"); fi
    done
    unshare --mount --propagation private bash -euo pipefail -c '
        user=$1 root=$2 command=$3 home=$4 folder=$5
        for name in proc sys dev; do mount --rbind "/$name" "$root/$name"; done
        for path in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip $folder; do
            if [ -d "$path" ]; then
                mkdir -p "$root$path"
            elif [ -e "$path" ]; then
                mkdir -p "$root$(dirname "$path")" && touch "$root$path"
            else
                continue
            fi
            mount --bind -o ro "$path" "$root$path"
        done
        [ "$user" = root ] && home=/root
        shift 5
        exec env -i "$@" HOME="$home" chroot --userspec="$user" --groups= "$root" /bin/bash -euo pipefail -c "
            cd ~
            if [ -d staf-nerf ]; then cd staf-nerf; fi
            $command" </dev/null
    ' bash "$1" "$2" "$3" "$home" "${BARE_FOLDER:-}" "${settings[@]}"
}

case "${1:-}" in
    make) make_root "$2" ;;
    run) inside newcomer "$2" "$3" ;;
    admin) inside root "$2" "$3" ;;
    block) sed -n "/<!-- $2 -->/,/^\`\`\`\$/p" "$checkout/README.md" | sed -n '/^```bash$/,/^```$/p' | sed '1d;$d' ;;
    *) sed -n '2,12s/^# \?//p' "$0" >&2; exit 2 ;;
esac
