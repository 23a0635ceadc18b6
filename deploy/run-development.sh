#!/bin/sh
# Starts the simulator, a receiver of what is relayed, and then the service, on this machine, for
# `make run`. Ctrl-C stops all of them. Other ports: ACKGATE_SERVER__PORT for the service,
# ACKGATE_SIMULATOR_PORT for the simulator, ACKGATE_RECEIVER_PORT for the receiver.
set -u

bin=.venv/bin
port=${ACKGATE_SERVER__PORT:-8080}
simulator_port=${ACKGATE_SIMULATOR_PORT:-9090}
service_url="http://127.0.0.1:$port"
receiver_port=${ACKGATE_RECEIVER_PORT:-9091}
simulator=
receiver=
service=

say() { printf '%s\n' "$*"; }
runs() { kill -0 "$1" 2>/dev/null; }

# A trap waits for a command to end, but interrupts `wait`; which also collects children that died.
pause() {
    sleep 1 &
    wait "$!"
}

# Ends a child by its process id: asks, waits 20 s, and then doesn't ask any more.
end() {
    [ -n "$1" ] || return 0
    kill "$1" 2>/dev/null || return 0
    patience=20
    while runs "$1" && [ "$patience" -gt 0 ]; do
        pause
        patience=$((patience - 1))
    done
    kill -9 "$1" 2>/dev/null
    return 0
}

# The service first, so that what it has under way with the others can finish.
finish() {
    status=$1
    trap '' INT TERM HUP
    trap - EXIT
    end "$service"
    end "$receiver"
    end "$simulator"
    exit "$status"
}

fail() {
    say "$1" >&2
    finish 1
}

# Whether something listens on the port of this machine.
listens() {
    "$bin/python" -c 'import socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()' "$1" 2>/dev/null
}

is_ready() {
    "$bin/python" -c 'import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=2)
connection.request("GET", "/health/ready")
sys.exit(connection.getresponse().status != 200)' "$port" 2>/dev/null
}

receiver_answers() { listens "$receiver_port"; }
simulator_answers() { [ -s var/simulator-ca.pem ] && listens "$simulator_port"; }

# wait_for NAME PID HINT COMMAND: until the command succeeds, the process dies, or 60 s are over.
wait_for() {
    left=60
    until "$4"; do
        runs "$2" || fail "$1 stopped before it was ready; $3"
        [ "$left" -gt 0 ] || fail "$1 was not ready within a minute; $3"
        pause
        left=$((left - 1))
    done
    runs "$2" || fail "$1 stopped before it was ready; $3"
}

trap 'finish 0' INT TERM HUP
trap 'finish $?' EXIT

for taken in "$simulator_port" "$receiver_port" "$port"; do
    if listens "$taken"; then
        fail "port $taken of 127.0.0.1 is taken; stop what listens there, or choose another (README.md)"
    fi
done

mkdir -p var
if [ "$simulator_port" != 9090 ]; then
    set -- --port "$simulator_port"
    export ACKGATE_ACCOUNTS__MAIN__BASE_URL="https://127.0.0.1:$simulator_port"
    export ACKGATE_ACCOUNTS__SHOP__BASE_URL="https://127.0.0.1:$simulator_port/v25.0"
fi
"$bin/ackgate" simulate serve \
    --webhook "$service_url/webhooks/main/development-webhook-token" \
    --username ackgate --password development-only \
    --cloud-webhook "$service_url/webhooks/meta" --cloud-identity-check "$@" >var/simulator.log 2>&1 &
simulator=$!
wait_for "the simulator" "$simulator" "see var/simulator.log" simulator_answers

# It prints here what comes. The secret is that of config/development.toml.
"$bin/ackgate" simulate receive --port "$receiver_port" \
    --secret whsec_ZGV2ZWxvcG1lbnQtb25seS1ub3Qtc2VjcmV0 &
receiver=$!
wait_for "the receiver" "$receiver" "its reason is above" receiver_answers
export ACKGATE_RELAYS__RECEIVER__URL="http://127.0.0.1:$receiver_port/"

"$bin/ackgate" serve --config config/development.toml &
service=$!
wait_for "the service" "$service" "its reason is above" is_ready

say ""
say "service    $service_url"
say "console    $service_url/console/"
say "health     $service_url/health/status"
say "metrics    $service_url/metrics"
say "simulator  https://127.0.0.1:$simulator_port (its log: var/simulator.log)"
say "receiver   http://127.0.0.1:$receiver_port (what is relayed to it is printed here)"
say ""
if [ "$port" != 8080 ] || [ "$simulator_port" != 9090 ]; then
    say "in another terminal, first: export ACKGATE_URL=$service_url ACKGATE_SIMULATOR_URL=https://127.0.0.1:$simulator_port"
fi
say "in another terminal: .venv/bin/ackgate simulate demo"
say ""

while runs "$simulator" && runs "$receiver" && runs "$service"; do
    pause
done
runs "$service" || fail "the service stopped; its reason is above"
runs "$receiver" || fail "the receiver stopped; its reason is above"
fail "the simulator stopped; see var/simulator.log"
