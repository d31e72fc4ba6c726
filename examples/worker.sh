#!/bin/sh
# A worker in plain shell, which counts the words of files.  It needs curl and jq.
#
#     beaver run --http 127.0.0.1:9090 &
#     BEAVER_TOKEN=$(cat data/token) sh examples/worker.sh http://127.0.0.1:9090 &
#     beaver enqueue count_words '{"path": "README.md"}' --wait
set -u
url=$1/v1 headers=$(mktemp)    # In a file, since anybody may read a command line.
printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$BEAVER_TOKEN" > "$headers"

ask() { # METHOD PATH: sends what comes in, prints the answer; false where it is an error
    curl -sS --fail --max-time 90 -X "$1" -H "@$headers" --data-binary @- "$url$2"
}

report() { # KIND: sends an outcome until the server has an answer, whatever it is
    cat > "$headers.body"
    until code=$(curl -sS -o /dev/null -w '%{http_code}' --max-time 90 -H "@$headers" \
        --data-binary "@$headers.body" "$url/attempts/$token/$1") && [ "$code" -lt 500 ]; do
        sleep 1
    done
}

beat() { # says that the worker lives, and what it runs, until it is killed
    while sleep "$pause"; do
        printf '{"running": [%s]}' "$token" | ask POST "/workers/$worker/heartbeat" > /dev/null
    done
}

trap 'ask DELETE "/workers/$worker" < /dev/null; rm -f "$headers" "$headers.body"; exit' INT TERM
while sleep 1; do
    me=$(echo '{"name": "shell", "tasks": ["count_words"], "capacity": 1}' |
        ask POST /workers) || continue
    worker=$(echo "$me" | jq .worker) pause=$(echo "$me" | jq .heartbeat_ms/1000)
    while work=$(echo '{"max": 1, "wait_ms": 20000}' | ask POST "/workers/$worker/pull"); do
        token=$(echo "$work" | jq -e '.attempts[0].token') || continue
        beat & beating=$!
        if words=$(wc -w "$(echo "$work" | jq -r '.attempts[0].payload.path')" 2>&1); then
            jq -n --argjson words "${words%% *}" '{result: {words: $words}}' | report ack
        else
            jq -n --arg error "$words" '{error: $error}' | report fail
        fi
        kill "$beating"
    done # Nobody knows the worker any more, or nobody answers: it registers again.
done
