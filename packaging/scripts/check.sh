# Exports the settings of a file of systemd's form: CT_ variables, with or without quotes.
export_settings() {
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case "$line" in CT_[A-Z]*=*) ;; *) continue ;; esac
        name=${line%%=*}
        value=${line#*=}
        case "$value" in
            \"*\") value=${value#\"}; value=${value%\"} ;;
            \'*\') value=${value#\'}; value=${value%\'} ;;
        esac
        case "$name" in *[!A-Z0-9_]*) ;; *) export "$name=$value" ;; esac
    done < "$1"
}

# Checks a configuration as the service reads it: as its user, with its variables. If it has errors, prints them and
# what to do, and returns 1.
#   configuration_is_sound SERVICE FILE VARIABLES
configuration_is_sound() {
    if errors=$(
        export_settings "$3"
        setpriv --reuid tenantry --regid tenantry --clear-groups /usr/bin/tenantry --check-config --config "$2" 2>&1
    ); then
        return 0
    fi
    {
        echo "$1: THE CONFIGURATION HAS ERRORS. $1.service is not started or restarted."
        echo "$errors" | sed 's/^/    /'
        echo "$1: If it runs, it goes on as it was until it is stopped. Correct $2 (and $3), then"
        echo "$1: run: systemctl restart $1"
    } >&2
    return 1
}
