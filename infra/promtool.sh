#!/usr/bin/env bash
# promtool, with which the tests evaluate the alert rules as Prometheus does: its own, out of Debian's package.
#
#   infra/promtool.sh fetch    downloads the package once (19 MB), installs and starts nothing, and prints the path
#
# Prints the installed promtool where there is one. Environment: PROMTOOL_HOME (var/promtool).
# Exit codes: 0 fine, 2 wrong usage, 3 it cannot be had here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROMTOOL_HOME=${PROMTOOL_HOME:-$here/../var/promtool}

say() { printf 'promtool.sh: %s\n' "$*" >&2; }

[[ $# == 1 && $1 == fetch ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
command -v promtool && exit 0
promtool=$PROMTOOL_HOME/usr/bin/promtool
mkdir -p "$PROMTOOL_HOME"
# Two test runs may ask at once; the second one waits and finds it.
exec 9>"$PROMTOOL_HOME/.fetch.lock"
flock 9
if [[ ! -x $promtool ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    { say "this is no Debian or Ubuntu; install Prometheus 2.42 or later, which brings promtool"; exit 3; }
  say "fetching the package prometheus"
  cd "$PROMTOOL_HOME"
  if [[ $(id -u) == 0 ]]; then timeout 120 apt-get update -qq >&2 || true; fi
  timeout 180 apt-get download -qq prometheus >&2 || { say "the package prometheus could not be downloaded"; exit 3; }
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
  rm -f prometheus_*.deb
fi
echo "$promtool"
