#!/bin/sh
# Makes sure that what the build needs is there. Asks dpkg; calls apt only when something is missing, and then only as
# root or through sudo. Elsewhere than on Debian and Ubuntu it checks for the same tools and says what is missing.
# usage: scripts/setup.sh [EXTRA_PACKAGE]...
set -eu

packages="gcc libc6-dev cmake make pkg-config libyaml-dev libturbojpeg0-dev libspng-dev libxxhash-dev
liburing-dev zlib1g-dev $*"

if ! command -v dpkg-query >/dev/null; then
    missing=
    for tool in cmake pkg-config gcc; do command -v $tool >/dev/null || missing="$missing $tool"; done
    for library in yaml-0.1 libturbojpeg spng libxxhash liburing zlib; do
        pkg-config --exists $library 2>/dev/null || missing="$missing $library"
    done
    [ -z "$missing" ] && exit 0
    echo "setup: this system has no apt; please install:$missing (the names of pkg-config for libraries)" >&2
    exit 1
fi

# A package that is removed but has its configuration left is known to dpkg, too.
missing=
for package in $packages; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
        missing="$missing $package"
done
# pkg-config is a virtual package where pkgconf has replaced it.
case " $missing " in
*" pkg-config "*) command -v pkg-config >/dev/null && missing=$(echo " $missing " | sed 's/ pkg-config / /') ;;
esac
[ -z "$(echo $missing)" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo=sudo
else
    echo "setup: packages are missing, and this is neither root nor can it use sudo. Please run as root:" >&2
    echo "    apt-get update && apt-get install --no-install-recommends" $missing >&2
    exit 1
fi
echo "setup: installing" $missing
$sudo apt-get update -qq
for package in $missing; do
    apt-cache show "$package" >/dev/null 2>&1 && continue
    echo "setup: this release has no package $package; Debian 12 and Ubuntu 24.04 are the first that have all" >&2
    exit 1
done
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
