#!/usr/bin/env bash
# Puts IMAGE into service in the namespace of ENVIRONMENT: deploy.sh check | deploy | rollback | status
# Fails with 10: a setting, 11: the cluster cannot be reached or it broke off, 12: it is not prepared
# or has no room, 13: the image cannot be had, 14: the new version is not well, and the old one serves.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
export -n DEPLOY_CREDENTIAL APP_SETTINGS REGISTRY_PASSWORD SMOKE_KEY # not for what is run here
PACKAGE=${PACKAGE:-$(basename "$(dirname ../src/*/cli.py)")}
APP_SETTINGS=$(printf '%s' "${APP_SETTINGS:-}" | tr -d '\r')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exec 3>&1 4>&2

# Who applies owns the fields. An undone rollout owns some, too, and would be in conflict for ever.
server_side=(--server-side --force-conflicts --field-manager=deploy)
revision_of='.metadata.annotations.deployment\.kubernetes\.io/revision'
# The replica set that was found well last. The controller copies it to that replica set, where it
# then is its own name; a deployment may be killed at any moment, and what it left is not trusted.
proof=deploy/proven
# How many bytes of events wait in a pod, and why, if they cannot be stored.
waiting='import json, urllib.request as r
events = json.load(r.urlopen("http://127.0.0.1:8000/health/ready", timeout=5))["events"] or {}
print(events.get("backlog_bytes", 0), events.get("store_error") or "")'

fail() {
  echo "error: $2" >&2
  exit "$1"
}

lost() { "$1" 11 "the cluster broke off: $(last "$work/said")"; }

k() { kubectl --namespace "$namespace" "$@"; }

# Asks for what may not be there, or not now.
ask() { k get --ignore-not-found "$@" 2>"$work/ignored" || true; }

# The last line of what a command said, which tells why it failed.
last() { grep . "$1" | tail -n 1 | sed 's/^[Ee]rror: //'; }

field() { sed -n "s|^ *$1: *||p" "$2" | head -n 1; }

settings() {
  local number=0 line
  [[ -n ${ENVIRONMENT:-} && -d overlays/$ENVIRONMENT ]] ||
    fail 10 "ENVIRONMENT is '${ENVIRONMENT:-}', expected one of: $(cd overlays && echo *)"
  overlay=overlays/$ENVIRONMENT
  namespace=$(field namespace "$overlay/kustomization.yaml")
  name=$(field app.kubernetes.io/name base/kustomization.yaml)
  prepare="ENVIRONMENT=$ENVIRONMENT deploy/prepare.sh"
  command -v kubectl >"$work/said" || fail 10 "kubectl is missing: kubernetes.io/docs/tasks/tools"
  [[ ${DEPLOY_ADDRESS:-} == none ]] || command -v curl >"$work/said" || fail 10 "curl is missing, which asks as clients do"

  if [[ -n ${DEPLOY_CREDENTIAL:-} ]]; then
    export KUBECONFIG=$work/kubeconfig
    printf '%s\n' "$DEPLOY_CREDENTIAL" >"$KUBECONFIG"
    # What kubectl does not like about it is not told: it quotes.
    kubectl config view --minify >"$work/said" 2>&1 ||
      fail 10 "DEPLOY_CREDENTIAL is no kubeconfig: $prepare | gh secret set DEPLOY_CREDENTIAL --env $ENVIRONMENT"
  elif [[ -n ${CI:-} ]] || ! kubectl config current-context >"$work/said" 2>&1; then
    fail 10 "DEPLOY_CREDENTIAL is missing: $prepare | gh secret set DEPLOY_CREDENTIAL --env $ENVIRONMENT"
  fi
  if [[ -n ${REGISTRY_PASSWORD:-} && -z ${REGISTRY_USER:-} ]]; then
    fail 10 "REGISTRY_PASSWORD needs REGISTRY_USER: gh variable set REGISTRY_USER --env $ENVIRONMENT"
  fi
  while IFS= read -r line; do
    number=$((number + 1))
    [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*=|[[:space:]]*(#|$)) ]] ||
      fail 10 "APP_SETTINGS: line $number is not NAME=value: gh secret set APP_SETTINGS --env $ENVIRONMENT < FILE"
  done <<<"${APP_SETTINGS:-}"
}

# The cluster answers and lets this account do what is needed; what serves there is known afterwards.
reach() {
  local right
  if ! k get namespace "$namespace" --output=name --request-timeout=15s >"$work/said" 2>&1; then
    case $(<"$work/said") in
      *NotFound*) fail 12 "namespace $namespace is missing: an administrator makes it with $prepare" ;;
      *Forbidden*) fail 12 "namespace $namespace is not open to this account: $prepare makes one that it is open to" ;;
      *) fail 11 "the cluster cannot be reached: $(last "$work/said")" ;;
    esac
  fi
  # What applying needs is seen by kubectl diff, which rehearses it.
  for right in "delete replicasets.apps" "get pods --subresource=log" "create pods --subresource=exec"; do
    # shellcheck disable=SC2086 # several words
    k auth can-i --quiet $right >"$work/said" 2>&1 || [[ -s $work/said ]] ||
      fail 12 "this account may not ${right/ --subresource=/\/} in namespace $namespace: $prepare makes one that may"
  done
  proven 2>"$work/said" || lost fail
  read -r _ served previous <<<"$(tail -n 1 "$work/proven")"
}

