# Every option of the table stands in belfry.conf(5) with an entry of its own and in etc/belfry.conf
# with its default; and the sample names no option the table does not know.

table=shared/options.def
page=man/belfry.conf.5
sample=etc/belfry.conf

options()
{
    rows $table OPTION |
        sed -nE 's/^([a-z0-9_]+), *[A-Z]+, *"(([^"\\]|\\.)*)".*/\1 \2/p' |
        awk '{ gsub("_", "-", $1); print }'
}

# What the sample gives for an option, set or commented out.
sample_values()
{
    sed -nE "s/^#?[[:space:]]*$1[[:space:]]*=[[:space:]]*(.*)\$/\1/p" $sample |
        sed 's/[[:space:]]*$//'
}

lint()
{
    need $table $page $sample || return
    options | while read -r name default; do
        sed 's/\\-/-/g' $page | grep -qE "^\.It ([A-Z][a-z] )?$name( |\$)" ||
            echo "$page: no entry (.It) for $name"
        if ! sample_values "$name" | grep -q ''; then
            echo "$sample: $name is missing"
        elif ! sample_values "$name" | grep -qFx -- "$default"; then
            echo "$sample: $name does not show its default \"$default\""
        fi
    done
    sed -nE 's/^#?[[:space:]]?([a-z][a-z0-9-]*)[[:space:]]*=.*/\1/p' $sample | sort -u |
        while read -r name; do
            options | grep -qE "^$name( |\$)" || echo "$sample: $name is no option"
        done
    [ "$(options | grep -c '')" -eq "$(grep -c '^ *OPTION(' $table)" ] ||
        echo "$table: a row that this lint cannot read"
}

expected=5
bad()
{
    mkdir shared man etc
    cat >shared/options.def <<'END'
OPTION(ping_interval, TIME, "25s", "1s..1h", LIVE, X, "TIME",
       "Help.")
/* a comment (with brackets) */
OPTION(echo, CHOICE, "off", "off|on", LIVE, X, "off|on", "Help.")
OPTION(user, STRING, "", "", LIVE, X, "", "Help.")
OPTION(odd, "", X)
END
    printf '.It Cm ping\\-interval Ar x\n.It Cm user\n' >man/belfry.conf.5
    printf '# ping-interval = 26s\n#user =\n# gone = 1\n' >etc/belfry.conf
}

. "$(dirname "$0")/lib.sh"
