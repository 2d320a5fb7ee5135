# demo.sh: the main job once through, by itself: a server, a listener, one event of every type of
# the table, shown as they arrive, with the time each took from before `belfryctl emit` was
# started to the line that the listener printed. Called by ./quickstart demo; BELFRYD and
# BELFRYCTL name the programs. Exit status 0: every event arrived.

set -eu
: "${BELFRYD:=belfryd}" "${BELFRYCTL:=belfryctl}"

work=$(mktemp -d "${TMPDIR:-/tmp}/belfry-demo.XXXXXX")
server= listener=

# Ends what was started, by its own pid. A background process of a shell without job control
# ignores INT, so it is TERM.
finish()
{
    status=$?
    trap - EXIT HUP INT TERM
    for pid in $listener $server; do
        kill "$pid" 2>/dev/null || continue
        # shellcheck disable=SC2034
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ $status -ne 0 ] && [ -s "$work/server.log" ]; then
        echo "demo: the server's last lines:" >&2
        tail -n 20 "$work/server.log" >&2
    fi
    rm -rf "$work"
    exit $status
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

fail()
{
    echo "demo: $*" >&2
    exit 1
}

# waits_for SECONDS COMMAND...: until the command succeeds.
waits_for()
{
    tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

now_us()
{
    echo $(($(date +%s%N) / 1000))
}

# Server and tool read the same environment. Port 0 takes a free port; the control socket is how
# the tool finds it, and the Redis that --dev starts.
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$work/secret"
chmod 600 "$work/secret"
export BELFRY_CONTROL_SOCKET="$work/control.sock" BELFRY_JWT_SECRET_FILE="$work/secret"

echo "== belfryd --dev"
BELFRY_LISTEN=127.0.0.1:0 "$BELFRYD" --dev >"$work/server.log" 2>&1 &
server=$!
# shellcheck disable=SC2329
is_running()
{
    kill -0 "$server" && "$BELFRYCTL" status --json | grep -q '"state": *"running"'
}
waits_for 20 is_running || fail "the server did not start"
address=$("$BELFRYCTL" status --json | sed -n 's/.*"listen": *\["\([^"]*\)".*/\1/p')
[ -n "$address" ] || fail "the server does not say where it listens"
export BELFRY_REDIS_URL=embedded
url=ws://$address/ws

echo "== belfryctl listen --user demo --url $url"
{
    # Its standard output goes through a stamp; the subshell's process id is of no use, so it
    # leaves one.
    "$BELFRYCTL" listen --user demo --url "$url" --timeout 50s 2>"$work/listener.log" &
    echo $! >"$work/listener.pid"
    wait
} | while IFS= read -r line; do
    printf '%s %s\n' "$(now_us)" "$line"
done >"$work/arrived" &
waits_for 5 test -s "$work/listener.pid" || fail "the listener did not start"
listener=$(cat "$work/listener.pid")
waits_for 10 test -s "$work/arrived" ||
    { cat "$work/listener.log" >&2; fail "the listener got no FULL_SYNC"; }

# Who listens gets one FULL_SYNC when it connects; lines are counted from there.
types=$("$BELFRYCTL" events --names)
count=$(echo "$types" | grep -c '')
seen=$(grep -c '' "$work/arrived")
slowest_us=0 slowest=
echo "== belfryctl emit demo TYPE --sample, for each of the $count types"
for type in $types; do
    before=$(now_us)
    "$BELFRYCTL" emit demo "$type" --sample >"$work/emit.log" 2>&1 ||
        { cat "$work/emit.log" >&2; fail "emit $type failed"; }
    tries=1000
    until [ "$(grep -c '' "$work/arrived")" -gt "$seen" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "$type did not arrive within 5 s"
        sleep 0.005
    done
    seen=$((seen + 1))
    line=$(sed -n "${seen}p" "$work/arrived")
    took_us=$((${line%% *} - before))
    message=${line#* }
    case $message in
    *"\"$type\""*) ;;
    *) fail "instead of $type came $message" ;;
    esac
    if [ $took_us -gt $slowest_us ]; then
        slowest_us=$took_us
        slowest=$type
    fi
    printf '%6d.%01d ms  %-28s%.100s\n' \
        $((took_us / 1000)) $((took_us % 1000 / 100)) "$type" "${message#*\"payload\":}"
done

printf '== all %d arrived; the slowest was %s with %d.%01d ms from emit to arrival\n' \
    "$count" "$slowest" $((slowest_us / 1000)) $((slowest_us % 1000 / 100))
