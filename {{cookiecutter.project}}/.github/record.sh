#!/usr/bin/env bash
# Writes what a deployment came to, into deployment.json and as Markdown. STAGING and PRODUCTION are
# the results and outputs of the jobs, IMAGE is what they deployed.
set -euo pipefail

jq --null-input \
  --arg image "$IMAGE" --arg commit "$GITHUB_SHA" --arg actor "$GITHUB_ACTOR" \
  --arg run "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID" \
  --argjson staging "$STAGING" --argjson production "$PRODUCTION" \
  --arg time "$(date --utc +%FT%TZ)" '
  def environment: {result, url: .outputs.url, model: .outputs.model, previous: .outputs.previous};
  {image: $image, commit: $commit, actor: $actor, run: $run, time: $time,
   staging: ($staging | environment), production: ($production | environment)}' >deployment.json

jq --raw-output '
  def row($name): "| \($name) | \(if .result == "success" then "serves" else "not deployed: \(.result)" end)"
    + " | \(.model // "") | \(.url // "") | \(if .result == "success" then "passed" else "" end) |";
  (.production.result == "success") as $good
  | "## \(if $good then "Deployed" else "Not deployed to production" end)",
    "", "`\(.image)`", "",
    "| Environment | | Model | Address | Smoke test and contract |", "| --- | --- | --- | --- | --- |",
    (.staging | row("staging")), (.production | row("production")), "",
    "What the test asks, and when: docs/deploy.md.", "",
    if $good | not then "What served in production before goes on serving. The job that failed says why."
    elif (.production.previous // "") == "" then "Nothing served in production before."
    else "Before: `\(.production.previous)`. Back to it:", "", "```",
      "gh workflow run deploy.yml -f digest=\(.production.previous | split("@")[1])", "```" end' deployment.json
