# systemd takes the unit.

command -v systemd-analyze >/dev/null || { echo "systemd-analyze is not installed"; exit 77; }

lint()
{
    need etc/belfryd.service.in || return
    # The program is not installed where the unit says; another one stands in for it.
    known=/^$/
    version=$(systemd-analyze --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 253 ] || known='/^Type=notify-reload$/' # the unit explains
    sed -e "${known}d" -e 's|@sbindir@/belfryd|/bin/true|' -e 's|@sysconfdir@|/etc|' \
        -e '/^Documentation=/d' -e '/^User=/d' -e '/^Group=/d' \
        etc/belfryd.service.in >"$scratch/belfryd.service"
    systemd-analyze verify --man=no "$scratch/belfryd.service" 2>&1 | grep -F "$scratch" |
        sed "s|$scratch/belfryd.service|etc/belfryd.service.in|"
    # Every directive that takes something away is explained.
    awk '/^(Protect|Private|Restrict[ANRS]|SystemCall|MemoryDeny|NoNew|Lock|Capab|RemoveIPC)/ &&
            !explained { print FILENAME ": no comment above " $0 }
        { explained = /^#/ || (explained && !/^$/) }' etc/belfryd.service.in
}

expected=3
bad()
{
    mkdir etc
    cat >etc/belfryd.service.in <<'END'
[Service]
ExecStart=@sbindir@/belfryd
ProtectSistem=strict

ProtectHome=yes
# Why.
PrivateTmp=yes
END
}

. "$(dirname "$0")/lib.sh"
