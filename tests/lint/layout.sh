# White space and width: no tabs, no blanks at the end of a line, 100 columns. Tables (*.def) have
# one row to a line and may be as wide as a row needs, up to 160.

tab=$(printf '\t')

lint()
{
    for file in shared/*.[ch] workers/*.[ch] src/*.[ch] tests/*.[ch] tests/*/*.[ch] \
        shared/*.def tests/e2e/*.py etc/*.sh tests/lint/*.sh tests/chroot \
        quickstart; do
        [ -f "$file" ] || continue
        case $file in
        *.def) width=160 ;;
        *) width=100 ;;
        esac
        grep -n "$tab" "$file" | sed "s|^\([0-9]*\):.*|$file:\1: tab|"
        grep -n '[[:space:]]$' "$file" | sed "s|^\([0-9]*\):.*|$file:\1: blanks at the end|"
        grep -nE "^.{$((width + 1))}" "$file" |
            sed "s|^\([0-9]*\):.*|$file:\1: more than $width columns|"
        [ -z "$(tail -c1 "$file")" ] || echo "$file: no newline at the end"
    done
}

expected=5
bad()
{
    mkdir shared
    printf 'int a;\t/* tab */\nint b; \n%0101d\nint c;' 0 >shared/a.c
    printf '%0150d\n%0161d\n' 0 0 >shared/a.def
}

. "$(dirname "$0")/lib.sh"
