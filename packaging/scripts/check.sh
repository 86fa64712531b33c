# Removes blanks and carriage returns from the end of a text.
#   trimmed TEXT
blanks=$(printf ' \t\r')
trimmed() {
    text=$1
    while :; do
        case "$text" in
            *["$blanks"]) text=${text%?} ;;
            *) break ;;
        esac
    done
    printf '%s' "$text"
}

# Exports the settings of a file of systemd's form: the variables that the program reads, with or without quotes.
export_settings() {
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case "$line" in CT_[A-Z]*=* | SSL_CERT_FILE=* | SSL_CERT_DIR=* | CONFIG_FILE=*) ;; *) continue ;; esac
        name=${line%%=*}
        value=$(trimmed "${line#*=}")
        case "$value" in
            \"*\") value=${value#\"}; value=${value%\"} ;;
            \'*\') value=${value#\'}; value=${value%\'} ;;
        esac
        case "$name" in *[!A-Z0-9_]*) ;; *) export "$name=$value" ;; esac
    done < "$1"
}

# Checks a configuration as the service reads it: as its user, with its groups and variables. If it has errors, prints
# them and what to do, and returns 1.
#   configuration_is_sound SERVICE FILE VARIABLES...
configuration_is_sound() {
    service=$1 file=$2
    shift 2
    if errors=$(
        for variables in "$@"; do export_settings "$variables"; done
        setpriv --reuid tenantry --regid tenantry --init-groups /usr/bin/tenantry --check-config --config "$file" 2>&1
    ); then
        return 0
    fi
    {
        echo "$service: THE CONFIGURATION HAS ERRORS. $service.service is not started or restarted."
        echo "$errors" | sed 's/^/    /'
        echo "$service: If it runs, it goes on as it was until it is stopped. Correct $file (and $*), then"
        echo "$service: run: systemctl restart $service"
    } >&2
    return 1
}
