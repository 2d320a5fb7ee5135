# HAProxy takes the example, and the example keeps what WebSockets need.

PATH=$PATH:/usr/sbin
command -v haproxy >/dev/null || { echo "haproxy is not installed"; exit 77; }

lint()
{
    need etc/haproxy.cfg || return
    haproxy -c -f etc/haproxy.cfg >"$scratch/haproxy" 2>&1 ||
        grep -E 'ALERT.*parsing' "$scratch/haproxy"
    grep -E '^\[WARNING\]' "$scratch/haproxy"
    grep -qE '^ *timeout tunnel' etc/haproxy.cfg || echo "etc/haproxy.cfg: no timeout tunnel"
    grep -qE 'uri /ws/health' etc/haproxy.cfg || echo "etc/haproxy.cfg: no health check"
    grep -nE '^[^#]*(send-proxy|accept-proxy)' etc/haproxy.cfg
}

expected=3
bad()
{
    mkdir etc
    cat >etc/haproxy.cfg <<'END'
defaults
    mode http
    timeout client 1s
    timeout connect 1s
    timeout server 1s
    timeot tunnel 75s
listen a
    bind 127.0.0.1:1
    server b 127.0.0.1:2
END
}

. "$(dirname "$0")/lib.sh"
