# nginx takes the example, and the example keeps what WebSockets need.

PATH=$PATH:/usr/sbin
command -v nginx >/dev/null || { echo "nginx is not installed"; exit 77; }

lint()
{
    need etc/nginx.conf || return
    mkdir -p "$scratch/nginx"
    # Nothing outside of the scratch directory is opened, bound or written.
    sed -e "s|listen 80;|listen unix:$scratch/nginx/socket;|" -e '/listen \[::\]/d' \
        -e "s|/var/log/nginx|$scratch/nginx|" etc/nginx.conf >"$scratch/nginx/belfry.conf"
    cat >"$scratch/nginx/nginx.conf" <<END
pid $scratch/nginx/pid;
error_log stderr warn;
events {}
http {
    client_body_temp_path $scratch/nginx/body;
    proxy_temp_path $scratch/nginx/proxy;
    fastcgi_temp_path $scratch/nginx/fastcgi;
    uwsgi_temp_path $scratch/nginx/uwsgi;
    scgi_temp_path $scratch/nginx/scgi;
    include $scratch/nginx/belfry.conf;
}
END
    nginx -t -p "$scratch/nginx" -e stderr -c "$scratch/nginx/nginx.conf" \
        >"$scratch/nginx/out" 2>&1 || grep -F '[emerg]' "$scratch/nginx/out"
    for header in 'Upgrade \$http_upgrade' 'Connection \$' 'Host \$host'; do
        grep -qE "^ *proxy_set_header $header" etc/nginx.conf ||
            echo "etc/nginx.conf: proxy_set_header $header is missing"
    done
    ! grep -E '^[^#]*proxy_protocol' etc/nginx.conf
}

expected=2
bad()
{
    mkdir etc
    cat >etc/nginx.conf <<'END'
server {
    listen 80;
    location / {
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        proxy_pas http://127.0.0.1:1;
    }
}
END
}

. "$(dirname "$0")/lib.sh"
