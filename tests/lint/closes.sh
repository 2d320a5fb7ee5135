# Every reason for which a client leaves stands in belfry-protocol(7): its code and its text; a
# reason without a code by the advice to the client.

page=man/belfry-protocol.7

lint()
{
    need shared/closes.def $page || return
    words $page >"$scratch/words"
    plain $page >"$scratch/plain"
    rows shared/closes.def CLOSE |
        sed -nE 's/^([A-Z0-9_]+), *([0-9]+), *"([^"]*)", *"([^"]*)", *"([^"]*)".*/\1|\2|\3|\5/p' \
            >"$scratch/closes"
    while IFS='|' read -r name code reason client; do
        if [ "$code" -ne 0 ]; then
            grep -qFx "$code" "$scratch/words" || echo "$page: code $code ($name) is missing"
            grep -qF -- "$reason" "$scratch/plain" || echo "$page: $code: no text \"$reason\""
        fi
        grep -qF -- "$client" "$scratch/plain" ||
            echo "$page: $name: no advice \"$client\""
    done <"$scratch/closes"
    [ "$(grep -c '' "$scratch/closes")" -eq "$(grep -cE '^ *CLOSE\(' shared/closes.def)" ] ||
        echo "closes.def: a row that this lint cannot read"
}

expected=4
bad()
{
    mkdir shared man
    cat >shared/closes.def <<'END'
CLOSE(NO_PONG, 0, "", "no-pong", "reconnect", "Help.")
CLOSE(AUTH, 4001, "authentication failed", "auth", "reconnect", "Help.")
CLOSE(SLOW, 4008, "too slow", "slow", "go on", "Help.")
CLOSE(ODD)
END
    printf '.It 4001\nauthentication\n.Em failed ,\nreconnect\n.It 40080\ntoo fast\n' >$page
}

. "$(dirname "$0")/lib.sh"
