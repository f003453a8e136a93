#!/usr/bin/env bash
# A real Kafka broker on this machine: one JVM, KRaft mode, loopback only, for tests and development.
#
#   infra/kafka.sh fetch                      downloads the jars once (Maven)
#   infra/kafka.sh start [OPTIONS]            starts, and returns when the broker answers; keeps old data
#   infra/kafka.sh stop|kill|status [--dir D] clean stop, kill -9, exit code 0 when running
#
# Options of start:
#   --port N             client port (9092)
#   --controller-port N  port of the controller in the same JVM (client port + 1)
#   --dir D              data, log and pid file ($KAFKA_HOME/broker)
#   --properties FILE    lines appended to the broker's properties; later ones win
#
# Environment: KAFKA_HOME (var/kafka), KAFKA_HEAP (256m), KAFKA_JVM_OPTS.
# Exit codes: 0 fine, 1 failed or not running, 2 wrong usage, 3 Java or Maven is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KAFKA_HOME=${KAFKA_HOME:-$here/../var/kafka}
libs=$KAFKA_HOME/libs
start_timeout_s=60

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
usage() { sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# Installs a missing program where that is allowed; otherwise names it and gives up.
need() {
  local program=$1 package=$2
  command -v "$program" >/dev/null && return
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "$program is missing, installing $package"
    apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2 || true
  fi
  command -v "$program" >/dev/null && return
  say "$program is missing and could not be installed here. Install a Java runtime >= 17 and Maven," \
    "for example: apt-get install default-jre-headless maven"
  exit 3
}

fetch() {
  local stamp
  stamp=$libs/.complete-$(cksum <"$here/pom.xml" | cut -d' ' -f1)
  [[ -f $stamp ]] && return
  mkdir -p "$KAFKA_HOME"
  # Two test runs may ask at once; the second one waits and finds the jars.
  exec 9>"$KAFKA_HOME/.fetch.lock"
  flock 9
  if [[ ! -f $stamp ]]; then
    need java default-jre-headless
    need mvn maven
    say "fetching the broker's jars"
    rm -rf "$libs"
    mvn -q -B -l "$KAFKA_HOME/fetch.log" -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$libs" ||
      { say "Maven could not fetch the jars:"; grep -m 3 ERROR "$KAFKA_HOME/fetch.log" >&2; exit 1; }
    touch "$stamp"
  fi
  exec 9>&-
}

write_properties() {
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs=$dir/data
# Tests write records of other years, which are kept all the same.
log.retention.ms=-1
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500
EOF
  [[ -z $properties ]] || cat "$properties"
}

running_pid() {
  local pid
  [[ -f $dir/pid ]] || return 1
  pid=$(<"$dir/pid")
  # A recycled pid must not be taken for the broker: its command line names the directory.
  [[ -r /proc/$pid/cmdline ]] && tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF "$dir/server.properties" &&
    echo "$pid"
}

# The last lines of a log without the stack traces' frames.
explain() { grep -v '^[[:space:]]*at ' "$1" | tail -8 >&2 || true; }

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start() {
  local pid deadline cluster_id
  if pid=$(running_pid); then
    say "already running, pid $pid"
    return
  fi
  fetch
  need java default-jre-headless
  if answers; then
    say "port $port is taken by another program; give --port"
    exit 1
  fi
  mkdir -p "$dir"
  write_properties >"$dir/server.properties"
  local java_base=(java "-Xmx${KAFKA_HEAP:-256m}" -Xms64m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$libs/*")
  if [[ ! -f $dir/data/meta.properties ]]; then
    cluster_id=A$(head -c 32 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 21)
    "${java_base[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format -t "$cluster_id" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 ||
      { say "the data directory cannot be formatted:"; explain "$dir/format.log"; exit 1; }
  fi
  # shellcheck disable=SC2086 # KAFKA_JVM_OPTS is a list of words
  setsid nohup "${java_base[@]}" ${KAFKA_JVM_OPTS:-} kafka.Kafka "$dir/server.properties" \
    >>"$dir/broker.log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid" >"$dir/pid"
  deadline=$((SECONDS + start_timeout_s))
  until answers; do
    if ! kill -0 "$pid" 2>/dev/null; then
      say "the broker ended while starting; last lines of $dir/broker.log:"
      explain "$dir/broker.log"
      rm -f "$dir/pid"
      exit 1
    fi
    if ((SECONDS > deadline)); then
      say "the broker did not answer on port $port within $start_timeout_s s; see $dir/broker.log"
      kill -9 "$pid"
      exit 1
    fi
    sleep 0.1
  done
  echo "127.0.0.1:$port"
}

end_with() {
  local pid signal=$1
  if ! pid=$(running_pid); then
    say "not running"
    rm -f "$dir/pid"
    return
  fi
  kill "-$signal" "$pid"
  for _ in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || { rm -f "$dir/pid"; return; }
    sleep 0.1
  done
  say "pid $pid does not end; killing it"
  kill -9 "$pid"
  rm -f "$dir/pid"
}

[[ $# -ge 1 ]] || usage
verb=$1
shift
port=9092 controller_port='' dir=$KAFKA_HOME/broker properties=''
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage
  case $1 in
    --port) port=$2 ;;
    --controller-port) controller_port=$2 ;;
    --dir) dir=$2 ;;
    --properties) properties=$2 ;;
    *) usage ;;
  esac
  shift 2
done
controller_port=${controller_port:-$((port + 1))}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

case $verb in
  fetch) fetch ;;
  start) start ;;
  stop) end_with TERM ;;
  kill) end_with KILL ;;
  status) pid=$(running_pid) && echo "running, pid $pid" || { echo "not running"; exit 1; } ;;
  *) usage ;;
esac
