# lib.sh: what the lints share. Sourced last by each of them, after it has defined
#
#   lint      reads the tree in the working directory, prints one line for each complaint
#   bad       writes the smallest tree that lint must complain about into the working directory
#   expected  how many lines lint must print about what bad wrote
#
# A lint that cannot fail proves nothing, so `bad` is tried first.

LC_ALL=C.UTF-8
export LC_ALL

# need FILE...: complains about those that are missing, and fails if any is.
need()
{
    missing=0
    for needed in "$@"; do
        [ -f "$needed" ] || { echo "$needed: not there"; missing=1; }
    done
    return $missing
}

# words FILE...: every word of manual pages, one a line, mdoc's escapes of '-' undone.
words()
{
    sed 's/\\-/-/g' "$@" | tr -cs 'A-Za-z0-9_' '\n' | sort -u
}

# plain FILE...: manual pages as one line of text with single blanks, without macros' names, so
# that a phrase is found even where the source breaks the line.
plain()
{
    sed -E 's/\\-/-/g; s/\\&//g; s/^\.([A-Z][a-z] )*//; s/"//g' "$@" | tr -s ' \t\n' '   '
}

# rows TABLE MACRO: the rows of a .def file, comments gone, one a line, without the macro's name
# and its outer brackets. Text that ends in the macro's name (STORE_MACRO) is not a row.
rows()
{
    { tr '\n' ' ' <"$1" && echo; } | sed -E 's#/\*([^*]|\*+[^*/])*\*+/##g' |
        sed -E "s/(^|[^A-Za-z_])$2\(/\1\n$2(/g" | sed -nE "s/^$2\((.*)\).*\$/\1/p"
}

here=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd) || exit 99
scratch=$(mktemp -d) || exit 99
trap 'rm -rf "$scratch"' EXIT
trap 'exit 99' HUP INT TERM

found=$(mkdir "$scratch/bad" && cd "$scratch/bad" && bad && lint 2>&1)
count=$(printf '%s' "$found" | grep -c '')
if [ "$count" -ne "$expected" ]; then
    printf 'self-test: %s complaints about a bad tree instead of %s:\n%s\n' \
        "$count" "$expected" "$found"
    exit 99
fi

found=$(cd "$here" && lint 2>&1)
if [ -n "$found" ]; then
    printf '%s\n' "$found"
    exit 1
fi
exit 0
