# Creates the service's user, which owns no files but those of a spool.
create_user() {
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers tenantry.conf
    elif getent passwd tenantry >/dev/null; then
        :
    elif command -v adduser >/dev/null && command -v addgroup >/dev/null; then
        adduser --system --group --quiet --no-create-home --home / --gecos Tenantry tenantry
    else
        useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin --comment Tenantry tenantry
    fi
}