# Lists revision, name and image of the replica sets that were found well, the newest last.
proven() {
  k get replicasets --selector="app.kubernetes.io/name=$name" \
    --output="jsonpath={range .items[*]}{$revision_of} {.metadata.name} {.spec.template.spec.containers[0].image} {.metadata.annotations.$proof}{\"\n\"}{end}" |
    awk '$2 == $4 { print $1, $2, $3 }' | sort -n >"$work/proven"
}

# All objects as they shall be, with the image $1 and the secrets, in $work/objects.yaml.
build() {
  local auth
  if [[ -n ${APP_SETTINGS:-} ]]; then
    grep -Eq '^APP_EVENTS__(STORE=postgresql|MODE=off)' <<<"$APP_SETTINGS" ||
      fail 10 "APP_SETTINGS lacks APP_EVENTS__STORE=postgresql://...: events end with their pod (where none are wanted: APP_EVENTS__MODE=off)"
  elif [[ -z $(ask secret settings --output=name) ]]; then
    fail 10 "APP_SETTINGS is missing, with at least APP_EVENTS__STORE=postgresql://...: gh secret set APP_SETTINGS --env $ENVIRONMENT < FILE"
  fi
  cp -R base overlays monitoring "$work"
  {
    printf 'resources: [%s]\n' "$overlay"
    printf 'namespace: %s\n' "$namespace"
    printf 'images: [{name: model, newName: "%s", digest: "%s"}]\n' "${1%@*}" "${1#*@}"
    printf 'generatorOptions: {labels: {app.kubernetes.io/name: %s}}\n' "$name"
    echo 'secretGenerator:'
    if [[ -n ${APP_SETTINGS:-} ]]; then
      printf '%s\n' "$APP_SETTINGS" >"$work/settings.env"
      # Its name gets a hash: other settings are another rollout, and undone with it.
      echo '  - {name: settings, envs: [settings.env]}'
    fi
    if [[ -n ${REGISTRY_PASSWORD:-} ]]; then
      auth=$(printf '%s:%s' "$REGISTRY_USER" "$REGISTRY_PASSWORD" | base64 | tr -d '\n')
      printf '{"auths":{"%s":{"auth":"%s"}}}' "${1%%/*}" "$auth" >"$work/registry.json"
      echo '  - name: registry'
      echo '    type: kubernetes.io/dockerconfigjson'
      echo '    files: [.dockerconfigjson=registry.json]'
      echo '    options: {disableNameSuffixHash: true}'
    fi
  } >"$work/kustomization.yaml"
  kubectl kustomize "$work" >"$work/objects.yaml"
  host=$(field '- host' "$work/objects.yaml")
  [[ $host != *.example ]] ||
    fail 10 "deploy/$overlay/kustomization.yaml has the host $host: write the one that clients will use"
}

differences() {
  local code=0
  k diff "${server_side[@]}" --filename="$work/objects.yaml" >"$work/diff" 2>"$work/said" || code=$?
  ((code > 1)) || return 0
  ! grep -q 'no matches for kind "ServiceMonitor"' "$work/said" ||
    fail 12 "the cluster knows no ServiceMonitor: install the Prometheus operator, or remove the component from deploy/$overlay/kustomization.yaml"
  fail 12 "the cluster refuses the objects: $(last "$work/said")"
}

# Finds the replica set of the newest revision, and its newest pod.
look() {
  now=$(ask deployment "$name" --output="jsonpath={$revision_of}")
  replicaset=$(ask replicasets --selector="app.kubernetes.io/name=$name" \
    --output="jsonpath={range .items[*]}{$revision_of} {.metadata.name}{\"\n\"}{end}" |
    awk -v now="$now" '$1 == now { print $2 }')
  pod=$(ask pods --selector="app.kubernetes.io/name=$name,pod-template-hash=${replicaset##*-}" \
    --sort-by=.metadata.creationTimestamp --output=name | tail -n 1)
}

