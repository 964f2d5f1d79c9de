#!/usr/bin/env bash
# Once for each environment, by an administrator of the cluster: makes the namespace, and an account
# that can do there what deploy.sh does. Prints the kubeconfig of that account:
#   ENVIRONMENT=staging deploy/prepare.sh | gh secret set DEPLOY_CREDENTIAL --env staging
set -euo pipefail
cd "$(dirname "$0")"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ -z ${ENVIRONMENT:-} || ! -d overlays/$ENVIRONMENT ]]; then
  echo "error: ENVIRONMENT is '${ENVIRONMENT:-}', expected one of: $(cd overlays && echo *)" >&2
  exit 10
fi
namespace=$(sed -n 's/^namespace: *//p' "overlays/$ENVIRONMENT/kustomization.yaml")
cp -R access "$work"
printf 'namespace: %s\nresources: [access]\n' "$namespace" >"$work/kustomization.yaml"
kubectl apply --server-side --filename=<(kubectl kustomize "$work") >&2

secret() { kubectl --namespace "$namespace" get secret deployer --output="jsonpath={.data.$1}"; }
until=$((SECONDS + ${DEPLOY_TIMEOUT:-60}))
until [[ -n $(secret token) ]]; do # the cluster fills it in
  if ((SECONDS > until)); then
    echo "error: the cluster puts no token into the secret deployer of namespace $namespace: does its controller manager run?" >&2
    exit 12
  fi
  sleep 1
done
server=$(kubectl config view --minify --output='jsonpath={.clusters[0].cluster.server}')
cat <<END
apiVersion: v1
kind: Config
current-context: deployer
contexts:
  - name: deployer
    context: {cluster: cluster, user: deployer, namespace: $namespace}
clusters:
  - name: cluster
    cluster: {server: "$server", certificate-authority-data: $(secret 'ca\.crt')}
users:
  - name: deployer
    user: {token: $(secret token | base64 --decode)}
END
