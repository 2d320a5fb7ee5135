# Every event type and every payload field that a writer checks stands in belfry-protocol(7).

page=man/belfry-protocol.7

lint()
{
    need shared/events.def $page || return
    words $page >"$scratch/words"
    rows shared/events.def EVENT | sed -nE 's/^([A-Z0-9_]+),.*/\1/p' >"$scratch/types"
    while read -r name; do
        grep -qFx "$name" "$scratch/words" || echo "$page: type $name is missing"
    done <"$scratch/types"
    grep -oE '[a-z0-9_]+\??:[sinbotapkx]\b' shared/events.def | sed 's/[?:].*//' | sort -u |
        while read -r name; do
            grep -qFx "$name" "$scratch/words" || echo "$page: payload field $name is missing"
        done
    [ "$(grep -c '' "$scratch/types")" -eq "$(grep -cE '^ *EVENT\(' shared/events.def)" ] ||
        echo "events.def: a row that this lint cannot read"
}

expected=3
bad()
{
    mkdir shared man
    cat >shared/events.def <<'END'
EVENT(BUDGET_ALERT, BUDGET, LIST, "", "amount_cents:i note?:s " "period:s")
EVENT(PING, SYSTEM, NONE, "", "")
EVENT(, ODD)
END
    printf '.It Dv PINGS BUDGET_ALERT\namount_cents, period\n' >$page
}

. "$(dirname "$0")/lib.sh"