warnings() {
  ask events --field-selector="involvedObject.name=${pod#pod/},type=Warning" --sort-by=.lastTimestamp \
    --output="jsonpath={range .items[*]}{.message}{\"\n\"}{end}" | grep -- "$1" | tail -n 1
}

# Sets code and why, if waiting longer would be in vain.
examine() {
  why=$(ask deployment "$name" --output='jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}')
  [[ -z $why ]] || { code=12 why="no pod may be made: $why" && return; }
  look
  [[ -n $pod ]] || return 0
  local state='.status.containerStatuses[0].state.waiting'
  case $(ask "$pod" --output="jsonpath={$state.reason}") in
    ImagePullBackOff | InvalidImageName)
      code=13
      why="the cluster cannot pull the image: $(warnings 'pull' || ask "$pod" --output="jsonpath={$state.message}")"
      ;;
    CreateContainerConfigError)
      code=10
      why="$(ask "$pod" --output="jsonpath={$state.message}"): gh secret set APP_SETTINGS --env $ENVIRONMENT < FILE"
      ;;
    CrashLoopBackOff | RunContainerError)
      code=14
      k logs "$pod" --previous --tail=5 >"$work/log" 2>&1 || true
      ask "$pod" --output='jsonpath={.status.containerStatuses[0].lastState.terminated.message}' >>"$work/log"
      why="the new version ends as soon as it starts: $(last "$work/log")"
      ! grep -q 'exec format error' "$work/log" ||
        { code=13 why="the image is for another architecture than the cluster's nodes: exec format error"; }
      ;;
  esac
}

# Says why there was no end: no room, or what the pod does not do.
late() {
  why=$(ask "$pod" --output='jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}')
  [[ -z $why ]] || { code=12 why="no node takes the pod: $why" && return; }
  code=14 why="the new version is not ready after ${DEPLOY_TIMEOUT:-300} s: $(warnings . || last "$work/said")"
}

settle() {
  local until=$((SECONDS + ${DEPLOY_TIMEOUT:-300}))
  until k rollout status deployment "$name" --timeout=3s >"$work/said" 2>&1; do
    examine
    ((code == 0)) || return 1
    if ((SECONDS > until)) || grep -q 'progress deadline' "$work/said"; then
      late
      return 1
    fi
    sleep 1
  done
  look
}

smoke() {
  local stored until=$((SECONDS + 20))
  # shellcheck disable=SC2016 # the pod's shell expands it
  k exec --stdin "$pod" -- sh -c 'read -r SMOKE_KEY; export SMOKE_KEY; exec python -m "$0" smoke --url http://127.0.0.1:8000' \
    "$PACKAGE" <<<"${SMOKE_KEY:-}" >"$work/said" 2>&1 ||
    {
      sed '/^command terminated/d' "$work/said" >"$work/smoke"
      code=14 why="the new version fails its smoke test: $(last "$work/smoke")"
      return 1
    }
  cat "$work/said"
  model=$(sed -n 's/.* serves \(.*\); .*/\1/p' "$work/said")
  # The test's own predictions have to reach the store.
  until stored=$(k exec "$pod" -- python -c "$waiting") && [[ $stored == "0 " ]]; do
    if ((SECONDS > until)); then
      [[ $stored =~ ^[0-9]+\ .+ ]] || return 0 # others ask, too: there is always something that waits
      code=14 why="the new version cannot store events: ${stored#* }"
      return 1
    fi
    sleep 1
  done
}

