# Sourced by what builds and tests packages: installs what that needs, if it is missing. TOOLS is where pinned programs
# from PyPI are.
TOOLS=$PWD/target/packaging-tools
BUILD_PACKAGES=(binutils buildah ca-certificates)
TEST_PACKAGES=(adduser iproute2 lintian rpm systemd umoci)

# Installs those of the named Debian packages that are missing.
debian_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
}

# Installs what makes an environment, if it is missing, as on a clean Debian.
python_venv() {
    if ! python3 -c 'import ensurepip' 2>/dev/null; then debian_packages python3-venv; fi
}

# Starts a job in a process group of its own.
job() {
    set -m
    "$@" &
    set +m
}

# Ends the jobs of this shell, with all that they started.
kill_jobs() {
    local group
    for group in $(jobs -p); do kill -- "-$group" 2>/dev/null || true; done
    wait
}

# Makes the environment of pinned programs, unless it is there already.
pinned_tools() {
    local wanted
    wanted=$(sha256sum packaging/requirements.txt)
    if [ "$(cat "$TOOLS/made-from" 2>/dev/null)" != "$wanted" ]; then
        python3 -m venv --clear "$TOOLS"
        "$TOOLS/bin/pip" install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore --no-compile \
            --require-hashes --requirement packaging/requirements.txt
        echo "$wanted" > "$TOOLS/made-from"
    fi
}
