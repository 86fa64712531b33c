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

# Makes the environment of pinned programs, unless it is there already.
pinned_tools() {
    local wanted
    wanted=$(sha256sum packaging/requirements.txt)
    if [ "$(cat "$TOOLS/made-from" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$TOOLS"
        # A pip of its own would take most of the time.
        python3 -m venv --without-pip "$TOOLS"
        python3 -m pip --python "$TOOLS/bin/python" install --quiet --disable-pip-version-check --no-deps \
            --root-user-action=ignore --no-compile --require-hashes --requirement packaging/requirements.txt
        echo "$wanted" > "$TOOLS/made-from"
    fi
}
