#!/usr/bin/env bash
# Prepare a Linux host for one environment. Run it there as root, again whenever something changes:
#
#   ssh root@HOST bash -s PROJECT-ENVIRONMENT ADDRESS "'ssh-ed25519 AA… ci'" < deploy/bootstrap.sh
#
# ADDRESS is what Caddy answers to: a domain that leads to this host, for which it gets a
# certificate by itself, or such as http://shop.example:8080. The key is the public half of
# DEPLOY_CREDENTIAL; without it the keys stay as they are.
set -euo pipefail
shopt -s inherit_errexit nullglob
umask 022 # Caddy, another user, has to read its site

root=${DEPLOY_ROOT:-/srv/deploy}
user=${DEPLOY_USER:-deploy}
caddyfile=${DEPLOY_CADDYFILE:-/etc/caddy/Caddyfile}
first_port=${DEPLOY_FIRST_PORT:-8101}
changed=

fail() {
    echo "error: $*" >&2
    exit 1
}

did() {
    changed=yes
    echo "$*"
}

# Write stdin to a file of the user, if it says something else.
put() {
    local wanted
    wanted=$(cat)
    if [[ ! -e $1 || $(<"$1") != "$wanted" ]]; then
        printf '%s\n' "$wanted" >"$1.new"
        chown "$user:" "$1.new"
        mv "$1.new" "$1"
        did "wrote $1"
    fi
}

install_missing() {
    local missing=()
    command -v docker >/dev/null || missing+=(docker.io)
    command -v caddy >/dev/null || missing+=(caddy)
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "install Docker and Caddy first; missing: ${missing[*]}"
    apt-get update --quiet
    DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
    did "installed ${missing[*]}"
}

let_in() {
    local key=$1 keys home
    if ! id "$user" >/dev/null 2>&1; then
        useradd --create-home --shell /bin/bash "$user"
        did "made the user $user"
    fi
    if [[ $(id -u "$user") != 0 && " $(id -Gn "$user") " != *" docker "* ]]; then
        usermod --append --groups docker "$user"
        did "put $user into the group docker"
    fi
    home=$(getent passwd "$user" | cut -d : -f 6)
    keys=${DEPLOY_AUTHORIZED_KEYS:-$home/.ssh/authorized_keys}
    if [[ -n $key ]] && ! grep --quiet --fixed-strings --no-messages "$key" "$keys"; then
        [[ -d ${keys%/*} ]] || install --directory --owner "$user" --mode 700 "${keys%/*}"
        (umask 077 && echo "restrict $key" >>"$keys")
        chown "$user:" "$keys"
        did "let $user in with the key"
    fi
}

# Two ports for each environment, that no other one here has.
choose_ports() {
    local port=$first_port
    [[ ! -e $folder/ports ]] || return 0
    while grep --quiet --no-messages "^$port " "$root"/*/ports; do port=$((port + 2)); done
    put "$folder/ports" <<<"$port $((port + 1))"
}

tell_caddy() {
    local blue green old said
    read -r blue green <"$folder/ports"
    old=$(cat "$folder/site.caddy" 2>/dev/null || true)
    put "$folder/site.caddy" <<END
$address {
    @green file {
        root $folder
        try_files live/green
    }
    reverse_proxy @green 127.0.0.1:$green
    reverse_proxy 127.0.0.1:$blue
}
END
    if ! grep --quiet --fixed-strings --no-messages "import $root/*/site.caddy" "$caddyfile"; then
        printf '\nimport %s/*/site.caddy\n' "$root" >>"$caddyfile"
        did "wrote $caddyfile"
    fi
    [[ -n $changed ]] || return 0
    if ! said=$(caddy validate --config "$caddyfile" --adapter caddyfile 2>&1); then
        if [[ -n $old ]]; then put "$folder/site.caddy" <<<"$old"; else rm "$folder/site.caddy"; fi
        fail "Caddy does not take $address: $(tail --lines=1 <<<"$said")"
    fi
    said=$(caddy reload --config "$caddyfile" --adapter caddyfile 2>&1) \
        || fail "Caddy does not run: $(tail --lines=1 <<<"$said")"
}

main() {
    [[ $# == 2 || $# == 3 ]] || fail "usage: bootstrap.sh PROJECT-ENVIRONMENT ADDRESS [PUBLIC KEY]"
    site=$1
    address=$2
    folder=$root/$site
    [[ $site =~ ^[a-z0-9][a-z0-9._-]*-(staging|production)$ ]] \
        || fail "'$site' is not the project's name with -staging or -production"
    [[ $address =~ ^(https?://)?[A-Za-z0-9.-]+(:[0-9]+)?$ ]] \
        || fail "'$address' is neither a domain nor such as http://shop.example:8080"
    [[ -z ${3:-} || $3 =~ ^(ssh|ecdsa|sk)-[a-z0-9@.-]+\ [A-Za-z0-9+/=]+ ]] \
        || fail "the third word is no public key, such as ssh-keygen writes into a file .pub"
    [[ $EUID == 0 || $user == "$(id -un)" ]] || fail "only root may do this"
    install_missing
    let_in "${3:-}"
    [[ -d $folder/releases ]] \
        || install --directory --owner "$user" --mode 755 "$root" "$folder" "$folder/releases"
    choose_ports
    tell_caddy
    put "$folder/address" <<<"$address"
    [[ -n $changed ]] || echo "there is nothing to change"
    echo "$site is ready for deployments"
}

main "$@" </dev/null
