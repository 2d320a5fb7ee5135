# Every option that limits what others may do is reached by a test that looks at what counts it:
# each row of limits.def names an option, a counter of counters.def or closes.def, and a function of
# tests/e2e whose text has the counter's name; the file must name the option. No option of the
# table's section LIMITS is without a row.

# body FILE FUNCTION: the function's text.
body()
{
    awk -v name="$2" '
        /^(async )?def / { is_in = index($0, "def " name "(") > 0 }
        is_in' "$1"
}

lint()
{
    need tests/lint/limits.def shared/options.def shared/counters.def shared/closes.def || return
    {
        rows shared/counters.def COUNTER | sed -nE 's/^([a-z0-9_]+),.*/\1/p'
        rows shared/closes.def CLOSE | sed -nE 's/^([A-Z0-9_]+),.*/closed_\1/p' |
            tr '[:upper:]' '[:lower:]'
    } >"$scratch/counters"
    grep -v '^#' tests/lint/limits.def >"$scratch/limits"
    rows shared/options.def OPTION | sed -nE 's/^([a-z0-9_]+),.*, *LIMITS,.*/\1/p' |
        while read -r option; do
            grep -q "^$option " "$scratch/limits" || echo "$option: no test is named for it"
        done
    while read -r option counter file test; do
        grep -qFx "$counter" "$scratch/counters" || echo "$option: $counter is no counter"
        body "tests/e2e/$file" "$test" >"$scratch/body" 2>"$scratch/errors"
        if [ ! -s "$scratch/body" ]; then
            echo "$option: $file has no $test"
            continue
        fi
        # closed_more(server, "slow", before) looks at closed_slow.
        grep -qE "$counter|[\"']${counter#closed_}[\"']" "$scratch/body" ||
            echo "$option: $test does not look at $counter"
        grep -q "$option" "tests/e2e/$file" || echo "$option: $file does not set it"
    done <"$scratch/limits"
}

expected=5
bad()
{
    mkdir -p shared tests/lint tests/e2e
    cat >shared/options.def <<'END'
OPTION(listed, COUNT, "1", "1..2", WORKERS, LIMITS, "N", "It has a row.")
OPTION(missing, COUNT, "1", "1..2", WORKERS, LIMITS, "N", "It has none.")
OPTION(other, COUNT, "1", "1..2", WORKERS, NETWORK, "N", "It needs none.")
END
    echo 'COUNTER(hits, TOTAL, CLIENT, "Hits.")' >shared/counters.def
    echo 'CLOSE(SLOW, 0, "", "slow", "x", "y")' >shared/closes.def
    cat >tests/lint/limits.def <<'END'
# option counter file function
listed  hits         test_a.py  test_one
listed  closed_slow  test_a.py  test_one
listed  never        test_a.py  test_none
unset   hits         test_a.py  test_one
END
    cat >tests/e2e/test_a.py <<'END'
def test_one(server):
    assert make(listed="1").hits == 1

def test_two(server):
    assert closed_slow
END
}

. "$(dirname "$0")/lib.sh"
