# The README of each of the three floors names every file that stands there, in backquotes, and none
# that does not: `a.h` stands for a.c, too, and `a_*.c` for all that begin so.

# named README: what it names as files, one a line. (In `check_X.c` X stands for something else.)
named()
{
    grep -oE '`[a-z0-9_/*]+\.(c|h|def)`' "$1" | tr -d '`' | grep -vx 'config\.h' | sort -u
}

lint()
{
    for folder in shared workers src; do
        readme=$folder/README.md
        [ -f "$readme" ] || continue
        names=$(named "$readme")
        for file in $folder/*.c $folder/*.h $folder/*.def; do
            [ -f "$file" ] || continue
            found=
            for name in $names; do
                # shellcheck disable=SC2254 # a name may hold a star
                case ${file#"$folder"/} in ${name%.*}.*) found=1 && break ;; esac
            done
            [ "$found" ] || echo "$readme: $file is not named"
        done
        for name in $names; do
            case $name in */*) at=$name ;; *) at=$folder/$name ;; esac
            # shellcheck disable=SC2086 # a name may hold a star
            ls $at >/dev/null 2>&1 || echo "$readme: there is no $name"
        done
    done
}

expected=2
bad()
{
    mkdir shared workers
    touch shared/a.c shared/a.h shared/b_x.c shared/b_y.c shared/c.def workers/d.c
    printf 'Here `a.h`, `b_*.c` and `gone.c`, and\n`workers/d.c`.\n' >shared/README.md
}

. "$(dirname "$0")/lib.sh"
