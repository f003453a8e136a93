#!/usr/bin/env bash
# The schema of KubeRay's RayService, which the tests hold infra/kuberay.yaml against: out of KubeRay's Go module.
#
#   infra/kuberay.sh fetch    downloads the module once (Go), and prints the path of the schema
#
# Environment: KUBERAY_HOME (var/kuberay).
# Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 Go is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KUBERAY_HOME=${KUBERAY_HOME:-$here/../var/kuberay}
module=github.com/ray-project/kuberay/ray-operator@v1.6.1

say() { printf 'kuberay.sh: %s\n' "$*" >&2; }

[[ $# == 1 && $1 == fetch ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
mkdir -p "$KUBERAY_HOME"
cd "$KUBERAY_HOME"
schema=rayservices-${module##*@}.yaml
# Two test runs may ask at once; the second one waits and finds it.
exec 9>.fetch.lock
flock 9
if [[ ! -f $schema ]]; then
  command -v go >/dev/null || { say "go is missing: the test of the RayService by its schema will be skipped"; exit 3; }
  say "fetching $module"
  GOMODCACHE=$PWD/part GOFLAGS=-modcacherw timeout 180 go mod download "$module" >&2 || { say "Go could not fetch it"; exit 1; }
  mv "part/$module/config/crd/bases/ray.io_rayservices.yaml" "$schema"
  rm -rf part
fi
echo "$PWD/$schema"
