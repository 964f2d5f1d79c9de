#!/usr/bin/env bash
# What retrain.yml does:
#   run       train again if there is a reason to (as make retrain); tell GITHUB_OUTPUT what came of it
#   propose   ask a person to decide: in a pull request with the rows, or in an issue where the repository is
#             public, as rows come from clients, none is new, or workflows may open none. What is open is renewed
#   deploy    build and deploy the new champion, where the image holds it
set -euo pipefail

RECORD=(data/feedback dvc.lock contract.json)
TITLE="Retrain: too few truths to decide without a person"

tell() { [ -z "${GITHUB_OUTPUT:-}" ] || echo "$1" >>"$GITHUB_OUTPUT"; }

run() {
  local code=0 outcome project model
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
  model=$("${project[@]}" setting image.model)
  case "$outcome $model $("${project[@]}" setting serving.source)" in
    "promoted models:/"* | "rolled back models:/"*) tell deploy=true ;;
    *" models:/"*) ;; # the service follows the registry
    "promoted "* | "rolled back "*)
      echo "::warning::The champion is another one, and nothing is deployed: set image.model in params.yaml to models:/$("${project[@]}" setting tracking.model)@champion, or serving.source where the service can reach the registry"
      ;;
  esac
  if [ "$outcome" = undecided ]; then
    mkdir proposal
    git ls-files -z --others --exclude-standard -- "${RECORD[@]}" | xargs -0r git add --intent-to-add --
    git diff --binary --output=proposal/retrain.patch -- "${RECORD[@]}"
    { decide "$model" "${project[*]}" && printf '<pre>\n%s\n</pre>\n' "$(cat retrain.txt)"; } >proposal/body.md
    [[ ${PRIVATE:-} == true && -s proposal/retrain.patch ]] || rm proposal/retrain.patch
  fi
}

decide() { # image.model, how the project is called: how a person does so
  local retrain=
  if [[ ${PRIVATE:-} == true && -s proposal/retrain.patch ]]; then
    if [[ $1 == models:/* ]]; then
      cat <<END
Merging lets nothing serve, as the image holds $1: it keeps these rows for the next training. To let the model serve, if the gate opens, run on this branch, with \`MLFLOW_TRACKING_URI\` set:

    make pipeline
    $2 promote

Then build the image anew. Close this to leave rows and champion as they are.
END
    else
      echo "Merge to train on these rows, close to leave the champion as it is."
    fi
    return
  fi
  if [ -s proposal/retrain.patch ]; then
    echo "The rows came from clients, so they are not proposed in a public repository."
    retrain="    $2 retrain --force --why \"a person decides\""$'\n'
  fi
  cat <<END
To let the model serve, if the gate opens, run in a clone, with \`APP_EVENTS__STORE\` and \`MLFLOW_TRACKING_URI\` set:

$retrain    $2 promote

END
  if [[ $1 == models:/* ]]; then
    echo "Then build the image anew, and close this. Close it at once to leave the champion as it is."
  else
    echo "An image that is trained from this repository (\`image.model: train\`) never holds that model: name it in \`image.model\` or \`serving.source\`, as \`models:/…@champion\`. Close this to leave the champion as it is."
  fi
}

propose() { # folder with body.md, and with retrain.patch where rows are proposed
  local number
  if [ ! -e "$1/retrain.patch" ]; then
    ask <"$1/body.md"
    return
  fi
  git apply --include="data/feedback/*" --include=dvc.lock --include=contract.json "$1/retrain.patch"
  git config user.name "github-actions[bot]"
  git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
  git switch --quiet --force-create retrain
  git add "${RECORD[@]}"
  git commit --quiet --message "feat: train on the newest labelled predictions"
  gh auth setup-git
  git push --quiet --force origin retrain
  # Its checks wait for somebody's approval, as those of a release do.
  number=$(gh pr list --head retrain --base main --state open --json number --jq '.[].number')
  if [ -n "$number" ]; then
    gh api --method PATCH "repos/{owner}/{repo}/pulls/$number" --field title="$TITLE" --field body=@- <"$1/body.md"
  else
    gh pr create --head retrain --base main --title "$TITLE" --body-file - <"$1/body.md" || {
      echo "GitHub opens no pull request for the branch \`retrain\`: \`make github\`, or Settings, Actions, General, allows workflows to. Until then open it yourself:"
      echo
      cat "$1/body.md"
    } | ask
  fi
}

ask() { # in an issue whose body comes in
  local number body
  body=$(cat)
  number=$(gh issue list --label retraining --state open --limit 1 --json number --jq '.[].number')
  if [ -n "$number" ]; then
    gh issue edit "$number" --body-file - <<<"$body"
  else
    gh label create retraining --force --color d93f0b --description "A person has to decide"
    gh issue create --title "$TITLE" --label retraining --body-file - <<<"$body"
  fi
}

deploy() {
  if [ -e .github/workflows/deploy.yml ]; then gh workflow run deploy.yml --ref main; else gh workflow run main.yml --ref main; fi
}

"$@"
