# The manual pages are clean for mandoc, and each says of itself what its file name says.

command -v mandoc >/dev/null || { echo "mandoc is not installed"; exit 77; }

lint()
{
    for page in man/*.[1-9]; do
        [ -f "$page" ] || { echo "man: no page"; return; }
        # Whether the pages we refer to are installed on this machine is no fault of ours.
        mandoc -T lint -W warning "$page" | grep -v 'STYLE: referenced manual not found'
        name=${page##*/}
        grep -qiE "^\.Dt ${name%.*} ${name##*.}\$" "$page" ||
            echo "$page: .Dt does not say ${name%.*} ${name##*.}"
        grep -q '^\.Os Belfry' "$page" || grep -q '^\.Os$' "$page" || echo "$page: no .Os"
    done
}

expected=2
bad()
{
    mkdir man
    cat >man/a.1 <<'END'
.Dd November 1, 2025
.Dt B 1
.Os
.Sh NAME
.Nm a
.Nd an example
.Sh DESCRIPTION
.Foo
END
}

. "$(dirname "$0")/lib.sh"
