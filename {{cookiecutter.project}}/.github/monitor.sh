#!/usr/bin/env bash
# What monitor.yml asks of GitHub:
#   fetch   the bundle of what the last deployment serves; and whether it was told that nobody looks
#   issue   one issue, labelled "monitoring", that says how things stand: opened when drift or errors are
#           confirmed or the monitor could not look, renewed by each look, closed when that is over
set -euo pipefail

BLIND="The monitor could not look"

fetch() {
  served || echo "::notice::No deployment kept a bundle: what serves has to be named in serving.source"
  # This machine has no memory; who was told that nobody looks is not told every hour.
  if [[ $(open_issue) == *"$BLIND"* ]]; then
    mkdir -p .cache/monitoring
    echo '["webhook", "email"]' >.cache/monitoring/blind.json
  fi
}

served() { # a deployment that went back to an image kept no bundle: an earlier one did, of the same image
  local run image=
  for run in $(gh run list --workflow deploy --branch main --status success --limit 30 --json databaseId --jq '.[].databaseId'); do
    [ -n "$image" ] && [ "$image" != "$(deployed "$run")" ] && continue
    gh run download "$run" --name bundle --dir bundle && return
    image=${image:-$(deployed "$run")}
    [ -n "$image" ] || return
  done
  return 1
}

deployed() { # run
  local folder
  folder=$(mktemp -d)
  gh run download "$1" --name deployment --dir "$folder" && jq --raw-output .image "$folder/deployment.json"
}

open_issue() {
  gh issue list --label monitoring --state open --limit 1 --json number,title --jq '.[] | [.number, .title] | @tsv'
}

told() { jq --raw-output ".$1" reports/monitoring.json; }

body() { # an issue takes 65,536 characters
  printf '%s\n\n[The report](%s) is an artifact of this run.\n' "$(head --bytes=60000 reports/monitoring.md)" \
    "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
}

issue() {
  local status title number before
  status=$(told status)
  title=$(told headline | cut --characters=-200)
  before=$(open_issue)
  number=${before%%$'\t'*}
  case $status in
    drift | degraded | failed)
      if [ -n "$number" ]; then
        gh issue edit "$number" --title "$title" --body-file - <<<"$(body)"
      else
        gh label create monitoring --force --color d93f0b --description "What the monitor found"
        gh issue create --title "$title" --label monitoring --body-file - <<<"$(body)"
      fi
      ;;
    *)
      if [ -z "$number" ]; then
        echo "$title"
      elif [ "$status" = steady ] || [[ $before == *"$BLIND"* ]]; then
        gh issue close "$number" --comment "Over: $title."
      else
        gh issue edit "$number" --body-file - <<<"$(body)"
      fi
      ;;
  esac
}

"$@"
