#!/usr/bin/env bash
# The host's part of a deployment, which deploy.sh sends: bash -s VERB PROJECT-ENVIRONMENT, with
# what belongs on no command line behind it on stdin. In /srv/deploy/PROJECT-ENVIRONMENT:
#
#   address ports site.caddy     written by bootstrap.sh
#   releases/NAME/               image, package, settings.env, previous, and a file blue or green
#   live -> releases/NAME        the one that serves
#   history lock                 who put what into service, and when; one deployment at a time
#
# A release has a container of the same name, and its colour has a port of its own. Caddy looks at
# every request whether live/green exists, so that a switch is one rename: nothing is reloaded, no
# connection is cut, and it holds after a reboot. What is neither live nor the one before, `settle`
# takes away, so a deployment may be killed at any moment.
set -euo pipefail
shopt -s inherit_errexit nullglob
umask 022 # Caddy, another user, has to see which colour is live

verb=$1
site=$2
folder=${DEPLOY_ROOT:-/srv/deploy}/$site
prefix=${DEPLOY_PREFIX:-}$site # tests put several hosts on one machine
seconds=${DEPLOY_SECONDS:-60}  # for a new version to be ready
room=${DEPLOY_ROOM_MB:-1024}
image='' package='' actor='' user='' password='' settings='' # read from stdin by main
hardened=(
    --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
    --pids-limit 512 --log-driver local --label "deploy=$folder"
)

say() {
    echo "$*" >&2
}

fail() {
    say "error: ${*:2}"
    exit "$1"
}

# The last of some lines, without the word that the next line of output will have again.
last() {
    tail --lines=1 | sed 's/^error: //'
}

release() {
    [[ ! -L live ]] || basename "$(readlink live)"
}

before() {
    [[ ! -e live/previous ]] || cat live/previous
}

# What goes by itself just then, as what `docker run --rm` left does, only has to be gone.
remove() {
    local words
    for _ in {1..100}; do
        words=$(docker rm --force --volumes "$1" 2>&1) && return
        case $words in
            *"No such container"*) return ;;
            *"already in progress"*) sleep 0.2 ;;
            *) break ;;
        esac
    done
    say "$words"
    return 1
}

settle() {
    local live previous container path image
    live=$(release)
    previous=$(before)
    rm -rf login live.new
    for container in $(docker ps --all --filter "label=deploy=$folder" --format '{{.Names}}'); do
        case $container in
            "$prefix-$live") ;;
            "$prefix-$previous") docker stop "$container" >/dev/null ;;
            *) remove "$container" ;;
        esac
    done
    for path in releases/*; do
        if [[ $path != "releases/$live" && $path != "releases/$previous" ]]; then
            image=$(cat "$path/image" 2>/dev/null || true)
            rm -rf "$path"
            # Refused where a container, also of another environment, is made of it.
            [[ -z $image ]] || docker image rm "$image" >/dev/null 2>&1 || true
        fi
    done
}

require_docker() {
    local words
    words=$(docker ps --quiet 2>&1) \
        || fail 12 "Docker does not answer $(id -un): $(last <<<"$words"): run deploy/bootstrap.sh"
}

require_target() {
    local place free host port
    for place in "$folder" "$(docker info --format '{{.DockerRootDir}}')"; do
        free=$(df --output=avail --block-size=1M "$place" | tail --lines=1)
        ((free >= room)) || fail 12 "no room: $place has ${free// /} MB free, a deployment needs" \
            "$room: docker system df shows what Docker holds"
    done
    host=127.0.0.1
    port=443
    if [[ $url == http://* ]]; then
        port=${url##*:}
        [[ $port =~ ^[0-9]+$ ]] || port=80
    fi
    (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null \
        || fail 12 "nothing listens for $url on port $port: systemctl status caddy"
}

pull() {
    local registry=${image%%/*} words
    mkdir -m 700 login
    if { [[ -z $password ]] || words=$(printf '%s' "$password" | docker --config login login \
        --username "$user" --password-stdin "$registry" 2>&1); } \
        && words=$(docker --config login pull --quiet "$image" 2>&1); then
        rm -rf login
        return
    fi
    case ${words,,} in
        *"no space left"*) fail 12 "no room for $image: docker system df shows what Docker holds" ;;
        *unauthorized* | *denied* | *"no basic auth"*)
            fail 13 "$registry refuses REGISTRY_USER '$user' with REGISTRY_PASSWORD: it is wrong," \
                "expired, or has no right to read $image"
            ;;
        *"manifest unknown"* | *"not found"*) fail 13 "$registry does not have $image" ;;
        *"no matching manifest"*) fail 13 "$image is not for this host: $(last <<<"$words")" ;;
        *) fail 13 "$registry does not give the image: $(last <<<"$words")" ;;
    esac
}

require_image() {
    local made runs
    docker image inspect "$image" >/dev/null 2>&1 || pull
    made=$(docker image inspect --format '{{.Os}}/{{.Architecture}}' "$image")
    runs=$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}')
    if [[ $made != "$runs" ]]; then
        docker image rm "$image" >/dev/null 2>&1 || true
        fail 13 "$image is made for $made, and this host runs $runs"
    fi
}

unwell() {
    local goes_on="nothing serves yet"
    [[ ! -L live ]] || goes_on="what served before goes on serving"
    fail 14 "$*; $goes_on"
}

# Ask a container's service, from inside, for what its bundle promises.
smoke() {
    local container=$prefix-$1 words
    if ! words=$(docker exec --env SMOKE_KEY "$container" python -m "$(cat "releases/$1/package")" \
        smoke --url http://127.0.0.1:8000 --seconds "$seconds" 2>&1); then
        [[ $(docker inspect --format '{{.State.Running}}' "$container") == true ]] \
            || words=$(docker logs --tail 1 "$container" 2>&1)
        unwell "the new version is not well: $(last <<<"$words")"
    fi
    version=$(sed --quiet 's/.* serves \(.*\); .*/\1/p' <<<"$words")
}

