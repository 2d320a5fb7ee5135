# The front end's tables follow the server's: every event type, payload field and close code stands
# in client/src/core/tables.ts. (The client's own tests compare all; they need Node.js.)

tables=client/src/core/tables.ts

lint()
{
    need shared/events.def shared/closes.def $tables || return
    rows shared/events.def EVENT | sed -nE 's/^([A-Z0-9_]+),.*/\1/p' | while read -r name; do
        grep -qE "^  $name: [E{R]" $tables || echo "$tables: type $name is missing"
    done
    grep -oE '[a-z0-9_]+\??:[sinbotapkx]\b' shared/events.def | sed 's/[?:].*//' | sort -u |
        while read -r name; do
            grep -qE "^    $name\??: " $tables || echo "$tables: payload field $name is missing"
        done
    rows shared/closes.def CLOSE | sed -nE 's/^[A-Z0-9_]+, *([1-9][0-9]*),.*/\1/p' | sort -u |
        while read -r code; do
            grep -qE "^  $code: " $tables || echo "$tables: close code $code is missing"
        done
}

expected=3
bad()
{
    mkdir -p shared client/src/core
    cat >shared/events.def <<'END'
EVENT(PING, SYSTEM, NONE, "", "note?:s period:s")
EVENT(PONG, SYSTEM, NONE, "", "")
END
    cat >shared/closes.def <<'END'
CLOSE(LOST, 0, "", "lost", "reconnect", "Lost.")
CLOSE(AUTH, 4001, "", "auth", "reconnect", "Auth.")
END
    printf '  PINGS: {\n  PONG: {\n    period: string;\n' >$tables
}

. "$(dirname "$0")/lib.sh"
