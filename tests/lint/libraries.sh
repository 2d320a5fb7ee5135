# Each library is known to as few files as possible. The table says which: a header pattern, and the
# modules (tests aside) that may include it.

table()
{
    cat <<'END'
llhttp\.h           http
wslay/              frame wsock wsclient
openssl/            handshake publish redislink tlsio token_key token_keys token_known wsclient
jwt\.h              token_mint
zlib\.h             deflate pages
seccomp\.h          sandbox
hiredis/adapters/   redislink
hiredis             ctl_history ctl_redis ctl_stored publish redislink store store_parts subscriber
cjson/|cJSON\.h     json token_mint
systemd/            notify
END
}

lint()
{
    table | while read -r pattern files; do
        for file in shared/*.[ch] workers/*.[ch] src/*.[ch]; do
            [ -f "$file" ] || continue
            name=${file##*/}
            case " $files " in *" ${name%.*} "*) continue ;; esac
            # The adapters have a row of their own.
            grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]([a-z]*/)?($pattern)" \
                "$file" | sed "s|^|$file:|; s|\$|: only in $files|"
        done
    done
}

expected=3
bad()
{
    mkdir shared workers
    printf '#include <llhttp.h>\n#include <hiredis/async.h>\n' >shared/a.c
    printf '#include <jwt.h>\n' >shared/a.h
    printf '#include <llhttp.h>\n' >workers/http.c
}

. "$(dirname "$0")/lib.sh"