# Asks through what stands in front of the pods, as clients do.
answer() {
  local address=${DEPLOY_ADDRESS:-https://$host} until=$((SECONDS + ${DEPLOY_TIMEOUT:-60}))
  [[ $address != none ]] || return 0
  until curl --fail --silent --show-error --max-time 10 --output "$work/answer" "$address/health/ready" 2>"$work/said"; do
    if ((SECONDS > until)); then
      code=14 why="$address does not answer: $(last "$work/said") (if only this machine cannot reach it: DEPLOY_ADDRESS=none)"
      return 1
    fi
    sleep 1
  done
}

# Keeps the newest revision in service if it is well, and goes back if it is not.
prove() {
  code=0
  if ! { settle && smoke && answer; }; then
    undo "$code" "$why"
  fi
}

# A signal may come where what is said goes to a file.
# shellcheck disable=SC2317,SC2329 # the trap calls it
cancelled() {
  exec >&3 2>&4
  undo 11 "it was broken off"
}

# Goes back to what was found well last, with what stands in front of it, and fails with a code and a reason.
undo() {
  trap '' HUP INT TERM
  k rollout status deployment "$name" --timeout=1s >"$work/ignored" 2>&1 || true # its revision is known then
  look
  [[ -n $previous ]] || fail "$1" "$2; nothing served before"
  [[ -s $work/diff || $replicaset != "$served" ]] ||
    fail "$1" "$2; nothing of it was changed now, so nothing is undone"
  {
    proven && k rollout undo deployment "$name" --to-revision="$(awk -v name="$served" '$2 == name { print $1 }' "$work/proven")" &&
      { [[ ! -e $work/around.yaml ]] || k apply "${server_side[@]}" --filename="$work/around.yaml"; }
  } 2>"$work/said" || fail "$1" "$2; it could not be undone: $(last "$work/said"): the next deployment goes back to $previous"
  k rollout status deployment "$name" --timeout="${DEPLOY_TIMEOUT:-300}s" ||
    fail "$1" "$2; undone, but $previous is not ready again"
  # Else it would be what kubectl rollout undo goes back to.
  [[ -z $replicaset || $replicaset == "$served" ]] || k delete replicaset "$replicaset" --ignore-not-found || true
  fail "$1" "$2; $previous serves"
}

# Keeps what stands in front of the pods as it is; the Deployment has its revisions.
keep() {
  local object
  k get --filename="$work/objects.yaml" --ignore-not-found --output=name >"$work/names" 2>"$work/said" || lost fail
  while read -r object; do
    echo --- >>"$work/live.yaml"
    k get "$object" --output=yaml >>"$work/live.yaml" 2>"$work/said" || lost fail
  done < <(grep -Ev '^(deployment\.apps|secret)/' "$work/names")
  # By the time that this is applied there is another version of each.
  [[ ! -e $work/live.yaml ]] || sed '/^ *resourceVersion: /d' "$work/live.yaml" >"$work/around.yaml"
}

finish() {
  local image host
  k annotate deployment "$name" --overwrite "$proof=$replicaset" >"$work/said" 2>&1 || lost undo
  trap - HUP INT TERM
  image=$(ask deployment "$name" --output='jsonpath={.spec.template.spec.containers[0].image}')
  host=$(ask ingress "$name" --output='jsonpath={.spec.rules[0].host}')
  echo "$image serves https://$host from namespace $namespace; before: ${previous:-nothing}"
  [[ -z ${GITHUB_OUTPUT:-} ]] || printf 'url=https://%s\nmodel=%s\nprevious=%s\n' "$host" "$model" "$previous" >>"$GITHUB_OUTPUT"
}

check() {
  reach
  build "${previous:-model@sha256:$(printf '0%.0s' {1..64})}"
  differences
  echo "namespace $namespace is ready; ${previous:-nothing} serves"
}

deploy() {
  local stuck
  [[ ${IMAGE:-} =~ ^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$ ]] ||
    fail 10 "IMAGE is '${IMAGE:-}', expected a name with its digest: registry/owner/project@sha256:..."
  reach
  build "$IMAGE"
  if [[ -n $previous && -z ${LOSE_EVENTS:-} ]]; then
    stuck=$(k exec "deployment/$name" -- python -c "$waiting" 2>"$work/said" || true)
    [[ ! $stuck =~ ^[1-9][0-9]*\ .+ ]] ||
      fail 12 "events wait in the pods and would end with them, as the store does not take them: ${stuck#* } (to give them up: LOSE_EVENTS=1 make deploy)"
  fi
  differences
  cat "$work/diff"
  keep
  trap cancelled HUP INT TERM
  if ! k apply "${server_side[@]}" --filename="$work/objects.yaml" 2>"$work/said"; then
    ! grep -q 'Error from server' "$work/said" || undo 12 "the cluster refuses the objects: $(last "$work/said")"
    lost undo
  fi
  cat "$work/said" >&2
  prove
  finish
}

rollback() {
  local target
  reach
  look
  target=$(awk -v name="$replicaset" '$2 != name { revision = $1 } END { print revision }' "$work/proven")
  [[ -n $target ]] || fail 12 "nothing to go back to in namespace $namespace: no other version was found well"
  host=$(ask ingress "$name" --output='jsonpath={.spec.rules[0].host}')
  trap cancelled HUP INT TERM
  k rollout undo deployment "$name" --to-revision="$target" 2>"$work/said" ||
    lost undo
  prove
  finish
}

status() {
  reach
  k get deployments,pods,horizontalpodautoscalers --selector="app.kubernetes.io/name=$name"
  k rollout history deployment "$name"
}

case ${1:-} in
  check | deploy | rollback | status)
    settings
    "$1"
    ;;
  *) fail 10 "expected: deploy.sh check | deploy | rollback | status" ;;
esac
