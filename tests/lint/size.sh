# No function above 80 lines, no file above 1000. A function is what stands between a brace of its
# own in the first column and the next closing one there.

lint()
{
    for file in shared/*.[ch] workers/*.[ch] src/*.[ch] tests/*.[ch] tests/*/*.[ch]; do
        [ -f "$file" ] || continue
        awk -v file="$file" '
            /^\{/ { start = NR }
            /^\}/ {
                if (start && NR - start + 1 > 80)
                    printf "%s:%d: function of %d lines\n", file, start, NR - start + 1
                start = 0
            }
            END { if (NR > 1000) printf "%s: %d lines\n", file, NR }
        ' "$file"
    done
}

expected=2
bad()
{
    mkdir shared
    awk 'BEGIN {
        print "int a(void)\n{"; for (i = 0; i < 78; i++) print "    b();"; print "}"
        print "int c(void)\n{"; for (i = 0; i < 79; i++) print "    b();"; print "}"
    }' >shared/a.c
    awk 'BEGIN { for (i = 0; i < 1001; i++) print "" }' >shared/a.h
}

. "$(dirname "$0")/lib.sh"
