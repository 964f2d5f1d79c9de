#!/usr/bin/env bash
# Put IMAGE into service in ENVIRONMENT on a host that bootstrap.sh has prepared: docs/deploy.md.
# deploy.sh check|deploy|rollback|status
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export -n DEPLOY_CREDENTIAL REGISTRY_PASSWORD APP_SETTINGS SMOKE_KEY # not for what is run here

verb=${1:-}
ENVIRONMENT=${ENVIRONMENT:-staging}
PROJECT=${PROJECT:-$(grep -m 1 '^name = ' pyproject.toml | cut -d '"' -f 2)}
PACKAGE=${PACKAGE:-$(basename "$(dirname src/*/cli.py)")}
APP_SETTINGS=$(printf '%s' "${APP_SETTINGS:-}" | tr -d '\r')
host=${DEPLOY_HOST:-}
port=${DEPLOY_PORT:-22}
user=${DEPLOY_USER:-deploy}

fail() {
    echo "error: ${*:2}" >&2
    exit "$1"
}

missing=
need() {
    [[ -n ${!2:-} ]] || missing="$missing${missing:+; }gh $1 set $2 --env $ENVIRONMENT"
}

need variable DEPLOY_HOST
if [[ -n ${GITHUB_ACTIONS:-} ]]; then # elsewhere there are the user's own key and known_hosts
    need variable DEPLOY_KNOWN_HOSTS
    need secret DEPLOY_CREDENTIAL
fi
[[ -z ${REGISTRY_PASSWORD:-} ]] || need variable REGISTRY_USER
[[ -z $missing ]] || fail 10 "settings are missing: $missing (docs/deploy.md says what they are)"

case $verb in
    check | rollback | status) ;;
    deploy)
        [[ ${IMAGE:-} =~ ^[a-z0-9][a-zA-Z0-9.:/_-]*@sha256:[0-9a-f]{64}$ ]] \
            || fail 10 "IMAGE has to be registry/owner/project@sha256:…, not '${IMAGE:-}'"
        ;;
    *) fail 10 "usage: deploy/deploy.sh check|deploy|rollback|status" ;;
esac
number=0
while IFS= read -r line; do
    number=$((number + 1))
    [[ -z $line || $line =~ ^(#|[A-Za-z_][A-Za-z0-9_]*=) ]] \
        || fail 10 "APP_SETTINGS: line $number is not NAME=value:" \
            "gh secret set APP_SETTINGS --env $ENVIRONMENT"
done <<<"${APP_SETTINGS:-}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
options=(
    -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=10
    -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -p "$port" -l "$user" -E "$work/log"
)
if [[ -n ${DEPLOY_KNOWN_HOSTS:-} ]]; then
    printf '%s\n' "$DEPLOY_KNOWN_HOSTS" >"$work/known_hosts"
    options+=(-o UserKnownHostsFile="$work/known_hosts" -o GlobalKnownHostsFile=/dev/null)
fi
if [[ -n ${DEPLOY_CREDENTIAL:-} ]]; then
    (umask 077 && printf '%s\n' "$DEPLOY_CREDENTIAL" | tr -d '\r' >"$work/key")
    ssh-keygen -y -P '' -f "$work/key" >/dev/null 2>&1 \
        || fail 10 "DEPLOY_CREDENTIAL is no private SSH key without passphrase:" \
            "gh secret set DEPLOY_CREDENTIAL --env $ENVIRONMENT < KEYFILE"
    options+=(-o IdentitiesOnly=yes -o IdentityAgent=none -i "$work/key")
fi

# The host's bash reads its script line by line, and the script then what follows it.
{
    cat deploy/host.sh
    printf '%s\0' "${IMAGE:-}" "$PACKAGE" "${GITHUB_ACTOR:-$(id -un)}" "${REGISTRY_USER:-}" \
        "${REGISTRY_PASSWORD:-}" "${SMOKE_KEY:-}" "${APP_SETTINGS:-}"
} | ssh "${options[@]}" "$host" bash -s "$verb" "$PROJECT-$ENVIRONMENT" >"$work/said" && code=0 || code=$?

if [[ $code != 0 && $code != 1[0-4] ]]; then
    words=$(tr -d '\r' <"$work/log")
    case $words in
        *"Host key verification failed"*)
            fail 11 "$host:$port is not who DEPLOY_KNOWN_HOSTS says. If it was set up anew, and only" \
                "then: ssh-keyscan -p $port $host | gh variable set DEPLOY_KNOWN_HOSTS" \
                "--env $ENVIRONMENT"
            ;;
        *"Permission denied"*)
            fail 11 "$host:$port refuses $user with this key: run deploy/bootstrap.sh there with the" \
                "public half of DEPLOY_CREDENTIAL"
            ;;
        '' | *"closed by remote host"* | *"not responding"*)
            fail 11 "$host:$port broke off: deploy/deploy.sh status tells what serves"
            ;;
        *) fail 11 "$host:$port cannot be reached: $(tail -n 1 <<<"$words")" ;;
    esac
fi
cat "$work/said"
[[ -z ${GITHUB_OUTPUT:-} ]] || grep -E '^(url|model|previous)=' "$work/said" >>"$GITHUB_OUTPUT" || true
exit "$code"
