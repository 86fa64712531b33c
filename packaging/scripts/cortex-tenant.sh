# Files that the package cortex-tenant brings. They are no configuration files to dpkg, so they go when it goes.
THEIR_FILES="/etc/default/cortex-tenant /etc/sysconfig/cortex-tenant /etc/cortex-tenant.yml"

# Copies them, while they are still there.
save_their_files() {
    for file in $THEIR_FILES; do
        if [ -f "$file" ]; then cp -p "$file" "$file.tenantry-saved"; fi
    done
}

# Puts back those that are gone, and removes the copies.
restore_their_files() {
    for file in $THEIR_FILES; do
        [ -f "$file.tenantry-saved" ] || continue
        if [ -e "$file" ]; then rm -f "$file.tenantry-saved"; else mv "$file.tenantry-saved" "$file"; fi
    done
}

# Checks the configuration that cortex-tenant.service reads. Without one, a restart would only stop the service.
cortex_tenant_is_sound() {
    file=$(
        CONFIG_FILE=/etc/cortex-tenant.yml
        export_settings /etc/default/cortex-tenant
        export_settings /etc/sysconfig/cortex-tenant
        printf '%s' "$CONFIG_FILE"
    )
    if [ -n "$file" ] && [ ! -e "$file" ]; then return 1; fi
    configuration_is_sound cortex-tenant "$file" /etc/default/cortex-tenant /etc/sysconfig/cortex-tenant
}

# Whether tenantry.service was never set up: it has the target that is installed. It would only take the port from
# cortex-tenant.service, or share it.
tenantry_has_no_target() (
    unset CT_TARGET
    export_settings /etc/default/tenantry
    [ -z "${CT_TARGET:-}" ] && grep -qs '^target: http://127\.0\.0\.1:9/[[:space:]]*$' /etc/tenantry/tenantry.yml
)
