#!/usr/bin/env bash
# What retrain.yml does:
#   run       train again if there is a reason to (as make retrain); tell GITHUB_OUTPUT what came of it
#   propose   open a pull request with what a person has to decide about, or renew the one that is open;
#             where nothing was trained, as the challenger only waited for truths, an issue
#   deploy    build and deploy the new champion, where the image holds it
set -euo pipefail

RECORD=(data/feedback dvc.lock contract.json)

tell() { [ -z "${GITHUB_OUTPUT:-}" ] || echo "$1" >>"$GITHUB_OUTPUT"; }

run() {
  local code=0 outcome project
  project=(.venv/bin/python -m "$(basename "$(dirname src/*/cli.py)")")
  "${project[@]}" retrain ${WHY:+--why "$WHY"} >retrain.log 2>&1 || code=$?
  cat retrain.log
  # Its last words, with the gate's table.
  awk '/^(retrain  |error: )/ { said = "" } { said = said $0 "\n" } END { printf "%s", said }' retrain.log >retrain.txt
  case $code in
    0) outcome=$(sed -n '1s/^retrain *\([a-z ]*\):.*/\1/p' retrain.txt) ;;
    10) outcome=refused ;;
    13) outcome=undecided ;;
    *) exit "$code" ;;
  esac
  [ -z "${GITHUB_STEP_SUMMARY:-}" ] || printf '### Retraining: %s\n<pre>\n%s\n</pre>\n' "$outcome" "$(cat retrain.txt)" >>"$GITHUB_STEP_SUMMARY"
  tell "outcome=$outcome"
  case "$outcome $("${project[@]}" setting image.model) $("${project[@]}" setting serving.source)" in
    "promoted models:/"* | "rolled back models:/"*) tell deploy=true ;;
    *" models:/"*) ;; # the service follows the registry
    "promoted "* | "rolled back "*)
      echo "::warning::The champion is another one, and nothing is deployed: set image.model in params.yaml to models:/$("${project[@]}" setting tracking.model)@champion, or serving.source where the service can reach the registry"
      ;;
  esac
  if [ "$outcome" = undecided ]; then
    git add --intent-to-add "${RECORD[@]}"
    mkdir proposal
    git diff --binary --output=proposal/retrain.patch -- "${RECORD[@]}"
    cp retrain.txt proposal/
  fi
}

propose() { # retrain.patch, retrain.txt
  local number title="Retrain: too few truths to decide without a person"
  if [ ! -s "$1" ]; then
    printf '<pre>\n%s\n</pre>\n' "$(cat "$2")" | gh issue create --title "$title" --body-file -
    return
  fi
  git apply --include="data/feedback/*" --include=dvc.lock --include=contract.json "$1"
  git config user.name "github-actions[bot]"
  git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
  git switch --quiet --force-create retrain
  git add "${RECORD[@]}"
  git commit --quiet --message "feat: train on the newest labelled predictions"
  gh auth setup-git
  git push --quiet --force origin retrain
  body() { printf 'Merge to train on these rows, close to leave the champion as it is.\n<pre>\n%s\n</pre>\n' "$(cat "$1")"; }
  # Its checks wait for somebody's approval, as those of a release do.
  number=$(gh pr list --head retrain --base main --state open --json number --jq '.[].number')
  if [ -n "$number" ]; then
    gh api --method PATCH "repos/{owner}/{repo}/pulls/$number" --field title="$title" --field body=@- <<<"$(body "$2")"
  else
    gh pr create --head retrain --base main --title "$title" --body-file - <<<"$(body "$2")"
  fi
}

deploy() {
  if [ -e .github/workflows/deploy.yml ]; then gh workflow run deploy.yml --ref main; else gh workflow run main.yml --ref main; fi
}

"$@"