# Let Caddy send requests to a release, and ask it there; go back where it does not answer.
switch() {
    local live host words
    live=$(release)
    point "$1"
    host=${url#*://}
    host=${host%%[:/]*}
    if ! words=$(docker run --rm "${hardened[@]}" --network host --add-host "$host:127.0.0.1" \
        --env-file "releases/$1/settings.env" --env SMOKE_KEY "$(cat "releases/$1/image")" \
        python -m "$(cat "releases/$1/package")" smoke --url "$url" --seconds 10 2>&1); then
        if [[ -n $live ]]; then point "$live"; else rm live; fi
        unwell "the new version is not well behind Caddy: $(last <<<"$words")"
    fi
    printf '%s\t%s\t%s\t%s\t%s\n' "$(date --utc +%FT%TZ)" "$verb" "$(cat "releases/$1/image")" \
        "$version" "$actor" >>history
    say "$url serves $version"
    sleep 1 # for requests that Caddy has read, and not yet passed on
}

point() {
    ln --symbolic "releases/$1" live.new
    mv --no-target-directory live.new live
}

# Start the container of a release; where somebody has removed it, make it again.
start() {
    local port words
    words=$(docker start "$prefix-$1" 2>&1) && return
    if [[ $words == *"No such container"* ]]; then
        image=$(cat "releases/$1/image")
        require_image
        read -r port _ <ports
        [[ ! -e releases/$1/green ]] || read -r _ port <ports
        say "starting $image as $prefix-$1"
        words=$(docker run --detach --name "$prefix-$1" "${hardened[@]}" --stop-timeout 40 \
            --publish "127.0.0.1:$port:8000" --volume "$prefix-events:/app/events" \
            --env-file "releases/$1/settings.env" "$image" 2>&1) && return
    fi
    unwell "$prefix-$1 cannot be started: $(last <<<"$words")"
}

# Start a release, and see that it is well.
prove() {
    start "$1"
    smoke "$1"
    # Only now: what was never found well must not come back after a reboot.
    docker update --restart unless-stopped "$prefix-$1" >/dev/null
}

deploy() {
    local name colour=blue live
    live=$(release)
    settings=$(printf '%s' "$settings") # as a file's are read: without newlines at the end
    [[ -n $settings || -z $live ]] || settings=$(cat live/settings.env)
    if [[ -n $live && $image == $(cat live/image) && $settings == $(cat live/settings.env) ]]; then
        prove "$live"
        say "$url serves $version already"
        return
    fi
    require_image
    name=$(date --utc +%Y%m%dT%H%M%S)
    [[ ! -e live/blue ]] || colour=green
    mkdir -p "releases/$name"
    echo "$image" >"releases/$name/image"
    echo "$package" >"releases/$name/package"
    echo "$live" >"releases/$name/previous"
    (umask 077 && printf '%s\n' "$settings" >"releases/$name/settings.env")
    touch "releases/$name/$colour"
    prove "$name"
    switch "$name"
}

rollback() {
    local live previous
    live=$(release)
    previous=$(before)
    [[ -n $previous ]] || fail 12 "$site has nothing to go back to: nothing was deployed before"
    say "starting $(cat "releases/$previous/image") as $prefix-$previous"
    prove "$previous"
    echo "$live" >"releases/$previous/previous"
    switch "$previous"
}

status() {
    local live previous
    live=$(release)
    previous=$(before)
    echo "address   $url"
    echo "serving   ${live:+$(cat live/image)}"
    echo "previous  ${previous:+$(cat "releases/$previous/image")}"
    [[ ! -e history ]] || tail --lines=5 history
}

begin() {
    exec 9>lock
    flock --wait 300 9 || fail 12 "another deployment of $site has been under way for 5 minutes"
    require_docker
    trap end EXIT
    settle # before there is asked for room, which it may make
    require_target
}

finish() {
    local previous
    settle
    previous=$(before)
    echo "url=$url"
    echo "model=$version"
    echo "previous=${previous:+$(cat "releases/$previous/image")}"
}

# However it ends: what serves now goes on, alone.
# shellcheck disable=SC2329 # the trap calls it
end() {
    local code=$?
    trap '' HUP INT PIPE TERM
    [[ $code == 0 ]] || settle
    if [[ $code != 0 && $code != 1[0-4] ]]; then
        echo "error: it broke off on the host; what served before goes on serving" >&2 || true
        code=12
    fi
    exit "$code"
}

main() {
    local name
    cd "$folder" 2>/dev/null && [[ -w . && -e address && -e ports ]] \
        || fail 12 "$folder is not there or not ours: run deploy/bootstrap.sh on the host"
    url=$(<address)
    [[ $url == http* ]] || url=https://$url
    for name in image package actor user password SMOKE_KEY settings; do
        IFS= read -r -d '' "${name?}"
    done
    export SMOKE_KEY
    exec </dev/null
    case $verb in
        check)
            require_docker
            require_target
            ;;
        status) status ;;
        deploy)
            begin
            deploy
            finish
            ;;
        rollback)
            begin
            rollback
            finish
            ;;
        *) fail 10 "no verb '$verb'" ;;
    esac
}

main; exit # on one line: what follows is no script
