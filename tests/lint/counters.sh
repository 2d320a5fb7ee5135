# Every counter of the table, and each one that a row of closes.def adds, has an entry (.It) in the
# manual, under the name that /ws/stats gives or under the one of the Prometheus text; gauges, and
# no others, are called so there.

lint()
{
    need shared/counters.def shared/closes.def man/belfryd.8 || return
    grep -h '^\.It' man/*.[1-9] | words >"$scratch/words"
    {
        rows shared/counters.def COUNTER | sed -nE 's/^([a-z0-9_]+), *([A-Z]+),.*/\1 \2/p'
        rows shared/closes.def CLOSE | sed -nE 's/^([A-Z0-9_]+),.*/closed_\1 TOTAL/p' |
            tr '[:upper:]' '[:lower:]'
    } >"$scratch/counters"
    while read -r name kind; do
        case $kind in
        TOTAL | total) metric=belfry_${name}_total ;;
        *) metric=belfry_$name ;;
        esac
        entry=$(grep -hE "^\\.It Va ($name|$metric)( |\$)" man/*.[1-9])
        grep -qFx -e "$name" -e "$metric" "$scratch/words" ||
            echo "counter $name ($metric) has no entry in the manual"
        case $kind$entry in
        GAUGE | GAUGE*gauge*) ;;
        GAUGE*) echo "gauge $name is not called one in the manual" ;;
        *gauge*) echo "counter $name is called a gauge in the manual" ;;
        esac
    done <"$scratch/counters"
    [ "$(grep -c '' "$scratch/counters")" -eq \
        "$(cat shared/counters.def shared/closes.def | grep -cE '^ *(COUNTER|CLOSE)\(')" ] ||
        echo "counters.def or closes.def: a row that this lint cannot read"
}

expected=6
bad()
{
    mkdir shared man
    cat >shared/counters.def <<'END'
COUNTER(connections,   GAUGE, CONNECTIONS, "Open.")
COUNTER(sent_bytes,    TOTAL, CLIENT, "Bytes (all).")
COUNTER(commands,      TOTAL, CLIENT, "Messages.")
COUNTER(open,          GAUGE, CLIENT, "Open.")
COUNTER(closed,        TOTAL, CLIENT, "Closed.")
COUNTER(odd row)
END
    echo 'CLOSE(NO_PONG, 0, "", "no-pong", "x", "y")' >shared/closes.def
    printf '.It Va %s\n' belfry_connections_total belfry_sent_bytes_total open 'closed Pq gauge' \
        >man/belfryd.8
    printf 'all commands\n' >man/belfryctl.1
}

. "$(dirname "$0")/lib.sh"
